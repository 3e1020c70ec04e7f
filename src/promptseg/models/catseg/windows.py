"""How CAT-Seg is shown a photo and how its answers become a map: its published modes, whole and slide (code, `cat_seg_model.py`).

Both start from the photo as detectron2's test loader resizes it. "slide" stretches it to 640x640, of which the network sees four
overlapping squares of 384 and, as a fifth, the whole; "whole" pads it to multiples of 32 and stretches that to one square, the padding
included. Scores are squashed before they are resized or averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import DenseLogits, Size, View

SHORT, LONG = 640, 2560  # sides of the resized photo
MULTIPLE = 32  # of the padded photo's sides in whole mode
PIXELS_AT_ONCE = 2**21  # of scores that are enlarged together


@dataclass(frozen=True, slots=True)
class Sliding:
    """Square windows of ``kernel`` pixels in the canvas to which a photo is stretched; ``overlap`` is the share that neighbours have."""

    kernel: int = 384
    overlap: float = 0.333
    canvas: Size = (640, 640)

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(y, x) of the windows, row by row."""
        step = int(self.kernel * (1 - self.overlap))
        rows, columns = (range(0, length - self.kernel + 1, step) for length in self.canvas)
        return [(y, x) for y in rows for x in columns]


PUBLISHED = Sliding()


@dataclass(frozen=True, slots=True)
class Look(View):
    """One of the published ways to see a photo: ``part`` numbers the sliding windows, the whole photo last; None is whole mode."""

    part: int | None = None


@dataclass(frozen=True, slots=True)
class Windows(DenseLogits):
    """Logits (B, N, W, h, w) of the windows that slide, the whole photo last."""


def resized(size: Size, short: int = SHORT, long: int = LONG) -> Size:
    """(H, W) whose shorter side becomes ``short`` unless the longer one then exceeded ``long`` (detectron2's `ResizeShortestEdge`)."""
    height, width = size
    scale = short / min(height, width)
    h, w = (short, scale * width) if height < width else (scale * height, short)
    if max(h, w) > long:
        scale = long / max(h, w)
        h, w = h * scale, w * scale
    return int(h + 0.5), int(w + 0.5)


def looks(size: Size, mode: str, multiple: int = MULTIPLE) -> tuple[Look, ...]:
    """The looks of "slide" or "whole" mode at a photo of ``size`` (H, W)."""
    box, content = (0, 0, size[1], size[0]), resized(size)
    if mode == "whole":
        return (Look(box, content, padded(content, multiple)),)
    return tuple(Look(box, content, content, part=part) for part in range(len(PUBLISHED.corners) + 1))


def padded(size: Size, multiple: int = MULTIPLE) -> Size:
    """The next multiples, as whole mode pads to them."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def shown(pixels: Tensor, part: int | None, side: int, sliding: Sliding = PUBLISHED) -> Tensor:
    """The resized photo (3, h, w), in whole mode padded -> what CLIP sees, (3, side, side)."""
    if part is None:
        return stretched(pixels, (side, side))
    if part == len(sliding.corners):
        seen = stretched(pixels, (sliding.kernel, sliding.kernel))
    else:
        y, x = sliding.corners[part]
        seen = stretched(pixels, sliding.canvas)[:, y : y + sliding.kernel, x : x + sliding.kernel]
    return stretched(seen, (side, side))


def stretched(pixels: Tensor, size: Size) -> Tensor:
    """(C, h, w) -> (C, *size), bilinear without antialiasing."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0]


def scores(prediction: DenseLogits, size: Size, sliding: Sliding = PUBLISHED) -> Iterator[NDArray[np.float32]]:
    """Probabilities (H, W) of one class after the other, of one photo of ``size``; a few maps of that size are held at a time."""
    logits, many = prediction.logits[0], isinstance(prediction, Windows)
    step = max(1, PIXELS_AT_ONCE // max(size[0] * size[1], sliding.canvas[0] * sliding.canvas[1]))
    for start in range(0, len(logits), step):
        part = logits[start : start + step]
        maps = slid(part, sliding) if many else part.sigmoid()
        yield from F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].numpy()


def slid(logits: Tensor, sliding: Sliding = PUBLISHED) -> Tensor:
    """Logits (N, W, h, w) of the windows, row by row, and of the whole -> probabilities (N, *canvas): the mean of both."""
    kernel = sliding.kernel
    squashed = F.interpolate(logits, (kernel, kernel), mode="bilinear", align_corners=False).sigmoid_()
    total, times = squashed.new_zeros(len(logits), *sliding.canvas), squashed.new_zeros(sliding.canvas)
    for index, (y, x) in enumerate(sliding.corners):
        total[:, y : y + kernel, x : x + kernel] += squashed[:, index]
        times[y : y + kernel, x : x + kernel] += 1
    whole = F.interpolate(squashed[:, -1:], sliding.canvas, mode="bilinear", align_corners=False)[:, 0]
    return total.div_(times).add_(whole).div_(2)


def gathered(predictions: Sequence[DenseLogits]) -> Windows:
    """Predictions (1, N, h, w) of one photo's windows -> one."""
    return Windows(torch.stack([prediction.logits for prediction in predictions], dim=2))

"""What becomes of a training photo: resized into limits, perhaps mirrored, and what is in it with it (mmdetection's 1x schedule)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ....contracts import Preprocess, Size, View
from ....data.samples import Region
from ....images import to_pixels
from ....nn.slides import resized
from ..photos import nearest
from .anchored import Truth

STRIDE = 32  # photos are padded to its multiples


def findable(regions: Sequence[Region], size: Size) -> list[tuple[Region, NDArray[np.float32]]]:
    """The regions that are to be found in a photo of ``size`` (H, W), with their boxes: no crowds, nothing below a pixel."""
    height, width = size
    found = []
    for region in regions:
        box = region.box or _around(region.mask)
        if region.crowd or box is None:
            continue
        x0, y0, x1, y1 = box
        if x1 - x0 >= 1 and y1 - y0 >= 1 and min(x1, width) > max(x0, 0) and min(y1, height) > max(y0, 0) and region.mask.any():
            found.append((region, np.array(box, np.float32)))
    return found


def shown(
    photo: NDArray[np.uint8], regions: Sequence[Region], classes: Sequence[str], look: Preprocess, limits: tuple[int, int], mirrored: bool
) -> tuple[torch.Tensor, Truth]:
    """uint8 (H, W, 3) and its regions -> pixels (3, h, w) with padding, and what is to be found in them, masks included.

    ``limits``: of the longer and the shorter side.
    """
    size = (photo.shape[0], photo.shape[1])
    content = resized(size, limits[1], limits[0])
    padded = (-(-content[0] // STRIDE) * STRIDE, -(-content[1] // STRIDE) * STRIDE)
    found = findable(regions, size)
    pixels = to_pixels(photo, View((0, 0, size[1], size[0]), content, padded), look)
    scale = np.array([content[1] / size[1], content[0] / size[0]] * 2, np.float32)
    boxes = torch.from_numpy(np.stack([box * scale for _, box in found]) if found else np.zeros((0, 4), np.float32))
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([content[1], content[0]] * 2))
    masks = [nearest(region.mask.astype(np.uint8), content).astype(np.bool_) for region, _ in found]
    shapes = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *content), np.bool_))
    if mirrored:
        width = content[1]
        pixels[..., :width] = pixels[..., :width].flip(-1)
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        shapes = shapes.flip(-1)
    labels = torch.tensor([classes.index(region.name) for region, _ in found], dtype=torch.int64)
    return pixels, Truth(boxes=boxes, labels=labels, size=content, padded=padded, masks=shapes)


def _around(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """The box around a mask, half-open; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)) if len(rows) else None

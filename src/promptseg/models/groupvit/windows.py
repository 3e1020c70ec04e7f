"""How GroupViT is shown a photo: its shorter side at 448 pixels, whole or in sliding windows (published evaluation code)."""

from __future__ import annotations

from itertools import product

from ...contracts import Options, Preprocess, Size, View
from ...errors import ConfigError
from .config import GroupVitOptions

LONGEST = 2048  # pixels of the longer side
CROP, STRIDE = 448, 224


def views(size: Size, options: Options, preprocess: Preprocess) -> tuple[View, ...]:
    """The windows of a photo of ``size`` (H, W), row by row; all of them parts of one resized photo.

    Raises:
        ConfigError: tiles or letterboxes, which this family does not know.
    """
    if options.tile is not None or options.fit == "letterbox":
        raise ConfigError("GroupViT slides windows over the resized photo: options=GroupVitOptions(mode='slide', crop=448, stride=224).")
    side = options.size or preprocess.size
    content = (side, side) if options.fit == "stretch" else resized(size, side)
    chosen = options if isinstance(options, GroupVitOptions) else GroupVitOptions()
    if chosen.mode == "whole":
        return over(size, content)
    return over(size, content, chosen.crop or CROP, chosen.stride or STRIDE)


def over(size: Size, content: Size, crop: int | None = None, stride: int = STRIDE) -> tuple[View, ...]:
    """Windows of ``crop`` pixels over a photo of ``size`` resized to ``content``; one view of all of it where one is enough."""
    box = (0, 0, size[1], size[0])
    if crop is None:
        return (View(box, content, content),)
    rows, columns = (spans(length, crop, stride) for length in content)
    if len(rows) == len(columns) == 1:
        return (View(box, content, content),)
    return tuple(View(box, content, (y1 - y0, x1 - x0), (x0, y0, x1, y1)) for (y0, y1), (x0, x1) in product(rows, columns))


def resized(size: Size, short: int, longest: int = LONGEST) -> Size:
    """(H, W) with the shorter side at ``short``, the longer at most ``longest``, rounded as OpenCV users do."""
    factor = min(longest / max(size), short / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Where windows start and end along an axis; the last ones move back into the photo."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, length) for index in range(count)]
    return [(max(end - crop, 0), end) for end in ends]

"""A photo resized once and shown in windows that slide over it, as mmsegmentation tests its models; GroupViT and DenseCLIP do."""

from __future__ import annotations

from itertools import product

from ..contracts import Size, View


def over(size: Size, content: Size, crop: int | None = None, stride: int = 1) -> tuple[View, ...]:
    """Windows of ``crop`` pixels over a photo of ``size`` resized to ``content``; one view of all of it where one is enough."""
    box = (0, 0, size[1], size[0])
    if crop is None:
        return (View(box, content, content),)
    rows, columns = (spans(length, crop, stride) for length in content)
    if len(rows) == len(columns) == 1:
        return (View(box, content, content),)
    return tuple(View(box, content, (y1 - y0, x1 - x0), (x0, y0, x1, y1)) for (y0, y1), (x0, x1) in product(rows, columns))


def resized(size: Size, short: int, longest: int) -> Size:
    """(H, W) with the shorter side at ``short``, the longer at most ``longest``, rounded as OpenCV users do."""
    factor = min(longest / max(size), short / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """Where windows start and end along an axis; the last ones move back into the photo."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, length) for index in range(count)]
    return [(max(end - crop, 0), end) for end in ends]

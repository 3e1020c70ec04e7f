"""How a photo is shown to a network when a family has no way of its own: whole (stretched, letterboxed, at its own aspect) or in tiles.

Tiles overlap and are blended by weights that are products of one function per axis and sum to one at every pixel. The sums are known before
the first tile is seen, so tiles are added one by one and nothing but the result is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from math import ceil

import torch
from torch import Tensor

from ..contracts import DenseLogits, Options, Preprocess, Size, View


def views(size: Size, options: Options, preprocess: Preprocess) -> tuple[View, ...]:
    """The windows of a photo of ``size`` (H, W), row by row: one, or the tiles that ``options.tile`` asks for."""
    fit, side = options.fit or preprocess.fit, options.size or preprocess.size
    if options.tile is None:
        rows, columns = [(0, size[0])], [(0, size[1])]
    else:
        rows, columns = (_tiles(length, options.tile, options.overlap) for length in size)
    shown = []
    for (y0, y1), (x0, x1) in product(rows, columns):
        content, shape = _fit((y1 - y0, x1 - x0), fit, side, preprocess.multiple)
        shown.append(View((x0, y0, x1, y1), content, shape))
    return tuple(shown)


def merge(predictions: Iterable[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
    """Predictions of `views`, each (1, N, h, w), in their order -> one that covers the photo of ``size`` (H, W) exactly.

    One view: its logits without the padding. Tiles: blended at the tiles' own resolution or at the photo's, whichever is lower; a prompt
    is as present as in the tile where it is most. ``predictions`` may be lazy: one tile is held at a time.
    """
    if len(views) == 1:
        (only,) = predictions
        return DenseLogits(_content(only.logits, views[0]), only.presence)
    mosaic: _Mosaic | None = None
    presence: Tensor | None = None
    for prediction, view in zip(predictions, views, strict=True):
        logits = _content(prediction.logits, view)
        mosaic = mosaic or _Mosaic(logits, views, view, size)
        mosaic.add(logits, view)
        if prediction.presence is not None:
            presence = prediction.presence if presence is None else torch.maximum(presence, prediction.presence)
    assert mosaic is not None
    return DenseLogits(mosaic.merged, presence)


class _Mosaic:
    """Tiles added up into one map; the first tile tells its size and type."""

    def __init__(self, logits: Tensor, views: Sequence[View], view: View, size: Size) -> None:
        x0, y0, x1, y1 = view.box
        height = min(size[0], max(1, round(size[0] * logits.shape[-2] / (y1 - y0))))
        width = min(size[1], max(1, round(size[1] * logits.shape[-1] / (x1 - x0))))
        self.merged = logits.new_zeros(*logits.shape[:2], height, width)
        self.rows = _Axis([(one.box[1], one.box[3]) for one in views], size[0], height)
        self.columns = _Axis([(one.box[0], one.box[2]) for one in views], size[1], width)

    def add(self, logits: Tensor, view: View) -> None:
        x0, y0, x1, y1 = view.box
        top, down = self.rows.place((y0, y1), logits.shape[-2])
        left, across = self.columns.place((x0, x1), logits.shape[-1])
        part = down.to(logits) @ logits @ across.to(logits).T
        self.merged[..., top : top + part.shape[-2], left : left + part.shape[-1]] += part


class _Axis:
    """One axis of the photo: ``length`` pixels, merged into ``cells`` cells, covered by spans (start, stop) of pixels."""

    def __init__(self, spans: Sequence[tuple[int, int]], length: int, cells: int) -> None:
        self.centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * (length / cells)  # of the cells, in pixels
        self.total = torch.stack([self._hat(span) for span in set(spans)]).sum(0)
        self.place = cache(self._place)  # a span comes back in every row or column of tiles

    def _place(self, span: tuple[int, int], samples: int) -> tuple[int, Tensor]:
        """A tile's span, seen in ``samples`` samples -> the first cell in it and the matrix (cells in it, samples) that brings them there.

        A row of the matrix samples bilinearly at its cell's centre, times the tile's share of that cell.
        """
        start, stop = span
        inside = torch.nonzero((self.centres >= start) & (self.centres < stop)).flatten()
        share = (self._hat(span) / self.total)[inside]
        position = ((self.centres[inside] - start) * (samples / (stop - start)) - 0.5).clamp(0, samples - 1)
        first = position.floor().clamp(max=max(samples - 2, 0)).long()
        fraction = position - first
        matrix = torch.zeros(len(inside), samples, dtype=torch.float64)
        matrix.scatter_add_(1, first[:, None], ((1 - fraction) * share)[:, None])
        matrix.scatter_add_(1, (first + 1).clamp(max=samples - 1)[:, None], (fraction * share)[:, None])
        return int(inside[0]) if len(inside) else 0, matrix

    def _hat(self, span: tuple[int, int]) -> Tensor:
        """Distance to the nearer end inside the span, a trace above 0 at the very end, and 0 outside."""
        start, stop = span
        distance = torch.minimum(self.centres - start, stop - self.centres)
        return torch.where((self.centres >= start) & (self.centres < stop), distance.clamp(min=1e-6), 0)


def _content(logits: Tensor, view: View) -> Tensor:
    """The part of the logits (..., h, w) that shows photo; what shows padding is cut off."""
    if view.content == view.shape:
        return logits
    h, w = (max(1, round(logits.shape[axis] * view.content[axis] / view.shape[axis])) for axis in (-2, -1))
    return logits[..., :h, :w]


def _fit(box: Size, fit: str, side: int, multiple: int) -> tuple[Size, Size]:
    """Content and shape (both (h, w)) of a window of (h, w) photo pixels."""
    square = _rounded(side, multiple)
    if fit == "stretch":
        return (square, square), (square, square)
    scale = square / max(box)
    if fit == "letterbox":
        return (max(1, round(box[0] * scale)), max(1, round(box[1] * scale))), (square, square)
    native = _rounded(box[0] * scale, multiple), _rounded(box[1] * scale, multiple)
    return native, native


def _rounded(length: float, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(1, int(length / multiple + 0.5)) * multiple


def _tiles(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """Evenly spaced spans of at most ``tile`` pixels that cover 0 .. length and share at least ``overlap`` of a tile with the next."""
    tile = min(tile, length)
    steps = ceil((length - tile) / max(1.0, tile * (1 - overlap)))
    starts = [round(step * (length - tile) / steps) if steps else 0 for step in range(steps + 1)]
    return [(start, start + tile) for start in starts]

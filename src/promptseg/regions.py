"""Geometry of boolean masks: connected parts, distances, growing, shrinking, filling. Pure functions on (H, W) bool arrays.

Everything is exact: parts by union-find over the rows' runs, distances Euclidean between pixel centres. Nothing is known beyond the photo's
border, so neither side of the mask is taken to go on there: shrinking does not eat from the border.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

__all__ = ["Parts", "checked_radius", "distance", "feather", "fill_holes", "grow", "parts", "shrink"]

BoolArray: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Connectivity: TypeAlias = Literal[4, 8]

MAX_RADIUS = 1000  # pixels; the work grows with the radius


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Connected parts of a mask: one entry per horizontal run, in reading order, and the part that it belongs to.

    ``row``, ``start``, ``end`` (R,) half-open columns; ``part`` (R,) 0..count-1, numbered by first appearance; ``areas`` (count,) pixels.
    """

    shape: tuple[int, int]
    row: Ints
    start: Ints
    end: Ints
    part: Ints
    areas: Ints

    def __len__(self) -> int:
        return len(self.areas)

    def select(self, wanted: BoolArray) -> BoolArray:
        """(H, W) bool of the parts for which ``wanted`` (count,) is True."""
        chosen = wanted[self.part]
        return _fill(self.shape, self.row[chosen], self.start[chosen], self.end[chosen])

    def crops(self, wanted: Iterable[int]) -> Iterator[tuple[BoolArray, tuple[int, int]]]:
        """For every wanted part its own small mask and the place (x, y) of that mask's upper left pixel."""
        order = np.argsort(self.part, kind="stable")
        bounds = np.searchsorted(self.part[order], np.arange(len(self) + 1))
        for part in wanted:
            runs = order[bounds[part] : bounds[part + 1]]
            top, left = int(self.row[runs[0]]), int(self.start[runs].min())
            shape = (int(self.row[runs[-1]]) - top + 1, int(self.end[runs].max()) - left)
            yield _fill(shape, self.row[runs] - top, self.start[runs] - left, self.end[runs] - left), (left, top)

    def part_of(self, row: Ints, column: Ints) -> Ints:
        """The parts of given mask pixels."""
        width = self.shape[1] + 1
        return self.part[np.searchsorted(self.row * width + self.start, row * width + column, side="right") - 1]


def parts(mask: BoolArray, connectivity: Connectivity = 8) -> Parts:
    """Connected parts of a mask; 8 counts pixels that touch at a corner as connected."""
    row, start, end = _runs(mask)
    touch = 1 if connectivity == 8 else 0
    width = mask.shape[1] + 2  # one key per (row, column) such that neighbouring rows do not overlap
    above = (row + 1) * width
    first = np.searchsorted(row * width + end, above + start - touch, side="right")
    beyond = np.searchsorted(row * width + start, above + end + touch, side="left")
    count = np.maximum(beyond - first, 0)
    upper = np.repeat(np.arange(len(row)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    _, part = np.unique(_roots(len(row), upper, lower), return_inverse=True)
    areas = np.bincount(part, weights=end - start).astype(np.int64)
    return Parts((mask.shape[0], mask.shape[1]), row, start, end, part.astype(np.int64), areas)


def fill_holes(mask: BoolArray) -> BoolArray:
    """The mask and all background that it encloses: background parts, side by side, that do not reach the photo's border."""
    outside = parts(~mask, connectivity=4)
    height, width = mask.shape
    at_border = (outside.row == 0) | (outside.row == height - 1) | (outside.start == 0) | (outside.end == width)
    open_parts = np.zeros(len(outside), dtype=np.bool_)
    open_parts[outside.part[at_border]] = True
    return ~outside.select(open_parts)


def grow(mask: BoolArray, px: float) -> BoolArray:
    """Pixels at most ``px`` from the mask: dilation with a disc."""
    return distance(mask, checked_radius(px)) <= px


def shrink(mask: BoolArray, px: float) -> BoolArray:
    """Mask pixels more than ``px`` from the background: erosion with a disc."""
    return distance(~mask, checked_radius(px)) > px


def feather(mask: BoolArray, px: float) -> NDArray[np.float32]:
    """Soft edges, (H, W) float32 in 0..1: a ramp from ``px`` outside the edge to ``px`` inside, exactly one half on it.

    The edge runs between pixels, half a pixel from their centres, so ``feather(mask, px) > 0.5`` is the mask again.
    """
    if checked_radius(px) == 0:
        return mask.astype(np.float32)
    reach = px + 1
    inside = distance(~mask, reach) - np.float32(0.5)
    outside = distance(mask, reach) - np.float32(0.5)
    return np.clip(0.5 + np.where(mask, inside, -outside) / np.float32(2 * px), 0, 1).astype(np.float32)


def distance(mask: BoolArray, limit: float) -> NDArray[np.float32]:
    """Euclidean distance of every pixel to the nearest mask pixel, (H, W) float32, 0 in the mask; infinite beyond ``limit`` pixels.

    Separable: distances within the columns, then along each row the smallest of dx^2 + dy^2 over |dx| <= limit.
    """
    height, width = mask.shape
    result = np.full((height, width), np.inf, dtype=np.float32)
    box = _reach_box(mask, limit)
    if box is None:
        return result
    view, column = result[box], _column_distance(mask[box])
    np.square(column, out=column)
    view[...] = column
    span = view.shape[1]
    for dx in range(1, min(int(limit), span - 1) + 1):
        shifted = np.float32(dx * dx)
        np.minimum(view[:, dx:], column[:, : span - dx] + shifted, out=view[:, dx:])
        np.minimum(view[:, : span - dx], column[:, dx:] + shifted, out=view[:, : span - dx])
    np.sqrt(view, out=view)
    view[view > limit] = np.inf
    return result


def _column_distance(mask: BoolArray) -> NDArray[np.float32]:
    """Distance within the column to the nearest mask pixel, infinite in columns without one."""
    rows = np.arange(mask.shape[0], dtype=np.float32)[:, None]
    above = np.maximum.accumulate(np.where(mask, rows, -np.inf), axis=0)
    below = np.minimum.accumulate(np.where(mask, rows, np.inf)[::-1], axis=0)[::-1]
    return np.minimum(rows - above, below - rows).astype(np.float32)


def _reach_box(mask: BoolArray, limit: float) -> tuple[slice, slice] | None:
    """The window that holds the mask and everything within ``limit`` of it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    margin = int(limit) + 1
    return slice(max(rows[0] - margin, 0), rows[-1] + margin + 1), slice(max(columns[0] - margin, 0), columns[-1] + margin + 1)


def checked_radius(px: float) -> float:
    """``px`` itself.

    Raises:
        ConfigError: it is negative, not a number or beyond a thousand pixels.
    """
    if not 0 <= px <= MAX_RADIUS:
        raise ConfigError(f"A distance to grow, shrink or feather by lies in 0..{MAX_RADIUS} pixels, not {px}.")
    return px


def _runs(mask: BoolArray) -> tuple[Ints, Ints, Ints]:
    """Maximal horizontal runs in reading order: row, first column, column after the last."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.bool_)
    padded[:, 1:-1] = mask
    row, column = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), width + 1)
    return row[::2], column[::2], column[1::2]


def _fill(shape: tuple[int, int], row: Ints, start: Ints, end: Ints) -> BoolArray:
    """The mask of given runs."""
    change = np.zeros((shape[0], shape[1] + 1), dtype=np.int8)  # +1 where a run starts, -1 where it ends
    change[row, start] = 1
    change[row, end] -= 1
    return np.cumsum(change[:, :-1], axis=1, dtype=np.int8).view(np.bool_)


def _roots(count: int, a: Ints, b: Ints) -> Ints:
    """Union-find over all edges at once: the smallest member of every node's set.

    Every root hooks onto the smallest root that it has an edge to, then all paths are halved until they are flat; the number of roots in a
    connected set at least halves per round (Shiloach and Vishkin 1982).
    """
    parent = np.arange(count)
    while True:
        root_a, root_b = parent[a], parent[b]
        apart = root_a != root_b
        if not apart.any():
            return parent
        a, b, root_a, root_b = a[apart], b[apart], root_a[apart], root_b[apart]
        np.minimum.at(parent, np.maximum(root_a, root_b), np.minimum(root_a, root_b))
        while not np.array_equal(parent, grandparent := parent[parent]):
            parent = grandparent

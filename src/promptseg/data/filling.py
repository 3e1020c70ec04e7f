"""Polygons to pixels, to the last pixel as the tools do it by which published masks are defined.

PhraseCut's are filled by scikit-image's `polygon2mask`: a pixel belongs to the mask when its centre, which has whole coordinates, lies in
the polygon or on its edge. COCO's and LVIS's are filled by COCO's own tools: pixels have their corners at whole coordinates, and outlines
are drawn five times as fine.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_coco", "fill_polygons"]

Points = NDArray[np.float64]
NEAR = 1e-6  # pixels: crossings this close to a pixel's centre are decided by the exact test
AT_VERTEX = 1e-12  # pixels, of the published test
FAR = 100_000  # pixels: coordinates of no photo
FINE = 5  # COCO draws outlines on a grid so many times as fine


def fill_polygons(polygons: Iterable[Points], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Union of polygons (K, 2) of (x, y) in pixels -> (H, W) bool. Self-crossing ones are filled by the even-odd rule."""
    mask = np.zeros(size, dtype=np.bool_)
    for polygon in polygons:
        if len(polygon):
            _fill(mask, np.asarray(polygon, dtype=np.float64))
    return mask


# --- COCO's rule ------------------------------------------------------------------------------------------------------------------------


def fill_coco(polygons: Iterable[Points], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Union of polygons (K, 2) of (x, y) in pixels -> (H, W) bool, as COCO's tools turn polygons into runs.

    Raises:
        ValueError: a coordinate is no number or absurdly far from the photo.
    """
    mask = np.zeros(size, dtype=np.bool_)
    for polygon in polygons:
        if not (np.abs(polygon) < FAR).all():
            raise ValueError(f"a coordinate is not a number within {FAR} pixels")
        column, row = _turns(_outline(np.asarray(polygon, dtype=np.float64)), size)
        turns = np.bincount(column * size[0] + row, minlength=mask.size + 1)[: mask.size]
        mask |= (np.cumsum(turns) & 1).astype(np.bool_).reshape(size[1], size[0]).T
    return mask


def _outline(polygon: Points) -> NDArray[np.int64]:
    """Every point of the fine grid along the edges, edge after edge, (P, 2) x, y: one step at a time along the longer extent."""
    start = np.trunc(FINE * polygon + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    extent = np.abs(end - start)
    along = (extent[:, 0] < extent[:, 1]).astype(np.int64)  # the axis of the longer extent: 0 x, 1 y
    edges = np.arange(len(start))
    turned = start[edges, along] > end[edges, along]  # an edge is computed in rising order and then read backwards
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    length = extent[edges, along]
    slope = (high - low)[edges, 1 - along] / np.maximum(length, 1)
    edge = np.repeat(edges, length + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(turned[edge], length[edge] - step, step)
    points = np.empty((len(edge), 2), dtype=np.int64)
    place = np.arange(len(edge))
    points[place, along[edge]] = low[edge, along[edge]] + step
    points[place, 1 - along[edge]] = np.trunc(low[edge, 1 - along[edge]] + slope[edge] * step + 0.5)
    return points


def _turns(outline: NDArray[np.int64], size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows from which on, down the column, a pixel is inside instead of outside or the other way round."""
    before, after = outline[:-1], outline[1:]
    crossing = before[:, 0] != after[:, 0]
    before, after = before[crossing], after[crossing]
    column = (np.minimum(before[:, 0], after[:, 0]) + 0.5) / FINE - 0.5
    row = np.ceil(np.clip((np.minimum(before[:, 1], after[:, 1]) + 0.5) / FINE - 0.5, 0, size[0]))
    whole = (column == np.floor(column)) & (column >= 0) & (column <= size[1] - 1)
    return column[whole].astype(np.int64), row[whole].astype(np.int64)


# --- scikit-image's rule ----------------------------------------------------------------------------------------------------------------


def _fill(mask: NDArray[np.bool_], polygon: Points) -> None:
    """Row by row: between the crossings of a row with the edges; both readings of an edge that starts on the row are inside."""
    height, width = mask.shape
    first, last = max(0, int(np.floor(polygon[:, 1].min()))), min(height - 1, int(np.ceil(polygon[:, 1].max())))
    if first > last:
        return
    rows = np.arange(first, last + 1)
    inside = np.zeros((len(rows), width), dtype=np.bool_)
    doubtful: list[NDArray[np.int64]] = []
    x, y = polygon[:, 0], polygon[:, 1][None] - rows[:, None]
    x_before, y_before = np.roll(x, 1), np.roll(y, 1, axis=1)
    for upper in (True, False):
        crosses = (y > 0) != (y_before > 0) if upper else (y < 0) != (y_before < 0)
        row, edge = np.nonzero(crosses)
        slope = (x[edge] - x_before[edge]) / (y[row, edge] - y_before[row, edge])
        place = x[edge] - y[row, edge] * slope
        inside |= _odd(row, place, len(rows), width, upper)
        nearest = np.rint(place)
        close = (np.abs(place - nearest) < NEAR) & (nearest >= 0) & (nearest < width)
        doubtful.append(np.stack([row[close] + first, nearest[close].astype(np.int64)], axis=1))
    corners = np.rint(polygon[:, ::-1]).astype(np.int64)
    corners = corners[((corners >= (first, 0)) & (corners < (last + 1, width))).all(axis=1)]
    row, column = np.unique(np.concatenate([*doubtful, corners]), axis=0).T
    inside[row - first, column] = _contains(polygon, column, row)
    mask[first : last + 1] |= inside


def _odd(row: NDArray[np.int64], place: Points, rows: int, width: int, right: bool) -> NDArray[np.bool_]:
    """Pixels with an odd number of crossings to their right, or to their left; (rows, width) bool."""
    column = np.clip(np.ceil(place) if right else np.floor(place) + 1, 0, width).astype(np.int64)
    count = np.zeros((rows, width + 1), dtype=np.int64)
    np.add.at(count, (row, column), 1)
    passed = np.cumsum(count, axis=1)[:, :width]
    total = count.sum(axis=1, keepdims=True)
    return ((total - passed if right else passed) & 1).astype(np.bool_)


def _contains(polygon: Points, column: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The published test of single points: inside, on an edge or at a corner (O'Rourke, Computational Geometry in C, 7.4)."""
    x1, y1 = polygon[:, 0][None] - column[:, None], polygon[:, 1][None] - row[:, None]
    x0, y0 = np.roll(x1, 1, axis=1), np.roll(y1, 1, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (x1 * y0 - x0 * y1) / (y0 - y1)
    right = (((y1 > 0) != (y0 > 0)) & (place > 0)).sum(axis=1) % 2 == 1
    left = (((y1 < 0) != (y0 < 0)) & (place < 0)).sum(axis=1) % 2 == 1
    corner = ((np.abs(x1) < AT_VERTEX) & (np.abs(y1) < AT_VERTEX)).any(axis=1)
    result: NDArray[np.bool_] = right | left | corner
    return result

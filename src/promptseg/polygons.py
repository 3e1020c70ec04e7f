"""Masks as polygons, traced along the pixels' edges: nothing is rounded, and filling the polygons gives the mask back exactly."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .regions import parts

__all__ = ["Polygon", "Ring", "bridge", "ring_area", "trace"]

Ints: TypeAlias = NDArray[np.int64]
Ring: TypeAlias = Ints  # (K, 2) corners (x, y) in pixels, the first one not repeated at the end
Polygon: TypeAlias = list[Ring]  # the outer ring, then its holes

# The four pixels around a lattice point make a code: upper left 1, upper right 2, lower left 4, lower right 8. One set pixel is an outward
# corner, three an inward one; 6 and 9 are two outward corners at one point, given here in the order in which they lie in their row.
TWO_CORNERS = {6: (4, 2), 9: (1, 8)}
IS_CORNER = np.isin(np.arange(16), (1, 2, 4, 8, 7, 11, 13, 14, 6, 9))
# Edges are walked with the mask on the right hand. At a corner one edge is horizontal and one vertical; which of them is walked next:
LEAVES_ACROSS = np.isin(np.arange(16), (1, 8, 11, 13))
GOES_DOWN = np.isin(np.arange(16), (4, 8, 7, 11))  # the vertical edge lies below the corner


def trace(mask: NDArray[np.bool_]) -> list[Polygon]:
    """(H, W) bool -> polygons with holes, every ring simple, corners only.

    Parts that touch at a corner are polygons of their own and holes that touch at a corner are holes of their own, as the Simple Features
    standard wants. Outer rings have a positive `ring_area` in (x, y) numbers, holes a negative one.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    left, top = int(columns[0]), int(rows[0])
    inner = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    x, y, kind = _corners(inner)
    loops = _loops(x, y, _followers(x, y, kind))
    # one set pixel beside each loop tells whose boundary it is
    first = np.array([loop[0] for loop in loops])
    owner = parts(inner, connectivity=4).part_of(y[first] + ((kind[first] & 3) == 0), x[first] + ((kind[first] & 5) == 0))
    corner = np.stack([x + left, y + top], axis=1)
    return _polygons([corner[loop] for loop in loops], owner)


def ring_area(ring: NDArray[np.float64] | Ring) -> float:
    """Signed area of a ring, the shoelace formula: positive when counter-clockwise in axes whose y points up."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def bridge(polygon: Polygon) -> Ring:
    """A polygon with holes as one ring: each hole joined to the ring so far by a seam of no width, walked there and back.

    For formats that know no holes; filling the ring leaves the holes open.
    """
    ring = polygon[0]
    for hole in polygon[1:]:
        near = int(np.argmin(np.abs(ring - hole[0]).sum(axis=1)))
        ring = np.concatenate([ring[: near + 1], hole, hole[:1], ring[near:]])
    return ring


def _corners(padded: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """All corners in reading order: lattice column x, lattice row y (0 between the first two pixels) and code."""
    bits = padded.view(np.uint8)
    code = bits[:-1, :-1] | bits[:-1, 1:] << 1 | bits[1:, :-1] << 2 | bits[1:, 1:] << 3
    point = np.flatnonzero(IS_CORNER[code])
    kind = code.ravel()[point].astype(np.int64)
    double = np.isin(kind, list(TWO_CORNERS))
    second = np.cumsum(1 + double)[double] - 1
    point, kind = np.repeat(point, 1 + double), np.repeat(kind, 1 + double)
    for both, (one, other) in TWO_CORNERS.items():
        here = second[kind[second] == both]
        kind[here - 1], kind[here] = one, other
    y, x = np.divmod(point, code.shape[1])
    return x, y, kind


def _followers(x: Ints, y: Ints, kind: Ints) -> Ints:
    """The corner that comes after each: the other end of the edge along which it is left."""
    index = np.arange(len(x))
    across = index ^ 1  # in a row corners pair up in order, the first with the second, the third with the fourth
    down = np.lexsort((GOES_DOWN[kind], y, x))  # the same within a column
    vertical = np.empty_like(index)
    vertical[down] = down[index ^ 1]
    return np.where(LEAVES_ACROSS[kind], across, vertical)


def _loops(x: Ints, y: Ints, follower: Ints) -> list[list[int]]:
    """Follow the corners round; a loop that meets its own point again is cut there into two."""
    after = follower.tolist()
    same = (np.diff(x) == 0) & (np.diff(y) == 0)  # two corners at one point are neighbours in reading order
    twin = np.full(len(x), -1)
    twin[:-1][same], twin[1:][same] = np.flatnonzero(same) + 1, np.flatnonzero(same)
    twins, place, loops = twin.tolist(), [-1] * len(after), []  # place: a corner's position on the path, -1 when not on it
    seen = bytearray(len(after))
    for start in range(len(after)):
        path: list[int] = []
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            if twins[corner] >= 0:
                if (begin := place[twins[corner]]) >= 0:
                    loops.append(path[begin:])
                    for gone in path[begin:]:
                        place[gone] = -1
                    del path[begin:]
                place[corner] = len(path)
            path.append(corner)
            corner = after[corner]
        for gone in path:
            place[gone] = -1
        if path:
            loops.append(path)
    return loops


def _polygons(rings: list[Ring], owner: Ints) -> list[Polygon]:
    """Rings of one owner become one polygon, the outer ring first."""
    polygons: dict[int, Polygon] = {}
    for ring, part in zip(rings, owner.tolist(), strict=True):
        polygon = polygons.setdefault(part, [])
        polygon.insert(0 if ring_area(ring) > 0 else len(polygon), ring)
    return [polygons[part] for part in sorted(polygons)]

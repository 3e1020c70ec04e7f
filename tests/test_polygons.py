"""Polygons fill to the mask they were traced from, and are what GIS programs call valid."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from numpy.typing import NDArray

from masks_of import masks
from promptseg.polygons import bridge, ring_area, trace

DIAGONAL = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=bool)
RING_PINCHED = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]], dtype=bool)


def fill(ring: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Even-odd filling at pixel centres."""
    rows, columns = np.indices(shape) + 0.5
    inside = np.zeros(shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y0 != y1:
            crossing = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            inside ^= (rows > min(y0, y1)) & (rows < max(y0, y1)) & (columns < crossing)
    return inside


@settings(deadline=None, max_examples=300)
@given(masks())
@example(DIAGONAL)
@example(~DIAGONAL)
@example(RING_PINCHED)
@example(~RING_PINCHED)
def test_polygons_fill_to_the_mask(mask: NDArray[np.bool_]) -> None:
    total = np.zeros(mask.shape, dtype=int)
    bridged = np.zeros(mask.shape, dtype=int)
    for polygon in trace(mask):
        for index, ring in enumerate(polygon):
            total += fill(ring, mask.shape).astype(int) * (1 if index == 0 else -1)
            assert (ring_area(ring) > 0) == (index == 0)
            assert len({tuple(point) for point in ring.tolist()}) == len(ring), "a ring meets itself"
            step = np.roll(ring, -1, axis=0) - ring
            assert ((step == 0).sum(axis=1) == 1).all(), "an edge is neither horizontal nor vertical"
            assert ((step[:, 0] == 0) != (np.roll(step, 1, axis=0)[:, 0] == 0)).all(), "a corner does not turn"
        bridged += fill(bridge(polygon), mask.shape)
    assert np.array_equal(total, mask.astype(int))
    assert np.array_equal(bridged, mask.astype(int))


def test_what_touches_at_a_corner_stays_apart() -> None:
    assert len(trace(DIAGONAL)) == 5
    assert [len(polygon) for polygon in trace(np.pad(~DIAGONAL, 1, constant_values=True))] == [6]  # five holes

"""Geometry of masks against brute force and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from masks_of import masks
from promptseg import regions
from promptseg.errors import ConfigError

BoolArray = NDArray[np.bool_]


def brute_distance(mask: BoolArray) -> NDArray[np.float64]:
    """Distance to the nearest mask pixel, by looking at all of them."""
    ys, xs = np.nonzero(mask)
    rows, columns = np.indices(mask.shape)
    return np.sqrt(((rows[..., None] - ys) ** 2 + (columns[..., None] - xs) ** 2).min(axis=-1, initial=10**9))


@settings(deadline=None, max_examples=200)
@given(masks(), st.sampled_from([4, 8]))
def test_parts_are_opencvs(mask: BoolArray, connectivity: int) -> None:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    found = regions.parts(mask, connectivity)  # type: ignore[arg-type]
    assert len(found) == count - 1
    selections = [found.select(np.arange(len(found)) == part) for part in range(len(found))]
    for part, selection in enumerate(selections):
        assert len(np.unique(labels[selection])) == 1
        assert selection.sum() == found.areas[part] == (labels == labels[selection][0]).sum()
    for (crop, (x, y)), selection in zip(found.crops(range(len(found))), selections, strict=True):
        assert np.array_equal(selection[y : y + crop.shape[0], x : x + crop.shape[1]], crop)
        assert crop.sum() == selection.sum()


def test_parts_of_a_spiral_are_one() -> None:
    """A long winding path needs many rounds of hooking."""
    mask = np.zeros((41, 41), dtype=bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert len(regions.parts(mask)) == 1
    assert len(regions.parts(~mask)) == 20


@settings(deadline=None, max_examples=100)
@given(masks(), st.sampled_from([0, 1, 1.5, 2, 3.7, 30]))
def test_distance_growing_shrinking(mask: BoolArray, px: float) -> None:
    far, inside = brute_distance(mask), brute_distance(~mask)
    found = regions.distance(mask, px)
    np.testing.assert_allclose(found[far <= px], far[far <= px], rtol=1e-6)
    assert np.isinf(found[far > px]).all()
    assert np.array_equal(regions.grow(mask, px), far <= px)
    assert np.array_equal(regions.shrink(mask, px), mask & (inside > px))


@settings(deadline=None, max_examples=100)
@given(masks(), st.sampled_from([0, 0.5, 2, 5]))
def test_feathering_keeps_the_edge(mask: BoolArray, px: float) -> None:
    soft = regions.feather(mask, px)
    assert soft.dtype == np.float32
    assert np.array_equal(soft > 0.5, mask)
    assert (soft[mask & (brute_distance(~mask) > px + 0.5)] == 1).all()
    assert (soft[~mask & (brute_distance(mask) > px + 0.5)] == 0).all()


@settings(deadline=None, max_examples=100)
@given(masks())
def test_filling_leaves_only_what_reaches_the_border(mask: BoolArray) -> None:
    filled = regions.fill_holes(mask)
    framed = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(framed, connectivity=4)
    assert np.array_equal(~filled, (labels == labels[0, 0])[1:-1, 1:-1])


@pytest.mark.parametrize("px", [-1, float("nan"), 1e6])
def test_impossible_distances(px: float) -> None:
    for edit in (regions.grow, regions.shrink, regions.feather):
        with pytest.raises(ConfigError, match=r"0\.\.1000 pixels"):
            edit(np.ones((2, 2), dtype=bool), px)

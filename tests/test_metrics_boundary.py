"""Boundary IoU against erosion by OpenCV, as the paper's code does it."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.errors import DataError
from promptseg.metrics import BoundaryIoU, SemanticBoundaryIoU, band, boundary_iou, contour_accuracy
from promptseg.metrics.boundary import band_width


def shapes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) masks of blurred noise, of any size."""
    rng = np.random.default_rng(seed)
    noise = rng.random((*rng.integers(1, 60, 2), 2)).astype(np.float32)
    smooth = cv2.blur(noise, (9, 9)).reshape(noise.shape) > 0.5
    return smooth[..., 0], smooth[..., 1]


def opencv_band(mask: np.ndarray, width: int) -> np.ndarray:
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return (mask - eroded[1:-1, 1:-1]) > 0


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_bands_are_those_of_repeated_erosion(seed: int, width: int) -> None:
    mask, _ = shapes(seed)
    np.testing.assert_array_equal(band(mask, width), opencv_band(mask, width))


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_boundary_iou_is_the_overlap_of_bands(seed: int) -> None:
    mask, target = shapes(seed)
    width = max(1, round(0.05 * math.hypot(*mask.shape)))
    ours, truth = opencv_band(mask, width), opencv_band(target, width)
    expected = (ours & truth).sum() / (ours | truth).sum() if (ours | truth).any() else math.nan
    assert boundary_iou(mask, target, share=0.05) == pytest.approx(expected, nan_ok=True)


def test_a_band_wide_enough_is_the_mask() -> None:
    mask, _ = shapes(3)
    assert band_width((30, 40), 0.1) == 5
    assert band_width((3, 4)) == 1  # at least one pixel
    np.testing.assert_array_equal(band(mask, 100), mask)


def test_unknown_pixels_are_taken_out_of_bands_not_of_masks() -> None:
    mask, known = np.ones((20, 20), bool), np.ones((20, 20), bool)
    known[8:12, 8:12] = False  # inside: an outline around it would be wrong
    hollow = mask.copy()
    hollow[9:11, 9:11] = False
    assert boundary_iou(mask, hollow, known, share=0.036) == 1.0
    assert boundary_iou(mask, hollow, share=0.036) < 1.0


def test_pairs_are_averaged_and_empty_ones_follow_the_rule() -> None:
    mask, empty = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    assert BoundaryIoU().update("a", mask, mask).update("a", empty, empty).compute().mean == 1.0
    assert BoundaryIoU(absent="zero").update("a", mask, mask).update("a", empty, empty).compute().mean == 0.5
    assert BoundaryIoU().update("a", mask, empty).compute().mean == 0.0


def test_label_maps_are_read_as_detectron2_reads_them() -> None:
    """A map minus its least neighbour; ignored labels are the class after the last. By hand, one pixel wide."""
    target = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 255]])
    prediction = np.where(target == 255, 1, target)
    metric = SemanticBoundaryIoU(("a", "b")).update(prediction, target)
    np.testing.assert_array_equal(metric.matrix, [[4, 0, 0], [0, 11, 1], [0, 0, 0]])


@pytest.mark.parametrize("measure", [boundary_iou, contour_accuracy])
def test_outlines_are_those_of_single_masks(measure: Callable[..., float]) -> None:
    with pytest.raises(DataError, match=r"has the shape \(1, 4, 5\); give one photo and one mask at a time"):
        measure(np.ones((1, 4, 5), bool), np.ones((1, 4, 5), bool))

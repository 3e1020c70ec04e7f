"""J and F of objects in video; the discs against OpenCV, the statistics by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.metrics import VideoJF, contour_accuracy, iou
from promptseg.metrics.video import contours, statistic


def blob(seed: int, size: tuple[int, int] = (50, 70)) -> np.ndarray:
    noise = np.random.default_rng(seed).random(size).astype(np.float32)
    return cv2.blur(noise, (11, 11)) > 0.5


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixel by pixel: does it differ from its right, lower or lower right neighbour?"""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            inside = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            result[y, x] = any(mask[y, x] != mask[b, a] for b, a in inside if b < height and a < width)
    return result


def f_measure(mask: np.ndarray, target: np.ndarray, radius: int) -> float:
    rows, columns = np.indices((2 * radius + 1,) * 2) - radius
    disc = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    ours, truth = outline(mask), outline(target)
    near_truth, near_ours = (cv2.dilate(edge.astype(np.uint8), disc) > 0 for edge in (truth, ours))
    precision, recall = (ours & near_truth).sum() / ours.sum(), (truth & near_ours).sum() / truth.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([0.005, 0.008, 0.05, 0.2]))
def test_contours_match_within_discs(seed: int, tolerance: float) -> None:
    mask, target = blob(seed), blob(seed + 1)
    np.testing.assert_array_equal(contours(mask), outline(mask))
    radius = math.ceil(tolerance * math.hypot(*mask.shape))
    assert contour_accuracy(mask, target, tolerance=tolerance) == pytest.approx(f_measure(mask, target, radius))


def test_empty_masks() -> None:
    mask, empty = blob(0), np.zeros((50, 70), bool)
    assert contour_accuracy(mask, empty) == contour_accuracy(empty, mask) == 0.0
    assert math.isnan(contour_accuracy(empty, empty))
    assert contour_accuracy(mask, mask) == 1.0
    assert math.isnan(contour_accuracy(mask, mask, empty))


@pytest.mark.parametrize(("rule", "mean"), [("one", 1.0), ("zero", 0.5), ("skip", 1.0)])
def test_rules_for_frames_without_the_object(rule: str, mean: float) -> None:
    mask, empty = blob(0), np.zeros((50, 70), bool)
    result = VideoJF(absent=rule).update("s", 1, 0, mask, mask).update("s", 1, 1, empty, empty).compute()  # type: ignore[arg-type]
    assert (result.j.mean, result.f.mean, result.absent) == (mean, mean, rule)


def test_objects_weigh_the_same_however_long_they_are() -> None:
    mask, other = blob(1), blob(2)
    metric = VideoJF()
    for frame in range(5):
        metric.update("long", 1, frame, mask, mask)
    metric.update("short", 1, 0, mask, other).update("short", 2, 0, other, other)
    result = metric.compute()
    assert result.j.mean == pytest.approx((1 + iou(mask, other) + 1) / 3)
    assert result.j_and_f == pytest.approx((result.j.mean + result.f.mean) / 2)
    assert list(result.per_object) == [("long", 1), ("short", 1), ("short", 2)]
    assert result.per_object["short", 1][1].mean == pytest.approx(contour_accuracy(mask, other))


def test_first_and_last_frame_can_be_left_out_and_order_does_not_matter() -> None:
    mask, other = blob(1), blob(2)
    metric = VideoJF(skip_ends=True)
    for frame in (3, 0, 2, 1):
        metric.update("s", 1, frame, mask, mask if frame in (0, 3) else other)
    result = metric.compute()
    assert metric.per_frame("s", 1).shape == (2, 2)
    assert result.j.mean == pytest.approx(iou(mask, other))
    assert result.skip_ends


def test_recall_and_decay() -> None:
    # quarters of 9 frames, which share their ends: 0-2, 2-4, 4-6, 6-8
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    found = statistic(values)
    assert found.mean == pytest.approx(0.5)
    assert found.recall == 4 / 9  # more than a half, not as much
    assert found.decay == pytest.approx(0.8 - 0.2)


def test_a_video_without_frames_is_not_a_number() -> None:
    result = VideoJF().compute()
    assert math.isnan(result.j_and_f)
    short = VideoJF(skip_ends=True).update("s", 1, 0, blob(0), blob(0)).compute()
    assert math.isnan(short.j.mean)


def test_pixels_that_are_not_known_are_in_no_mask() -> None:
    known = np.ones((50, 70), bool)
    known[:, 35:] = False
    mask = blob(3)
    spoiled = np.where(known, mask, ~mask)
    assert VideoJF().update("s", 1, 0, spoiled, mask, known).compute().j_and_f == 1.0

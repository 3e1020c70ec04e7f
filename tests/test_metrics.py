"""The metric of the whole equals that of its shuffled parts, merged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.metrics import BinaryIoU, MeanIoU, Presence


def _cases(seed: int, count: int) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(f"class {rng.integers(3)}", *(rng.random((3, 5, 6)) > rng.random((3, 1, 1)))) for _ in range(count)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 12))
def test_parts_merge_to_the_whole(seed: int, count: int, cut: int) -> None:
    cases = _cases(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    for kind in (MeanIoU, BinaryIoU):
        whole, first, second = kind(), kind(), kind()
        for case in cases:
            whole.update(*case)
        for index in order:
            (first if index < cut else second).update(*cases[index])
        merged = second.merge(first)
        assert merged.compute() == pytest.approx(whole.compute(), abs=1e-12, nan_ok=True)
        assert merged.per_class() == pytest.approx(whole.per_class())


def test_intersections_add_up_before_they_are_divided() -> None:
    full, half = np.ones((2, 2), bool), np.array([[True, True], [False, False]])
    metric = MeanIoU().update("a", full, full).update("a", full, half).update("b", ~full, full)
    assert metric.per_class() == {"a": 6 / 8, "b": 0.0}
    assert metric.compute() == 3 / 8
    pairs = BinaryIoU().update("a", full, full).update("a", full, half).update("a", ~full, ~full)
    assert pairs.compute() == pytest.approx((1 + 0.5 + 1) / 3)


def test_unknown_pixels_do_not_count() -> None:
    prediction, target = np.array([[True, True]]), np.array([[True, False]])
    assert MeanIoU().update("a", prediction, target, np.array([[True, False]])).compute() == 1.0


def test_nothing_measured_is_not_a_number() -> None:
    assert math.isnan(MeanIoU().compute())
    assert math.isnan(BinaryIoU().compute())
    assert math.isnan(Presence().false_masks())
    assert Presence().matthews() == 0


def test_presence_counts_false_masks_and_correlates() -> None:
    metric = Presence()
    for truth, answer, share in [(True, True, 0.3), (False, False, 0.0), (False, False, 0.005), (False, True, 0.2)]:
        metric.update(truth, answer, share)
    assert metric.false_masks() == pytest.approx(1 / 3)
    assert metric.matthews() == pytest.approx((1 * 2 - 1 * 0) / math.sqrt(2 * 1 * 3 * 2))
    doubled = Presence().merge(metric).merge(metric)
    assert doubled.matthews() == pytest.approx(metric.matthews())
    assert doubled.false_masks() == metric.false_masks()

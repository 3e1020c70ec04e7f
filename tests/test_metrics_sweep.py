"""Threshold sweeps: every threshold against a plain count, memory that does not grow with pixels, and the integral against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson as scipy_simpson

from promptseg.errors import ConfigError, DataError
from promptseg.metrics import CLIPSEG_THRESHOLDS, MaskIoU, ThresholdSweep
from promptseg.metrics.sweep import simpson

THRESHOLDS = (0.1, 0.25, 0.5, 0.75)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([np.float32, np.float64]))
def test_each_threshold_gives_what_masks_at_that_threshold_give(seed: int, kind: type) -> None:
    rng = np.random.default_rng(seed)
    sweep = ThresholdSweep(THRESHOLDS, smoothing=0, absent="skip")
    masks = [MaskIoU() for _ in THRESHOLDS]
    for _ in range(3):
        scores = rng.choice([0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.75, 1], (4, 5)).astype(kind)  # many exactly on a threshold
        name, target, known = f"class {rng.integers(2)}", rng.random((4, 5)) > 0.5, rng.random((4, 5)) > 0.2
        sweep.update(name, scores, target, known)
        for mask, threshold in zip(masks, THRESHOLDS, strict=True):
            mask.update(name, scores > kind(threshold), target, known)
    result = sweep.compute()
    for mask, threshold in zip(masks, THRESHOLDS, strict=True):
        point, wanted = result.at(threshold), mask.compute()
        np.testing.assert_allclose([point.mean, point.foreground, point.binary], [wanted.mean, wanted.foreground, wanted.binary])
    np.testing.assert_array_equal(sweep.confusion().sum((0, 2)).sum(), len(THRESHOLDS) * sum(c.sum() for c in sweep.counts.values()))


def test_smoothing_keeps_a_perfect_answer_below_one() -> None:
    target = np.array([[True, True, False, False]])
    result = ThresholdSweep().update("a", target.astype(np.float32), target).compute()
    assert result.at(0.5).foreground == 2 / 3
    assert result.average_precision == 0  # a single distinct point spans nothing
    plain = ThresholdSweep(smoothing=0).update("a", target.astype(np.float32), target).compute()
    assert plain.at(0.5).binary == 1.0


@pytest.mark.parametrize(("rule", "mean"), [("zero", 0.5), ("one", 1.0), ("skip", 1.0), ("labelled", 1.0)])
def test_rules_for_classes_that_are_nowhere(rule: str, mean: float) -> None:
    sweep = ThresholdSweep((0.5,), smoothing=0, absent=rule)  # type: ignore[arg-type]
    sweep.update("cat", np.array([0.9]), np.array([True])).update("nowhere", np.array([0.1]), np.array([False]))
    result = sweep.compute()
    assert (result.at(0.5).mean, result.at(0.5).foreground, result.absent) == (mean, 1.0, rule)


def test_without_background_binary_is_the_foreground() -> None:
    everything = np.ones(3, bool)
    assert ThresholdSweep((0.5,), smoothing=0).update("a", everything * 0.9, everything).compute().at(0.5).binary == 1.0
    assert MaskIoU().update("a", everything, everything).compute().binary == 1.0


def test_best_is_the_lowest_of_equal_thresholds() -> None:
    scores, target = np.array([0.3, 0.6, 0.9]), np.array([False, True, True])
    result = ThresholdSweep(THRESHOLDS).update("a", scores, target).compute()
    assert result.best("foreground").threshold == 0.5
    assert result.best("mean") == result.at(0.5)
    with pytest.raises(ConfigError, match="figure='median' is not known"):
        result.best("median")  # type: ignore[arg-type]


def test_thresholds_are_told_when_one_is_missing() -> None:
    result = ThresholdSweep().compute()
    assert len(CLIPSEG_THRESHOLDS) == len(result.thresholds) == 49
    with pytest.raises(ConfigError, match=r"0.31 is none of the 49 thresholds; the nearest is 0.32|the nearest is 0.3\."):
        result.at(0.31)
    assert math.isnan(result.at(0.5).mean)
    assert math.isnan(result.at(0.5).foreground)
    assert result.average_precision == 0
    assert result.best().threshold == 0.02


def test_memory_depends_on_names_not_on_pixels() -> None:
    sweep = ThresholdSweep()
    for _ in range(3):
        sweep.update("a", np.random.default_rng(0).random((300, 400)), np.ones((300, 400), bool))
    assert sum(counts.size for counts in sweep.counts.values()) == 2 * 50


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.5), (0.5, 0.1)])
def test_thresholds_must_rise(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="do not rise"):
        ThresholdSweep(thresholds)


def test_scores_must_be_numbers_of_the_masks_shape() -> None:
    with pytest.raises(DataError, match="'a' hold NaN"):
        ThresholdSweep().update("a", np.array([math.nan]), np.array([True]))
    with pytest.raises(DataError, match=r"scores \(1,\), target \(2,\)"):
        ThresholdSweep().update("a", np.array([0.5]), np.array([True, False]))


points = st.lists(st.floats(0, 1, allow_subnormal=False).map(lambda x: round(x, 3)), min_size=1, max_size=12)


@given(points, st.integers(0, 1000))
def test_the_integral_is_scipys_also_where_steps_are_zero(xs: list[float], seed: int) -> None:
    x = np.sort(np.array(xs))
    y = np.random.default_rng(seed).random(len(x))
    with np.errstate(all="ignore"):
        assert simpson(x, y) == pytest.approx(float(scipy_simpson(y, x=x)), rel=1e-9, abs=1e-12)

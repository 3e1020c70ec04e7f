"""Label maps: every figure against torchmetrics and scikit-learn, ignored labels, nothing predicted, absent classes, unseen groups."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from promptseg.errors import ConfigError, DataError
from promptseg.metrics import SemanticIoU, ZeroShotIoU

NAMES = ("a", "b", "c", "d")
IGNORE = 255


def maps(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Two (3, 6, 8) stacks of label maps that agree on most pixels; some labels ignored."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, rng.integers(1, classes + 1), (3, 6, 8))
    prediction = np.where(rng.random(target.shape) < 0.6, target, rng.integers(0, classes, target.shape))
    return prediction, np.where(rng.random(target.shape) < 0.15, IGNORE, target)


def measured(metric: Any, prediction: np.ndarray, target: np.ndarray) -> Any:
    for ours, truth in zip(prediction, target, strict=True):
        metric.update(ours, truth)
    return metric.compute()


@given(st.integers(0, 10_000))
def test_figures_agree_with_torchmetrics_and_scikit_learn(seed: int) -> None:
    prediction, target = maps(seed)
    metric = SemanticIoU(NAMES)
    result = measured(metric, prediction, target)
    known = target != IGNORE
    p, t = prediction[known], target[known]
    np.testing.assert_array_equal(metric.matrix[:4, :4], confusion_matrix(t, p, labels=range(4)).T)
    np.testing.assert_array_equal(metric.matrix[:, 4], np.bincount(prediction[~known], minlength=5))
    theirs = torch.tensor(prediction), torch.tensor(target)
    options: dict[str, Any] = {"num_classes": 4, "ignore_index": IGNORE}
    present = np.isin(np.arange(4), np.concatenate([p, t]))
    per_class = multiclass_jaccard_index(*theirs, average=None, **options).numpy()
    np.testing.assert_allclose(np.array(list(result.iou.values()))[present], per_class[present], rtol=1e-6)
    assert result.mean_iou == pytest.approx(float(multiclass_jaccard_index(*theirs, **options)), rel=1e-6)
    assert result.pixel_accuracy == pytest.approx(float(multiclass_accuracy(*theirs, average="micro", **options)), rel=1e-6)
    weighted = float(multiclass_jaccard_index(*theirs, average="weighted", **options))
    assert result.frequency_weighted_iou == pytest.approx(weighted, rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes that are predicted but never labelled
        assert result.mean_accuracy == pytest.approx(balanced_accuracy_score(t, p))
    dice = f1_score(t, p, labels=np.flatnonzero(present), average=None)
    np.testing.assert_allclose(np.array(list(result.dice.values()))[present], dice)


@given(st.integers(0, 10_000))
def test_the_mean_over_images_is_that_of_single_images(seed: int) -> None:
    prediction, target = maps(seed)
    singles = [measured(SemanticIoU(NAMES), prediction[n : n + 1], target[n : n + 1]).mean_iou for n in range(3)]
    result = measured(SemanticIoU(NAMES), prediction, target)
    assert result.image_mean_iou == pytest.approx(float(np.nanmean(singles)), rel=1e-12)
    assert result.images == 3


@pytest.mark.parametrize(
    ("rule", "scores"),
    [
        ("skip", {"a": 0.5, "b": 0.0, "c": math.nan}),
        ("labelled", {"a": 0.5, "b": math.nan, "c": math.nan}),
        ("zero", {"a": 0.5, "b": 0.0, "c": 0.0}),
        ("one", {"a": 0.5, "b": 0.0, "c": 1.0}),
    ],
)
def test_rules_for_absent_classes(rule: str, scores: dict[str, float]) -> None:
    """Class a is half found, b only predicted, c nowhere."""
    metric = SemanticIoU(("a", "b", "c"), absent=rule)  # type: ignore[arg-type]
    result = metric.update(np.array([[0, 1]]), np.array([[0, 0]])).compute()
    np.testing.assert_equal(dict(result.iou), scores)
    assert result.mean_iou == np.nanmean(list(scores.values()))
    assert result.absent == rule
    assert result.image_mean_iou == (0.5 if rule == "labelled" else 0.25)
    assert (result.mean_accuracy, result.pixel_accuracy, result.frequency_weighted_iou) == (0.5, 0.5, 0.5)
    assert math.isnan(result.accuracy["b"])


def test_what_is_predicted_as_nothing_is_a_miss() -> None:
    metric = SemanticIoU(("a", "b")).update(np.array([[0, -1, 1, -1]]), np.array([[0, 0, 1, IGNORE]]))
    result = metric.compute()
    assert dict(result.iou) == {"a": 0.5, "b": 1.0}
    assert result.pixel_accuracy == 2 / 3
    np.testing.assert_array_equal(metric.matrix, [[1, 0, 0], [0, 1, 0], [1, 0, 1]])


def test_an_image_of_ignored_pixels_changes_nothing() -> None:
    metric = SemanticIoU(("a", "b")).update(np.array([[0, 1]]), np.array([[0, 0]]))
    before = metric.compute()
    after = metric.update(np.array([[0, 1]]), np.full((1, 2), IGNORE)).compute()
    np.testing.assert_equal(after.iou, before.iou)
    assert (after.images, after.image_mean_iou) == (1, before.image_mean_iou)


def test_a_set_without_ignored_label_and_one_with_an_index_of_a_class() -> None:
    with pytest.raises(DataError, match=r"target holds the value 255; there are classes 0 to 1\. Map"):
        SemanticIoU(("a", "b"), ignore=None).update(np.zeros((1, 1), int), np.full((1, 1), 255))
    assert SemanticIoU(("void", "b"), ignore=0).update(np.array([[1, 1]]), np.array([[0, 1]])).compute().mean_iou == 1.0


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([[2]], [[0]], "prediction holds the value 2; there are classes 0 to 1 and -1"),
        ([[0]], [[7]], "target holds the value 7; there are classes 0 to 1 and 255"),
        ([[0]], [[-1]], "target holds the value -1"),
        ([[0.5]], [[0]], "prediction is float64; a label map holds integers"),
        ([[0, 1]], [[0]], r"prediction \(1, 2\), target \(1, 1\)"),
    ],
)
def test_values_that_are_no_class_are_refused(prediction: Any, target: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SemanticIoU(("a", "b")).update(np.array(prediction), np.array(target))


def test_names_must_differ() -> None:
    with pytest.raises(ConfigError, match="2 class names, 1 of them different"):
        SemanticIoU(("a", "a"))
    with pytest.raises(ConfigError, match="unseen holds x, which is none of the classes"):
        ZeroShotIoU(("a", "b"), unseen=("x",))


@given(st.integers(0, 10_000))
def test_zero_shot_groups(seed: int) -> None:
    prediction, target = maps(seed)
    result = measured(ZeroShotIoU(NAMES, unseen=("b", "d")), prediction, target)
    iou = measured(SemanticIoU(NAMES, absent="zero"), prediction, target).iou
    assert result.seen == pytest.approx((iou["a"] + iou["c"]) / 2)
    assert result.unseen == pytest.approx((iou["b"] + iou["d"]) / 2)
    assert result.overall == pytest.approx(np.mean(list(iou.values())))
    product = result.seen * result.unseen
    assert result.harmonic == pytest.approx(2 * product / (result.seen + result.unseen) if product else 0)
    assert min(result.seen, result.unseen) - 1e-12 <= result.harmonic + (product == 0) <= 1 + (product == 0)


def test_a_group_without_classes_has_no_mean() -> None:
    result = ZeroShotIoU(("a", "b")).update(np.array([[0]]), np.array([[0]])).compute()
    assert math.isnan(result.unseen)
    assert math.isnan(result.harmonic)
    assert (result.seen, result.absent) == (0.5, "zero")

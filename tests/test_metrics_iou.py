"""IoU of single masks: over a set, per pair, by every rule for what is absent; and answers to "is it there at all"."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score, matthews_corrcoef
from torchmetrics.functional.classification import binary_jaccard_index

from promptseg.errors import DataError
from promptseg.metrics import MaskIoU, PairIoU, Presence, intersection_union, iou

FULL, HALF, NONE = np.ones((2, 2), bool), np.array([[True, True], [False, False]]), np.zeros((2, 2), bool)


def test_intersections_add_up_before_they_are_divided() -> None:
    result = MaskIoU().update("a", FULL, FULL).update("a", FULL, HALF).update("b", NONE, FULL).compute()
    assert result.per_class == {"a": 6 / 8, "b": 0.0}
    assert result.mean == 3 / 8
    assert result.foreground == 6 / 12
    assert result.binary == (6 / 12 + 0 / 6) / 2  # 2 falsely marked and 4 missed pixels, none rightly left out
    assert PairIoU().update("a", FULL, FULL).update("a", FULL, HALF).update("a", NONE, NONE).compute().mean == 2.5 / 3


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_figures_agree_with_scikit_learn_and_torchmetrics(seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    prediction, target, known = rng.random((3, 6, 7)) > rng.random((3, 1, 1))
    known[0, 0] = True
    p, t = prediction[known], target[known]
    (_, false), (missed, hits) = confusion_matrix(t, p, labels=[False, True])
    assert intersection_union(prediction, target, known) == (hits, hits + false + missed)
    result = MaskIoU().update("a", prediction, target, known).compute()
    if p.any() or t.any():
        assert result.foreground == pytest.approx(jaccard_score(t, p))
        assert result.foreground == pytest.approx(float(binary_jaccard_index(torch.tensor(p).int(), torch.tensor(t).int())))
    if not (p.all() and t.all()) and (p.any() or t.any()):
        assert result.binary == pytest.approx(jaccard_score(t, p, labels=[False, True], average="macro"))


@pytest.mark.parametrize(
    ("rule", "per_class", "mean"),
    [
        ("skip", {"cat": 0.5, "false": 0.0}, 0.25),
        ("labelled", {"cat": 0.5}, 0.5),
        ("zero", {"cat": 0.5, "false": 0.0, "nowhere": 0.0}, 0.5 / 3),
        ("one", {"cat": 0.5, "false": 0.0, "nowhere": 1.0}, 0.5),
    ],
)
def test_rules_for_absent_classes(rule: str, per_class: dict[str, float], mean: float) -> None:
    metric = MaskIoU(absent=rule)  # type: ignore[arg-type]
    result = metric.update("cat", HALF, FULL).update("false", HALF, NONE).update("nowhere", NONE, NONE).compute()
    assert result.per_class == per_class
    assert result.mean == pytest.approx(mean)
    assert result.absent == rule


@pytest.mark.parametrize(("rule", "mean", "pairs"), [("one", 0.75, 2), ("zero", 0.25, 2), ("skip", 0.5, 1)])
def test_rules_for_empty_pairs(rule: str, mean: float, pairs: int) -> None:
    result = PairIoU(absent=rule).update("a", HALF, FULL).update("a", NONE, NONE).compute()  # type: ignore[arg-type]
    assert (result.mean, result.pairs, result.absent) == (mean, pairs, rule)


def test_only_known_pixels_count() -> None:
    known = np.array([[True, True], [False, False]])
    assert MaskIoU().update("a", FULL, HALF, known).compute().mean == 1.0
    assert PairIoU(absent="zero").update("a", FULL, FULL, NONE).compute().mean == 0.0  # nothing is known: both are empty there
    assert math.isnan(iou(FULL, FULL, NONE))


def test_nothing_measured_is_not_a_number() -> None:
    assert math.isnan(MaskIoU().compute().mean)
    assert math.isnan(MaskIoU().compute().binary)
    assert math.isnan(PairIoU().compute().mean)
    assert math.isnan(Presence().compute().false_masks)
    assert Presence().compute().matthews == 0


def test_masks_of_integers_are_read_and_probabilities_refused() -> None:
    assert iou(FULL.astype(np.uint8) * 255, HALF.astype(np.int64)) == 0.5
    with pytest.raises(DataError, match="prediction is float32; a mask is bool or integers"):
        iou(FULL.astype(np.float32), HALF)
    with pytest.raises(DataError, match=r"prediction \(2, 2\), target \(3, 2\)"):
        iou(FULL, np.ones((3, 2), bool))
    with pytest.raises(DataError, match=r"known \(2,\)"):
        iou(FULL, HALF, np.ones(2, bool))


def test_classes_come_in_one_order() -> None:
    metric = MaskIoU()
    for name in (10, "b", 2, "a"):
        metric.update(name, FULL, FULL)
    assert list(metric.compute().per_class) == [2, 10, "a", "b"]


def test_presence_counts_false_masks_and_correlates() -> None:
    metric = Presence(tolerated=0.01)
    answers = [(True, True, 0.3), (False, False, 0.0), (False, False, 0.01), (False, True, 0.2), (True, False, 0.5)]
    for truth, answer, share in answers:
        metric.update(truth, answer, share)
    result = metric.compute()
    assert result.false_masks == 1 / 3
    assert result.tolerated == 0.01
    assert result.matthews == pytest.approx(matthews_corrcoef([a[0] for a in answers], [a[1] for a in answers]))

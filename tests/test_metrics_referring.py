"""cIoU and gIoU, with expressions that refer to nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.metrics import MaskIoU, PairIoU, ReferringIoU

LEFT, ALL, NONE = np.array([[True, False]]), np.array([[True, True]]), np.array([[False, False]])


def test_every_kind_of_expression() -> None:
    metric = ReferringIoU(thresholds=(0.5, 0.9))
    metric.update(LEFT, ALL)  # half found
    metric.update(ALL, ALL)  # found
    metric.update(NONE, ALL)  # missed
    metric.update(NONE, NONE)  # rightly nothing
    metric.update(LEFT, NONE)  # a false mask
    result = metric.compute()
    assert result.ciou == 3 / 7
    assert result.giou == (0.5 + 1 + 0 + 1 + 0) / 5
    assert result.precision == {0.5: 2 / 3, 0.9: 1 / 3}
    assert (result.target_accuracy, result.no_target_accuracy) == (2 / 3, 1 / 2)
    assert (result.samples, result.absent) == (5, "gres")


def test_the_answer_nothing_counts_more_than_a_mask_that_comes_with_it() -> None:
    right = ReferringIoU().update(ALL, NONE, answered=False).update(LEFT, LEFT).compute()
    assert (right.ciou, right.giou, right.no_target_accuracy) == (1.0, 1.0, 1.0)
    wrong = ReferringIoU().update(ALL, LEFT, answered=False).update(LEFT, LEFT).compute()
    assert (wrong.ciou, wrong.giou, wrong.target_accuracy) == (1 / 3, 0.5, 0.5)
    # saying that there is something is wrong, even where nothing is marked then
    empty = ReferringIoU().update(NONE, NONE, answered=True).compute()
    assert (empty.no_target_accuracy, empty.giou) == (0.0, 0.0)


def test_expressions_without_target_can_be_left_out() -> None:
    result = ReferringIoU(absent="skip").update(LEFT, NONE).update(LEFT, ALL).compute()
    assert (result.ciou, result.giou, result.no_target_accuracy, result.absent) == (0.5, 0.5, 0.0, "skip")


def test_pixels_that_are_not_known_make_no_target() -> None:
    known = np.array([[False, True]])
    result = ReferringIoU().update(LEFT, LEFT, known).update(ALL, ALL, known).compute()
    assert (result.ciou, result.giou, result.no_target_accuracy, result.target_accuracy) == (1.0, 1.0, 1.0, 1.0)


def test_nothing_measured_is_not_a_number() -> None:
    result = ReferringIoU().compute()
    assert all(map(math.isnan, (result.ciou, result.giou, result.no_target_accuracy, result.target_accuracy, *result.precision.values())))


@given(st.integers(0, 10_000))
def test_with_targets_only_these_are_the_foreground_and_the_pair_iou(seed: int) -> None:
    metric, summed, pairs = ReferringIoU(), MaskIoU(), PairIoU()
    rng = np.random.default_rng(seed)
    for _ in range(4):
        prediction, target = rng.random((2, 5, 5)) > 0.5
        target[0, 0] = True
        for one in (summed, pairs):
            one.update("it", prediction, target)
        metric.update(prediction, target)
    assert metric.compute().ciou == pytest.approx(summed.compute().foreground)
    assert metric.compute().giou == pytest.approx(pairs.compute().mean)

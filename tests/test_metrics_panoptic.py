"""Panoptic quality against torchmetrics, and by hand where it has no crowds."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.detection import panoptic_quality

from promptseg.errors import ConfigError, DataError
from promptseg.metrics import PanopticQuality


def scene(rng: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """(8, 10) segment ids 1..6 in stripes, and the category of each: 1 and 2 are things, 7 is stuff."""
    edges = np.sort(rng.integers(0, 80, 5))
    ids = 1 + np.searchsorted(edges, np.arange(80), side="right").reshape(8, 10)
    categories = {number: int(rng.choice([1, 2])) for number in range(1, 6)} | {6: 7}
    return ids, categories


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_qualities_agree_with_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, labelled = scene(rng)
    prediction = np.where(rng.random(target.shape) < 0.8, target, np.roll(target, 3, axis=1))
    found = {number: category if rng.random() < 0.8 or category == 7 else 3 - category for number, category in labelled.items()}
    result = PanopticQuality((1, 2), (7,)).update(prediction, found, target, labelled).compute()

    def pairs(ids: np.ndarray, categories: dict[int, int]) -> torch.Tensor:
        kinds = np.vectorize(categories.get)(ids)
        return torch.tensor(np.stack([kinds, np.where(kinds == 7, 0, ids)], axis=-1))[None]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = panoptic_quality(
            pairs(prediction, found), pairs(target, labelled), {1, 2}, {7}, return_sq_and_rq=True, return_per_class=True
        ).numpy()
    for category, row in zip((1, 2, 7), theirs, strict=True):
        ours = result.per_class[category]
        if ours.classes:
            np.testing.assert_allclose([ours.pq, ours.sq, ours.rq], row, rtol=1e-5, atol=1e-7)
    assert result.all.pq == pytest.approx(np.nanmean([quality.pq for quality in result.per_class.values()]))


def row(*lengths: tuple[int, int]) -> np.ndarray:
    """One row of segments: (id, pixels), ..."""
    return np.concatenate([np.full(pixels, number) for number, pixels in lengths])[None]


def test_matched_false_and_missed_segments() -> None:
    metric = PanopticQuality(("cat",), ("sky",))
    # cat 1 is found at 8/10, cat 2 is missed (exactly half is not enough), cat 3 is false, the sky is found whole
    target, prediction = row((1, 10), (2, 4), (9, 6)), row((1, 8), (5, 2), (3, 2), (5, 2), (9, 6))
    metric.update(prediction, {1: "cat", 3: "cat", 5: "cat", 9: "sky"}, target, {1: "cat", 2: "cat", 9: "sky"})
    result = metric.compute()
    assert result.things.sq == 0.8
    assert result.things.rq == pytest.approx(1 / (1 + 0.5 * 2 + 0.5 * 1))
    assert result.things.pq == pytest.approx(0.8 / 2.5)
    assert (result.stuff.pq, result.stuff.classes) == (1.0, 1)
    assert result.all.pq == pytest.approx((0.8 / 2.5 + 1) / 2)


def test_void_and_crowds_excuse() -> None:
    target = row((1, 4), (0, 4), (2, 6))
    labelled = {1: "cat", 2: "dog"}
    prediction, found = row((1, 8), (3, 3), (4, 3)), {1: "cat", 3: "dog", 4: "cat"}
    quality = PanopticQuality(("cat", "dog")).update(prediction, found, target, labelled, crowds={2}).compute()
    # cat 1 covers void: its union is only its own 4 labelled pixels; dog 3 lies on a crowd of dogs; cat 4 does not
    assert quality.per_class["cat"].sq == 1.0
    assert quality.per_class["cat"].rq == pytest.approx(1 / 1.5)
    assert quality.per_class["dog"].classes == 0
    assert math.isnan(quality.per_class["dog"].pq)
    # half on void is not more than half: it is false
    half = PanopticQuality(("cat",)).update(row((1, 4)), {1: "cat"}, row((0, 2), (2, 2)), {2: "cat"}, crowds=()).compute()
    assert half.all.rq == 1.0  # void is left out of the union, so the rest matches
    lost = PanopticQuality(("cat", "dog")).update(row((1, 4)), {1: "cat"}, row((0, 2), (2, 2)), {2: "dog"}).compute()
    assert (lost.per_class["cat"].rq, lost.per_class["dog"].rq) == (0.0, 0.0)


@pytest.mark.parametrize(("rule", "pq", "classes"), [("skip", 1.0, 1), ("zero", 0.5, 2)])
def test_rules_for_classes_without_segments(rule: str, pq: float, classes: int) -> None:
    metric = PanopticQuality(("cat", "dog"), absent=rule)  # type: ignore[arg-type]
    result = metric.update(row((1, 4)), {1: "cat"}, row((1, 4)), {1: "cat"}).compute()
    assert (result.all.pq, result.all.classes, result.absent) == (pq, classes, rule)
    assert math.isnan(result.stuff.pq)


@pytest.mark.parametrize(
    ("found", "message"), [({}, "prediction has pixels of segment 1, which has no category"), ({1: "cow"}, "a 'cow', which is neither")]
)
def test_segments_without_a_known_category_are_refused(found: dict[int, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PanopticQuality(("cat",)).update(row((1, 4)), found, row((0, 4)), {})


def test_shapes_and_groups_are_checked() -> None:
    with pytest.raises(DataError, match="shapes differ"):
        PanopticQuality(("cat",)).update(row((0, 4)), {}, row((0, 3)), {})
    with pytest.raises(ConfigError, match="both things and stuff"):
        PanopticQuality(("cat",), ("cat",))

"""Intersection over union of single masks: summed over a set before it is divided, or divided mask by mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from .accumulator import Accumulator
from .arrays import AbsentRule, EmptyRule, IntArray, Name, as_masks, checked, in_order, iou_of_classes, mean, ratio


def intersection_union(prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> tuple[int, int]:
    """Pixels in both and in either of two masks of one shape, where ``known``."""
    hits, false, missed, _ = confusion(prediction, target, known)
    return int(hits), int(hits + false + missed)


def iou(prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> float:
    """Intersection over union of two masks, 0..1; NaN when both are empty."""
    return ratio(*intersection_union(prediction, target, known))


def confusion(prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> IntArray:
    """(4,): pixels that are hit, falsely marked, missed, rightly left out; of those that are ``known``."""
    ours, truth, counts = as_masks(prediction, target, known)
    if counts is not None:
        ours, truth = ours & counts, truth & counts
    pixels = ours.size if counts is None else np.count_nonzero(counts)
    hits, marked, labelled = np.count_nonzero(ours & truth), np.count_nonzero(ours), np.count_nonzero(truth)
    return np.array([hits, marked - hits, labelled - hits, pixels - marked - labelled + hits], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class MaskIoUResult:
    """All 0..1. ``mean``: of the classes' IoU; ``foreground``: IoU of all pixels of all masks; ``binary``: the mean of that and of the
    background's IoU."""

    mean: float
    foreground: float
    binary: float
    per_class: Mapping[Name, float]
    absent: AbsentRule


@dataclass
class MaskIoU(Accumulator[MaskIoUResult]):
    """IoU over a whole set of named masks: intersections and unions add up per name, and over all, before they are divided.

    A class that ``absent`` leaves out is missing from ``per_class``.
    """

    absent: AbsentRule = "skip"
    counts: dict[Name, IntArray] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        checked(self.absent, AbsentRule)

    def update(self, name: Name, prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> Self:
        """One mask for one name; arrays of one shape, bool or integers. Only pixels that are ``known`` count."""
        self.counts[name] = self.counts.get(name, 0) + confusion(prediction, target, known)
        return self

    def compute(self) -> MaskIoUResult:
        """NaN before any update."""
        names = in_order(self.counts)
        table = np.array([self.counts[name] for name in names], dtype=np.int64).reshape(-1, 4)
        scores = iou_of_classes(table[:, 0], table[:, :3].sum(1), table[:, 0] + table[:, 2], self.absent)
        hits, false, missed, outside = table.sum(0)
        foreground = ratio(hits, hits + false + missed)
        return MaskIoUResult(
            mean=mean(scores),
            foreground=foreground,
            binary=mean([foreground, ratio(outside, outside + false + missed)]),
            per_class={name: float(score) for name, score in zip(names, scores, strict=True) if not np.isnan(score)},
            absent=self.absent,
        )


@dataclass(frozen=True, slots=True)
class PairIoUResult:
    """``mean`` over all pairs, 0..1, and per class; how many ``pairs`` counted."""

    mean: float
    per_class: Mapping[Name, float]
    pairs: int
    absent: EmptyRule


@dataclass
class PairIoU(Accumulator[PairIoUResult]):
    """Mean over (photo, prompt) pairs of the IoU of one mask with its truth, every pair of the same weight.

    ``absent``: what a pair counts whose mask and truth are both empty.
    """

    absent: EmptyRule = "one"
    sums: dict[Name, Fraction] = field(default_factory=dict, init=False)
    pairs: dict[Name, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        checked(self.absent, EmptyRule)

    def update(self, name: Name, prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> Self:
        """One pair; arrays of one shape, bool or integers. Only pixels that are ``known`` count."""
        return self.add(name, iou(prediction, target, known))

    def add(self, name: Name, score: float) -> Self:
        """One pair whose score, 0..1, is already known; NaN where both masks are empty."""
        if np.isnan(score):
            if self.absent == "skip":
                return self
            score = float(self.absent == "one")
        self.sums[name] = self.sums.get(name, Fraction(0)) + Fraction(score)
        self.pairs[name] = self.pairs.get(name, 0) + 1
        return self

    def compute(self) -> PairIoUResult:
        """NaN before any update."""
        pairs = sum(self.pairs.values())
        per_class = {name: float(self.sums[name] / self.pairs[name]) for name in in_order(self.pairs)}
        whole = float(sum(self.sums.values(), Fraction(0)) / pairs) if pairs else float("nan")
        return PairIoUResult(whole, per_class, pairs, self.absent)

"""Panoptic quality (Kirillov et al. 2019): segments matched by overlap, counted and measured per class."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError, DataError
from .accumulator import Accumulator
from .arrays import IntArray, Name, checked, mean, same_shape

SegmentRule: TypeAlias = Literal["skip", "zero"]
"""What a class without any counted segment, labelled or predicted, does: left out of the means (as published), or 0."""


@dataclass(frozen=True, slots=True)
class Quality:
    """0..1: ``pq`` = ``sq`` (mean IoU of matched segments) x ``rq`` (F1 of the matching), averaged over ``classes`` classes."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True, slots=True)
class PanopticResult:
    """Means over all classes, the things and the stuff, and each class for itself (NaN: left out)."""

    all: Quality
    things: Quality
    stuff: Quality
    per_class: Mapping[Name, Quality]
    absent: SegmentRule


@dataclass
class PanopticQuality(Accumulator[PanopticResult]):
    """PQ, SQ and RQ as panopticapi counts them.

    ``things``, ``stuff``: the categories, numbers or names. ``void``: the segment id of pixels that belong to nothing. Segments match when
    their category is the same and their IoU, void pixels left out, exceeds 0.5. Crowds are never missed; a prediction that lies by more
    than half on void and on crowds of its category is not false.
    """

    things: tuple[Name, ...]
    stuff: tuple[Name, ...] = ()
    absent: SegmentRule = "skip"
    void: int = 0
    matched: dict[Name, Fraction] = field(default_factory=dict, init=False)  # sums of IoUs
    counts: dict[Name, IntArray] = field(default_factory=dict, init=False)  # matched, false, missed segments

    def __post_init__(self) -> None:
        checked(self.absent, SegmentRule)
        self.things, self.stuff = tuple(self.things), tuple(self.stuff)
        if both := set(self.things) & set(self.stuff):
            raise ConfigError(f"{sorted(map(str, both))} are both things and stuff; a category is one of them.")

    def update(
        self,
        prediction: ArrayLike,
        predicted: Mapping[int, Name],
        target: ArrayLike,
        labelled: Mapping[int, Name],
        crowds: Collection[int] = (),
    ) -> Self:
        """One photo: integer maps (H, W) of segment ids, the category of each id, and which labelled ids are ``crowds``. Ids without a
        pixel do not count.

        Raises:
            DataError: the shapes differ, an id has no category, or a category is unknown.
        """
        overlaps = _overlaps(prediction, target)
        ours, truth = self._segments("prediction", overlaps, 0, predicted), self._segments("target", overlaps, 1, labelled)
        left, missed = set(ours), set(truth) - set(crowds)
        for (mine, theirs), both in overlaps.items():
            if mine in ours and theirs in missed and predicted[mine] == labelled[theirs]:
                either = ours[mine] + truth[theirs] - both - overlaps.get((mine, self.void), 0)
                if 2 * both > either:
                    self.matched[labelled[theirs]] = self.matched.get(labelled[theirs], Fraction(0)) + Fraction(both / either)
                    self._count(labelled[theirs], 0)
                    left.discard(mine)
                    missed.discard(theirs)
        for mine in left:
            excused = [self.void, *(crowd for crowd in set(crowds) & set(truth) if labelled[crowd] == predicted[mine])]
            if 2 * sum(overlaps.get((mine, other), 0) for other in excused) <= ours[mine]:
                self._count(predicted[mine], 1)
        for theirs in missed:
            self._count(labelled[theirs], 2)
        return self

    def _segments(self, what: str, overlaps: Mapping[tuple[int, int], int], place: int, categories: Mapping[int, Name]) -> dict[int, int]:
        """Pixels of each segment in a map; void is none."""
        areas: dict[int, int] = {}
        for pair, pixels in overlaps.items():
            if pair[place] != self.void:
                areas[pair[place]] = areas.get(pair[place], 0) + pixels
        for segment in areas:
            if segment not in categories:
                raise DataError(f"The {what} has pixels of segment {segment}, which has no category; list it, or set them to {self.void}.")
            if categories[segment] not in self.things and categories[segment] not in self.stuff:
                raise DataError(f"Segment {segment} of the {what} is a {categories[segment]!r}, which is neither of things nor of stuff.")
        return areas

    def _count(self, category: Name, place: int) -> None:
        self.counts[category] = self.counts.get(category, 0) + np.eye(3, dtype=np.int64)[place]

    def compute(self) -> PanopticResult:
        """NaN for a group in which no class counts."""
        per_class = {category: self._quality(category) for category in (*self.things, *self.stuff)}
        return PanopticResult(
            all=_averaged(per_class.values()),
            things=_averaged(per_class[category] for category in self.things),
            stuff=_averaged(per_class[category] for category in self.stuff),
            per_class=per_class,
            absent=self.absent,
        )

    def _quality(self, category: Name) -> Quality:
        hits, false, missed = self.counts.get(category, np.zeros(3, dtype=np.int64)).tolist()
        if not hits + false + missed:
            return Quality(0.0, 0.0, 0.0, 1) if self.absent == "zero" else Quality(math.nan, math.nan, math.nan, 0)
        segmented, recognised = self.matched.get(category, Fraction(0)), hits + Fraction(false + missed, 2)
        return Quality(float(segmented / recognised), float(segmented / hits) if hits else 0.0, float(hits / recognised), 1)


def _averaged(qualities: Iterable[Quality]) -> Quality:
    counted = [quality for quality in qualities if quality.classes]
    pq, sq, rq = (mean(getattr(quality, figure) for quality in counted) for figure in ("pq", "sq", "rq"))
    return Quality(pq, sq, rq, classes=len(counted))


def _overlaps(prediction: ArrayLike, target: ArrayLike) -> dict[tuple[int, int], int]:
    """Pixels that each pair of (predicted, labelled) segment ids shares."""
    ours, truth = np.asarray(prediction), np.asarray(target)
    same_shape(prediction=ours, target=truth)
    first, mine = np.unique(ours, return_inverse=True)
    second, theirs = np.unique(truth, return_inverse=True)
    table = np.bincount(mine.ravel() * len(second) + theirs.ravel(), minlength=first.size * second.size).reshape(first.size, second.size)
    return {(int(first[i]), int(second[j])): int(table[i, j]) for i, j in zip(*np.nonzero(table), strict=True)}

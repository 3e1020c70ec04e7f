"""Masks of referring expressions, also of those that refer to nothing: cIoU, gIoU and how well "nothing" is told (GRES)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .accumulator import Accumulator
from .arrays import IntArray, checked, ratio
from .iou import intersection_union

NoTargetRule: TypeAlias = Literal["gres", "skip"]
"""What an expression without target counts. "gres": IoU 1 and nothing in cIoU when "nothing" was the answer, else IoU 0, and the false mask
adds to cIoU's union. "skip": left out of gIoU and cIoU."""


@dataclass(frozen=True, slots=True)
class ReferringResult:
    """All 0..1. ``ciou``: summed intersections by summed unions; ``giou``: mean of the IoUs; ``precision``: share of expressions with a
    target whose IoU reaches a threshold; ``no_target_accuracy`` (N-acc) and ``target_accuracy`` (T-acc): share of expressions without and
    with target that were told as such. NaN: there was none.
    """

    ciou: float
    giou: float
    precision: Mapping[float, float]
    no_target_accuracy: float
    target_accuracy: float
    samples: int
    absent: NoTargetRule


@dataclass
class ReferringIoU(Accumulator[ReferringResult]):
    """cIoU and gIoU of one mask per expression (GRES, Liu et al. 2023, section 3; RefCOCO where every expression has a target).

    ``epsilon`` is added to each union of gIoU: 0, or the 1e-5 that some published code (PSALM) divides with.
    """

    absent: NoTargetRule = "gres"
    thresholds: tuple[float, ...] = (0.7, 0.8, 0.9)
    epsilon: float = 0.0
    intersection: int = field(default=0, init=False)
    union: int = field(default=0, init=False)
    scores: Fraction = field(default=Fraction(0), init=False)
    scored: int = field(default=0, init=False)
    told: IntArray = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64), init=False)  # is there a target x was one answered
    reached: IntArray = field(init=False)  # per threshold

    def __post_init__(self) -> None:
        checked(self.absent, NoTargetRule)
        self.thresholds = tuple(map(float, self.thresholds))
        self.reached = np.zeros(len(self.thresholds), dtype=np.int64)

    def update(self, prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None, *, answered: bool | None = None) -> Self:
        """One expression; masks of one shape, bool or integers, an empty ``target`` where it refers to nothing.

        ``answered``: whether the model said that there is a target; by default, that its mask is not empty. A mask that comes with the
        answer "nothing" does not count as found, but as marked where there is a target.
        """
        both, either = intersection_union(prediction, target, known)
        there = intersection_union(target, target, known)[0] > 0
        answered = intersection_union(prediction, prediction, known)[0] > 0 if answered is None else answered
        self.told[int(there), int(answered)] += 1
        both = both if answered else 0
        if there:
            score = both / (either + self.epsilon)
            self.reached += (score >= np.array(self.thresholds)) & (both > 0)
        elif self.absent == "skip":
            return self
        else:
            score, either = float(not answered), either if answered else 0
        self.intersection += both
        self.union += either
        self.scores += Fraction(score)
        self.scored += 1
        return self

    def compute(self) -> ReferringResult:
        """NaN before any update."""
        targets = int(self.told[1].sum())
        return ReferringResult(
            ciou=ratio(self.intersection, self.union),
            giou=float(self.scores / self.scored) if self.scored else float("nan"),
            precision={threshold: ratio(count, targets) for threshold, count in zip(self.thresholds, self.reached.tolist(), strict=True)},
            no_target_accuracy=ratio(self.told[0, 0], self.told[0].sum()),
            target_accuracy=ratio(self.told[1, 1], targets),
            samples=int(self.told.sum()),
            absent=self.absent,
        )

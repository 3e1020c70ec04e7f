"""How well a model knows what is not there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from .accumulator import Accumulator
from .arrays import IntArray, ratio


@dataclass(frozen=True, slots=True)
class PresenceResult:
    """``false_masks``: share of absent names that got a mask, 0..1, NaN without any; ``matthews``: correlation of the answers, -1..1."""

    false_masks: float
    matthews: float
    tolerated: float


@dataclass
class Presence(Accumulator[PresenceResult]):
    """Answers to "is it there at all". A mask on an absent name is false when it covers more than ``tolerated`` of the photo."""

    tolerated: float = 0.01
    counts: IntArray = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64), init=False)  # truth x answer
    masked: int = field(default=0, init=False)

    def update(self, truth: bool, answer: bool, share: float) -> Self:
        """One name on one photo: is it there, what was said, and which ``share`` of the photo its mask covers."""
        self.counts[int(truth), int(answer)] += 1
        self.masked += int(not truth and share > self.tolerated)
        return self

    def compute(self) -> PresenceResult:
        """The correlation (Matthews 1975) is 0 where a row or column of the table is empty."""
        (tn, fp), (fn, tp) = self.counts.tolist()
        scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return PresenceResult(ratio(self.masked, tn + fp), (tp * tn - fp * fn) / scale if scale else 0.0, self.tolerated)

"""Whether what is in a photo is among the first guesses: top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError, DataError
from .accumulator import Accumulator
from .arrays import IntArray, ratio


@dataclass(frozen=True, slots=True)
class TopKResult:
    """Shares of photos, 0..1: ``accuracy`` per number of guesses, NaN before any photo; ``per_class``: the same by class and guesses."""

    accuracy: Mapping[int, float]
    per_class: Mapping[int, Mapping[str, float]]
    images: int
    guesses: tuple[int, ...]


@dataclass
class TopK(Accumulator[TopKResult]):
    """The share of photos whose class is among the ``guesses`` most probable ones; of equal scores the first class comes first."""

    guesses: tuple[int, ...] = (1, 5)
    counts: dict[str, IntArray] = field(default_factory=dict, init=False)  # class -> photos, then hits per number of guesses

    def __post_init__(self) -> None:
        self.guesses = tuple(self.guesses)
        if not self.guesses or min(self.guesses) < 1:
            raise ConfigError(f"guesses are numbers of at least 1, not {self.guesses}.")

    def update(self, name: str, scores: ArrayLike, target: int) -> Self:
        """One photo of class ``name``, whose score is number ``target`` of ``scores`` (N,).

        Raises:
            DataError: there is no such score.
        """
        values = np.asarray(scores)
        if values.ndim != 1 or not 0 <= target < len(values):
            raise DataError(
                f"There is no score {target} in scores of shape {values.shape}; give one score per class, and the class's place."
            )
        rank = int((values > values[target]).sum() + (values[:target] == values[target]).sum())
        found = np.array([1, *(rank < count for count in self.guesses)], dtype=np.int64)
        self.counts[name] = self.counts[name] + found if name in self.counts else found
        return self

    def compute(self) -> TopKResult:
        """Of all photos, not the mean of the classes; classes by name."""
        total = sum(self.counts.values(), np.zeros(1 + len(self.guesses), dtype=np.int64))
        accuracy = {count: ratio(int(hits), int(total[0])) for count, hits in zip(self.guesses, total[1:], strict=True)}
        per_class = {
            count: {name: ratio(int(found[place]), int(found[0])) for name, found in sorted(self.counts.items())}
            for place, count in enumerate(self.guesses, 1)
        }
        return TopKResult(accuracy, per_class, int(total[0]), self.guesses)

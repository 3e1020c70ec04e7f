"""Joint training: data sets take turns, so that every batch asks one kind of question (paper, section 3.3; published code)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING

from ...errors import ConfigError

if TYPE_CHECKING:
    from ...training.schedules import Warmup

__all__ = ["Mix", "warmed_up"]


@dataclass(frozen=True, slots=True)
class Mix:
    """Data sets of the given ``lengths``: ``every`` examples of each in turn, times its ``ratio``.

    Raises:
        ConfigError: an empty data set, or numbers that do not fit together.
    """

    lengths: Sequence[int]
    ratio: Sequence[int]
    every: int = 16

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.ratio) or not self.lengths or min(*self.lengths, *self.ratio, self.every) < 1:
            raise ConfigError(
                f"A mix needs a ratio of at least 1 for every data set, none of them empty: {list(self.lengths)} examples in the "
                f"ratio {list(self.ratio)}, {self.every} in turn."
            )

    def __len__(self) -> int:
        """Examples until every data set that is asked for once per turn has been seen."""
        return sum(length * ratio for length, ratio in zip(self.lengths, self.ratio, strict=True))

    def place(self, turn: int, index: int) -> tuple[int, int]:
        """Which data set, and which of its examples: ``turn`` counts from 0 and chooses the data set; ``index`` the example, modulo."""
        ends = list(accumulate(ratio * self.every for ratio in self.ratio))
        chosen = bisect_right(ends, turn % ends[-1])
        return chosen, index % len(self) % self.lengths[chosen]


def warmed_up(steps: int, share: float = 0.03) -> Warmup:
    """The published schedule: a straight rise over a ``share`` of the steps, rounded up, then half a cosine to 0."""
    from ...training.schedules import Cosine, Warmup

    return Warmup(steps=ceil(share * steps), main=Cosine())

"""Random choices that depend on (seed, epoch, index) alone: the same on any number of workers, and after a resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

__all__ = ["Draws", "shuffled"]

T = TypeVar("T")


class Draws:
    """The random choices of one sample, from a generator of its own."""

    def __init__(self, *key: int) -> None:
        """``key``: whole numbers >= 0 that name the sample, such as (seed, epoch, index)."""
        word = np.random.SeedSequence(key).generate_state(1)[0]  # neighbouring keys give unrelated streams
        self.generator = torch.Generator().manual_seed(int(word))

    def integer(self, below: int) -> int:
        """0 .. ``below`` - 1, all alike."""
        return int(torch.randint(0, below, (), generator=self.generator))

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        return float(torch.rand((), generator=self.generator))

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def choice(self, items: Sequence[T]) -> T:
        """One of them; a single one is returned without drawing."""
        return items[self.integer(len(items))] if len(items) > 1 else items[0]


def shuffled(items: Sequence[T], *key: int) -> list[T]:
    """All items in an order that ``key`` decides."""
    return [items[index] for index in np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(len(items))]

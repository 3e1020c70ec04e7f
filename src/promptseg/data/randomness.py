"""Random choices that depend on (seed, epoch, index) alone: the same on any number of workers, and after a resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Draws", "Epochs", "shuffled"]

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


class Epochs:
    """Goes through ``count`` items again and again, each time in an order of its own."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._newest: tuple[int, NDArray[np.int64]] | None = None

    def __call__(self, number: int) -> tuple[int, int]:
        """The epoch of an example, counted from 0 over all epochs, and the index of its item."""
        epoch, place = divmod(number, self.count)
        if self._newest is None or self._newest[0] != epoch:
            self._newest = epoch, _order(self.count, self.seed, epoch)
        return epoch, int(self._newest[1][place])


def shuffled(items: Sequence[T], *key: int) -> list[T]:
    """All items in an order that ``key`` decides."""
    return [items[index] for index in _order(len(items), *key)]


def _order(count: int, *key: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(count)

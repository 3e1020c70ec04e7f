"""Examples in order: which ones a step takes, read ahead by worker processes, continued anywhere.

A run's examples are numbered from 0 over all steps; step s takes the numbers s * batch_size .. (s + 1) * batch_size - 1. An example is a
pure function of its number, so a run continues mid-epoch after an interruption, and the same examples come whatever the number of workers.
Processes and accumulation divide each step's numbers among them in equal contiguous parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import ConfigError, DataError, PromptSegError


class Examples(Protocol):
    """The data side of a run."""

    def example(self, number: int) -> Any:
        """The example of this number, whatever came before."""

    def collate(self, examples: Sequence[Any]) -> Any:
        """Some consecutive examples as one batch."""

    def describe(self, number: int) -> str:
        """Which sample of the data that is: a file name, say."""


@dataclass(frozen=True, slots=True)
class Share:
    """This process's part of every step: ``rank`` of ``world`` processes, each in ``parts`` (gradient accumulation).

    Raises:
        ConfigError: the batch cannot be divided equally.
    """

    batch_size: int
    rank: int = 0
    world: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % (self.world * self.parts):
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be divided by {self.world} processes x {self.parts} parts; "
                f"choose a multiple of {self.world * self.parts}."
            )

    def numbers(self, step: int) -> list[list[int]]:
        """For each part of this step, the numbers of its examples."""
        size = self.batch_size // (self.world * self.parts)
        first = step * self.batch_size + self.rank * size * self.parts
        return [list(range(first + part * size, first + (part + 1) * size)) for part in range(self.parts)]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """All parts of all steps, in order: what the loader asks for."""

    share: Share
    first: int
    steps: int

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.steps):
            yield from self.share.numbers(step)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An exception on its way from a worker: which example, and what happened."""

    number: int
    message: str


class _Numbered(Dataset[Any]):
    def __init__(self, source: Examples) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Any:
        try:
            return self.source.example(number)
        except Exception as error:  # whatever it is, the user must learn which sample did it
            text = str(error) if isinstance(error, PromptSegError) else f"{type(error).__name__}: {error}"
            return _Failure(number, text)


class _Collate:
    """Workers collate, too; a failure passes through."""

    def __init__(self, source: Examples) -> None:
        self.source = source

    def __call__(self, examples: Sequence[Any]) -> Any:
        failed = [example for example in examples if isinstance(example, _Failure)]
        return failed[0] if failed else self.source.collate(examples)


def batches(source: Examples, share: Share, first: int, steps: int, *, workers: int = 0, pin: bool = False) -> Iterator[list[Any]]:
    """The batches of each step from ``first`` up to ``steps``: a list with one per part.

    Raises:
        DataError: an example could not be made; the message names it.
    """
    loader = DataLoader(
        _Numbered(source),
        batch_sampler=_Numbers(share, first, steps),
        collate_fn=_Collate(source),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # the loader draws a seed for its workers; not from the generator of the steps
    )
    waiting: list[Any] = []
    for batch in loader:
        if isinstance(batch, _Failure):
            raise DataError(f"Example {batch.number} ({source.describe(batch.number)}) could not be made: {batch.message}")
        waiting.append(batch)
        if len(waiting) == share.parts:
            yield waiting
            waiting = []

"""Examples in order: which ones a step takes, read ahead by worker processes, continued anywhere.

A run's examples are numbered from 0 over all steps; step s takes the numbers s * batch_size .. (s + 1) * batch_size - 1. An example is a
pure function of its number, so a run continues mid-epoch after an interruption, and the same examples come whatever the number of workers.
Processes and accumulation divide each step's numbers among them in equal contiguous parts.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import ConfigError, DataError, PromptSegError

AHEAD = 2  # batches that each worker prepares before they are asked for
DEATH_S = 10.0  # longest time between a worker's broken pipe and the news of its death


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
    """An exception on its way from a worker: what the user is told."""

    message: str


class _Numbered(Dataset[Any]):
    def __init__(self, source: Examples) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Any:
        try:
            return number, self.source.example(number)
        except Exception as error:  # whatever it is, the user must learn which sample did it
            return _Failure(f"Example {_named(self.source, number)} could not be made: {_text(error)}")


class _Collate:
    """Workers collate, too; a failure passes through."""

    def __init__(self, source: Examples) -> None:
        self.source = source

    def __call__(self, made: Sequence[Any]) -> Any:
        failed = [example for example in made if isinstance(example, _Failure)]
        if failed:
            return failed[0]
        numbers, examples = zip(*made, strict=True)
        try:
            return self.source.collate(list(examples))
        except Exception as error:
            those = " to ".join(_named(self.source, number) for number in (numbers[0], numbers[-1]))
            return _Failure(f"Examples {those} could not be put into one batch: {_text(error)}")


def _named(source: Examples, number: int) -> str:
    return f"{number} ({source.describe(number)})"


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, PromptSegError) else f"{type(error).__name__}: {error}"


@contextmanager
def lost_workers(source: Examples, share: Share, workers: int, reached: Callable[[], int]) -> Iterator[None]:
    """Inside, a worker that dies is an error that names the examples in the making; torch says it at any moment, be it in a step.

    ``reached``: the step to which the last batch belongs that arrived.

    Raises:
        DataError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        first = share.numbers(reached() + 1)[0][0]
        last = share.numbers(reached() + 1 + AHEAD * workers // share.parts)[-1][-1]
        raise DataError(
            f"A process that prepares examples died ({str(error).strip().rstrip('.')}) over one of the examples {_named(source, first)} to "
            f"{_named(source, last)}: for want of memory, or in a decoder. Take fewer workers; with workers=0 the run itself meets it."
        ) from None


def _ignore_interrupts(worker: int) -> None:
    """A terminal sends Ctrl-C to all processes; when a run ends is for its own to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(source: Examples, share: Share, first: int, steps: int, *, workers: int = 0, pin: bool = False) -> Iterator[list[Any]]:
    """The batches of each step from ``first`` up to ``steps``: a list with one per part.

    Raises:
        DataError: an example could not be made, or some not be put together; the message names them.
    """
    loader = DataLoader(
        _Numbered(source),
        batch_sampler=_Numbers(share, first, steps),
        collate_fn=_Collate(source),
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # the loader draws a seed for its workers; not from the generator of the steps
    )
    waiting: list[Any] = []
    for batch in _received(loader):
        if isinstance(batch, _Failure):
            raise DataError(batch.message)
        waiting.append(batch)
        if len(waiting) == share.parts:
            yield waiting
            waiting = []


def _received(loader: DataLoader[Any]) -> Iterator[Any]:
    """What arrives. The pipe of a worker that dies may break before the system tells of its death: that is then waited for."""
    arriving = iter(loader)
    while True:
        try:
            batch = next(arriving)
        except StopIteration:
            return
        except (OSError, EOFError):
            time.sleep(DEATH_S)  # torch's word of it, see `lost_workers`, interrupts this
            raise
        yield batch

"""Examples come once each, in order, whoever shares the work."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.errors import ConfigError, DataError
from promptseg.training.feed import Share, _received, batches, lost_workers


class Numbers:
    def example(self, number: int) -> int:
        return number

    def collate(self, examples: list[int]) -> list[int]:
        return examples

    def describe(self, number: int) -> str:
        return str(number)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_processes_and_parts_share_every_step_exactly(world: int, parts: int, each: int, step: int) -> None:
    size = world * parts * each
    taken = [number for rank in range(world) for part in Share(size, rank, world, parts).numbers(step) for number in part]
    assert taken == list(range(step * size, (step + 1) * size))


@given(st.integers(0, 4), st.integers(1, 3))
def test_a_run_that_starts_later_sees_the_same(first: int, parts: int) -> None:
    share = Share(6, 0, 1, parts)
    whole = list(batches(Numbers(), share, 0, 5))
    assert list(batches(Numbers(), share, first, 5)) == whole[first:]


def test_what_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="choose a multiple of 6"):
        Share(8, 0, 3, 2)


def test_a_broken_pipe_waits_for_the_news_of_a_death() -> None:
    """Under load the pipe of a worker that was killed breaks before the system says so; an alarm plays the system."""

    def tell(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    def breaking() -> Iterator[int]:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        raise ConnectionResetError
        yield 0

    before = signal.signal(signal.SIGALRM, tell)
    try:
        named = pytest.raises(DataError, match=r"signal: Killed\) over one of the examples 6 \(6\) to 11 \(11\)")
        with named, lost_workers(Numbers(), Share(2), 1, lambda: 2):
            list(_received(breaking()))
    finally:
        signal.signal(signal.SIGALRM, before)

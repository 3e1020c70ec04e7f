"""Work in batches that shrink when memory ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .errors import MemoryLimitError

Item = TypeVar("Item")
Result = TypeVar("Result")

__all__ = ["in_batches"]


def in_batches(work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], size: int, what: str) -> list[Result]:
    """``work`` over all items, ``size`` at a time; out of memory halves the batch with a warning before it gives up.

    Raises:
        MemoryLimitError: a single item does not fit.
    """
    done: list[Result] = []
    while len(done) < len(items):
        batch = items[len(done) : len(done) + size]
        try:
            done += work(batch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            size = _halved(len(batch), what)
    return done


def _halved(size: int, what: str) -> int:
    if size == 1:
        raise MemoryLimitError(
            f"Not enough memory for one of the {what} alone. Ask for fewer prompts at a time, show the photo smaller "
            "(Options(size=...)) or in tiles (Options(tile=...)), use precision='bfloat16', or another device."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(f"Out of memory with {size} {what} at once; going on with {size // 2}.", RuntimeWarning, stacklevel=4)
    return size // 2


def _out_of_memory(error: BaseException) -> bool:
    """torch has a class for accelerators only; on the CPU its allocator raises a plain RuntimeError."""
    if isinstance(error, MemoryLimitError):
        return False  # somebody further in has already given up, in better words
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)

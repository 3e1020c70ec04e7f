"""What is not wrong but must be said, such as words that no model reads; held back where the occasion will come again. Imports no torch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

__all__ = ["Notice", "held_back", "tell"]

Notice: TypeAlias = tuple[type[UserWarning], str]

_held: ContextVar[list[Notice] | None] = ContextVar("held", default=None)


def tell(kind: type[UserWarning], message: str) -> None:
    """Warn, on the line outside this package that asked, so that a further line that asks the same is warned, too."""
    held = _held.get()
    if held is None:
        warnings.warn(message, kind, stacklevel=_outside())
    else:
        held.append((kind, message))


@contextmanager
def held_back() -> Iterator[list[Notice]]:
    """What this thread, and no other, tells inside; it is not shown."""
    notices: list[Notice] = []
    token = _held.set(notices)
    try:
        yield notices
    finally:
        _held.reset(token)


def _outside() -> int:
    """The level of the caller's caller that called into this package, as `warnings.warn` counts in `tell`."""
    package, level, found = __name__.partition(".")[0], 1, 1
    frame = sys._getframe(1)
    while frame.f_back is not None:
        level, caller = level + 1, frame.f_back
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            found = level
        frame = caller
    return found

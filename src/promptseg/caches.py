"""A bounded memory of encoded things that threads may share, and the digests by which things are recognised. Imports no torch."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np

Value = TypeVar("Value")

__all__ = ["BoundedCache", "digest"]


class BoundedCache(Generic[Value]):
    """Least recently used values go first once their sizes add up to more than ``limit``.

    ``size`` gives the cost of a value in the unit of ``limit`` (bytes, or 1 to count entries). A value larger than the limit is not kept.
    """

    def __init__(self, limit: int, size: Callable[[Value], int]) -> None:
        self.limit, self.used = limit, 0
        self._size = size
        self._values: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> Value | None:
        """The value, now the most recently used one, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: str, value: Value) -> None:
        """Keep the value and forget the oldest ones that no longer fit beside it."""
        size = self._size(value)
        with self._lock:
            self.used -= self._values.pop(key, (value, 0))[1]
            if size > self.limit:
                return
            self._values[key] = (value, size)
            self.used += size
            while self.used > self.limit:
                self.used -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.used = 0


def digest(*parts: str | np.ndarray) -> str:
    """A name for content: equal parts give equal names; shapes and dtypes count, so a reshaped array is another content."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            data = part.encode("utf-8", "surrogatepass")
            state.update(f"s{len(data)}:".encode())
            state.update(data)
        else:
            state.update(f"a{part.dtype.str}{part.shape}:".encode())
            state.update((part if part.flags.c_contiguous else part.copy()).data)
    return state.hexdigest()

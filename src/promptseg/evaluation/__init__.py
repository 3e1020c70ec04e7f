"""Benchmark protocols: which data, which prompts, which figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .pocket import Pocket, Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Pocket", "Row", "evaluate"]


def evaluate(protocol: Pocket, segmenter: Segmenter, progress: Callable[[str, int, int], None] | None = None) -> tuple[Row, ...]:
    """Run a protocol -> its table, row by row. ``progress(what, done, total)`` is called before every photo.

    Raises:
        DataError: the protocol's data is not where it says.
    """
    return protocol.run(segmenter, progress)

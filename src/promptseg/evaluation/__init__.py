"""Benchmark protocols: which data, which prompts, which figures; and one runner for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .catalogue import PROTOCOLS, options, protocol
from .pocket import Pocket
from .protocol import Counted, Part, Picture, Protocol
from .table import PhotoFigures, Row, Table, comparison

if TYPE_CHECKING:
    from ..segmenter import Segmenter

RESAMPLES = 200

__all__ = [
    "PROTOCOLS",
    "Counted",
    "Part",
    "PhotoFigures",
    "Picture",
    "Pocket",
    "Protocol",
    "Row",
    "Table",
    "comparison",
    "evaluate",
    "options",
    "protocol",
]


def evaluate(
    protocol: Protocol,
    segmenter: Segmenter | Sequence[Segmenter],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    output: str | PathLike[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Table:
    """Run a protocol -> its table, a sequence of rows.

    Args:
        protocol: such as ``Pocket(root)`` or ``protocol("phrasecut", root)``.
        segmenter: the model; several of them where each part of the protocol (a fold) has a model of its own, in order.
        progress: ``progress(part, done, total)`` is called before every photo, and at the end of a part.
        output: where the table goes as JSON; beside it a Markdown table, CSVs per class and per photo, and a sheet of pictures. While it
            runs, what was counted lies there too: the same call goes on after an interruption and gives the same table.
        resamples: how often the photos are drawn anew for the 95 % intervals; 0: none.
        seed: of these draws.

    Raises:
        DataError: the protocol's data is not where it says, or the output cannot be written.
        UnsupportedTask, UnsupportedPrompt: the model cannot be asked so.
        ConfigError: ``output`` does not end in .json, or holds an unfinished evaluation of something else; or the number of models does
            not fit.
    """
    from .runner import run

    segmenters = list(segmenter) if isinstance(segmenter, Sequence) else [segmenter]
    return run(protocol, segmenters, progress, None if output is None else Path(output), resamples, seed)

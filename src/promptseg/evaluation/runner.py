"""One runner for all protocols: photo by photo, resumable, then figures, intervals and files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contracts import Preprocess
from ..errors import ConfigError, DataError
from ..metrics import merged
from .bootstrap import Pool, draws
from .journal import Journal
from .protocol import Metrics, Part, Protocol
from .report import check, write
from .table import PhotoFigures, Row, Table

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Progress", "run"]

Progress = Callable[[str, int, int], None]
Counts = Mapping[str, Sequence[Metrics]]  # by part, one entry per case


def run(
    protocol: Protocol, segmenters: Sequence[Segmenter], progress: Progress | None, output: Path | None, resamples: int, seed: int
) -> Table:
    """See `evaluation.evaluate`, which hands on its arguments."""
    if resamples < 0:
        raise ConfigError(f"resamples is how often the photos are drawn anew for the confidence interval, 0 or more, not {resamples}.")
    if output is not None:
        check(output)
    for segmenter in segmenters:
        protocol.check(segmenter)
    parts = protocol.parts()
    asked = _one_per_part(parts, segmenters)
    name = " + ".join(dict.fromkeys(segmenter.card.name for segmenter in segmenters))
    constants = {**_model_constants(segmenters[0]), **protocol.constants(segmenters[0])}
    head = {"protocol": protocol.NAME, "root": str(protocol.root), "constants": constants, "model": [*map(_fingerprint, segmenters)]}
    with Journal(output and output.with_suffix(".unfinished.jsonl"), head) as journal:
        counts = {part.name: _count(part, segmenter, journal, progress or _silent) for part, segmenter in zip(parts, asked, strict=True)}
        table = replace(_table(protocol, parts, counts, resamples, seed), model=name, constants={**constants, **_rules(parts, resamples)})
        if output is not None:
            write(table, output, parts, asked)
        journal.finish()
    return table


def _silent(what: str, done: int, total: int) -> None:
    pass


def _one_per_part(parts: Sequence[Part], segmenters: Sequence[Segmenter]) -> Sequence[Segmenter]:
    if len(segmenters) not in (1, len(parts)):
        names = ", ".join(part.name for part in parts)
        raise ConfigError(f"{len(segmenters)} models were given for the {len(parts)} parts {names}; give one for all, or one for each.")
    return segmenters if len(segmenters) == len(parts) else [segmenters[0]] * len(parts)


def _count(part: Part, segmenter: Segmenter, journal: Journal, progress: Progress) -> list[Metrics]:
    keys = part.keys
    if not keys:
        raise DataError(f"{part.name}: there is nothing to evaluate in this data; check its place and split.")
    empty, counted = part.metrics(), []
    for index, key in enumerate(keys):
        progress(part.name, index, len(keys))
        found = journal.get(part.name, index, key, empty)
        if found is None:
            found = part.count(index, segmenter).metrics
            journal.put(part.name, index, key, found)
        counted.append(found)
    progress(part.name, len(keys), len(keys))
    return counted


def _table(protocol: Protocol, parts: Sequence[Part], counts: Counts, resamples: int, seed: int) -> Table:
    whole = {part.name: {name: merged(one[name] for one in counts[part.name]) for name in part.metrics()} for part in parts}
    photos = (
        PhotoFigures(part.name, key, part.figures(one)) for part in parts for key, one in zip(part.keys, counts[part.name], strict=True)
    )
    rows = _with_intervals(protocol, parts, counts, protocol.rows(whole), resamples, seed)
    return Table(protocol.NAME, "", rows, protocol.published(), {}, protocol.per_class(whole), tuple(photos))


def _with_intervals(
    protocol: Protocol, parts: Sequence[Part], counts: Counts, rows: tuple[Row, ...], resamples: int, seed: int
) -> tuple[Row, ...]:
    """95 % percentile intervals, all parts drawn independently."""
    pools = {
        part.name: {name: Pool(empty, [one[name] for one in counts[part.name]]) for name, empty in part.metrics().items()} for part in parts
    }
    weights = zip(*(draws(part.groups, resamples, seed + place) for place, part in enumerate(parts)), strict=True)
    values = []
    for drawn in weights:
        resampled = {
            name: {metric: pool.weighted(one) for metric, pool in group.items()}
            for (name, group), one in zip(pools.items(), drawn, strict=True)
        }
        values.append([row.value for row in protocol.rows(resampled)])
    return tuple(_bounded(row, [one[place] for one in values]) for place, row in enumerate(rows))


def _bounded(row: Row, values: Sequence[float]) -> Row:
    defined = [value for value in values if not np.isnan(value)]
    if not defined:
        return row
    low, high = np.percentile(defined, (2.5, 97.5)).tolist()
    return replace(row, low=low, high=high)


def _rules(parts: Sequence[Part], resamples: int) -> dict[str, Any]:
    """The metrics' own constants, such as what an absent class counts, and how the interval was estimated."""
    settings = {
        f"{type(metric).__name__}.{key}": _short(value)
        for part in parts
        for metric in part.metrics().values()
        for key, value in metric.settings().items()
        if key != "classes"
    }
    return {**settings, "interval": f"bootstrap over photos, {resamples} draws, percentiles 2.5 and 97.5" if resamples else "none"}


def _short(value: Any) -> Any:
    """A long list of thresholds as its ends."""
    return f"{value[0]:g} to {value[-1]:g}, {len(value)} values" if isinstance(value, tuple) and len(value) > 20 else value


def _model_constants(segmenter: Segmenter) -> dict[str, Any]:
    preprocess: Preprocess = segmenter.card.preprocess
    return {"precision": segmenter.precision, "mean": preprocess.mean, "std": preprocess.std}


def _fingerprint(segmenter: Segmenter) -> str:
    """The card and a checksum of the weights, so that a model trained further is not taken for itself."""
    code = 0
    for name, tensor in sorted(segmenter.model.state_dict().items()):
        code = zlib.crc32(f"{name}{tuple(tensor.shape)}{float(tensor.double().sum())!r}".encode(), code)
    return f"{segmenter.card.name} {code:08x}"

"""Confidence intervals: what the figures would be on other photos of the same kind (bootstrap, Efron 1979; percentile intervals)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..metrics import Accumulator

__all__ = ["Pool", "draws"]

Weights: TypeAlias = NDArray[np.int64]
Place: TypeAlias = tuple[str, ...] | tuple[str, Any]  # a field, or a field and a key in it


class Pool:
    """The sums of one metric photo by photo, kept as numbers, so that a set of photos drawn with repetition is one weighted sum.

    Takes metrics whose sums are integers, integer arrays, fractions, or dictionaries of these, or dictionaries of records: those are not
    added but repeated, under names of their own.
    """

    def __init__(self, empty: Accumulator[Any], parts: Sequence[Accumulator[Any]]) -> None:
        """``empty``: the metric before any photo, for its settings. ``parts``: one metric per photo."""
        self._empty = empty
        entries: defaultdict[Place, list[tuple[int, Any]]] = defaultdict(list)
        self._records: list[tuple[int, Place, Any]] = []
        for index, part in enumerate(parts):
            for place, value in _places(part):
                if isinstance(value, (tuple, dict)):
                    self._records.append((index, place, value))
                else:
                    entries[place].append((index, value))
        self._sums = {place: _Sum(found) for place, found in entries.items()}

    def weighted(self, weights: Weights) -> Accumulator[Any]:
        """The metric over photos of which number i was drawn ``weights[i]`` times; (N,) integers. Integer sums stay exact."""
        state = {item.name: getattr(self._empty, item.name) for item in fields(self._empty) if not item.init}
        state = {name: {} if isinstance(value, dict) else value for name, value in state.items()}
        for place, total in self._sums.items():
            if not weights[total.photos].any():
                continue
            if len(place) == 1:
                state[place[0]] = total.of(weights)
            else:
                state[place[0]][place[1]] = total.of(weights)
        for index, (name, key), value in self._records:
            state[name].update({key if copy == 0 else f"{key}, drawn again ({copy})": value for copy in range(weights[index])})
        metric = type(self._empty)(**self._empty.settings())
        for name, value in state.items():
            setattr(metric, name, value)
        return metric


class _Sum:
    """One number or array of a metric, for each photo that has it."""

    def __init__(self, found: Sequence[tuple[int, Any]]) -> None:
        values = [value for _, value in found]
        self.kind, self.shape = type(values[0]), np.shape(values[0])
        self.photos = np.array([index for index, _ in found])
        self.values = np.array([np.ravel(np.asarray(value, dtype=np.float64)) for value in values])

    def of(self, weights: Weights) -> Any:
        total = (weights[self.photos].astype(np.float64) @ self.values).reshape(self.shape)
        if issubclass(self.kind, Fraction):
            return float(total)
        return total.astype(np.int64) if self.shape else int(total)


def _places(part: Accumulator[Any]) -> Iterator[tuple[Place, Any]]:
    for item in fields(part):
        if item.init:
            continue
        value = getattr(part, item.name)
        if isinstance(value, dict):
            yield from (((item.name, key), entry) for key, entry in value.items())
        else:
            yield (item.name,), value


def draws(groups: Sequence[str], count: int, seed: int = 0) -> Iterator[Weights]:
    """``count`` times: how often each case is drawn, (N,), where cases of one group are drawn together, as many groups as there are."""
    _, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    size = int(member.max()) + 1 if len(member) else 0
    generator = np.random.default_rng(seed)
    for _ in range(count):
        drawn = np.bincount(generator.integers(0, size, size), minlength=size) if size else np.zeros(0, dtype=np.int64)
        yield drawn[member]

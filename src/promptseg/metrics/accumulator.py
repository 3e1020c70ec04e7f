"""What every metric is: settings, and sums that join.

A metric is a dataclass. Its constructor arguments are settings; its other fields are sums, kept so that adding them is exact: integers,
integer arrays, fractions, lists, records (tuples) that exist once, and dictionaries of these. From that alone follow `merge`, `state` and
`from_state`: a metric itself only says how it is updated and what it computes.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import reduce
from typing import Any, Generic, Self, TypeAlias, TypeVar

import numpy as np

from ..errors import ConfigError, DataError

Result = TypeVar("Result", covariant=True)
State: TypeAlias = dict[str, Any]  # plain JSON


@dataclass
class Accumulator(ABC, Generic[Result]):
    """`update` with one photo at a time, `merge` with the same metric of other photos, `compute` whenever wanted.

    The result of merged parts equals that of one pass bit for bit, however the photos were divided and in whatever order they came.
    """

    @abstractmethod
    def compute(self) -> Result:
        """The figures so far; nothing is forgotten by it."""

    def merge(self, other: Self) -> Self:
        """Take in what ``other`` has counted; returns self.

        Raises:
            ConfigError: ``other`` is another metric, or has other settings.
            DataError: both have counted the same image or frame.
        """
        if type(other) is not type(self) or other.settings() != self.settings():
            raise ConfigError(f"{_told(other)} cannot be merged into {_told(self)}; make both with the same class and settings.")
        for name in self._sums():
            setattr(self, name, _join(getattr(self, name), getattr(other, name)))
        return self

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments: every constant that the figures depend on."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.init}

    def state(self) -> State:
        """Everything counted so far as plain JSON, for a file or another process."""
        settings = {name: _encode(value) for name, value in self.settings().items()}
        return {"metric": type(self).__name__, "settings": settings, "sums": {name: _encode(getattr(self, name)) for name in self._sums()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The metric that gave this `state`, also after a round trip through JSON.

        Raises:
            DataError: it is the state of another metric or of another version.
        """
        if state.get("metric") != cls.__name__:
            raise DataError(f"This is the state of {state.get('metric')!r}, not of {cls.__name__!r}; read it with the class that wrote it.")
        try:
            metric = cls(**{name: _decode(value) for name, value in state["settings"].items()})
            for name in cls._sums():
                setattr(metric, name, _decode(state["sums"][name]))
        except (KeyError, TypeError) as error:
            raise DataError(f"The state of {cls.__name__} comes from another version ({error}); evaluate again from the start.") from error
        return metric

    @classmethod
    def _sums(cls) -> list[str]:
        return [item.name for item in fields(cls) if not item.init]


AnyAccumulator = TypeVar("AnyAccumulator", bound=Accumulator[Any])


def merged(parts: Iterable[AnyAccumulator]) -> AnyAccumulator:
    """One metric out of several with the same settings, which stay as they are.

    Raises:
        ConfigError: there is none, or they differ.
    """
    several = list(parts)
    if not several:
        raise ConfigError("No metric was given to merge; give at least one.")
    return reduce(lambda whole, part: whole.merge(part), several[1:], copy.deepcopy(several[0]))


def _told(metric: Accumulator[Any]) -> str:
    return f"{type(metric).__name__}({', '.join(f'{name}={value!r}' for name, value in metric.settings().items())})"


def _join(ours: Any, theirs: Any) -> Any:
    if isinstance(ours, dict):
        both = {key: _join(ours[key], value) if key in ours else copy.deepcopy(value) for key, value in theirs.items()}
        return {**ours, **both}
    if isinstance(ours, tuple):
        raise DataError("The same image or frame was counted in both parts; give each to one of them only.")
    return ours + theirs


def _encode(value: Any) -> Any:
    match value:
        case np.ndarray():
            return {"integers": value.tolist()}
        case Fraction():
            return {"fraction": [value.numerator, value.denominator]}
        case dict():
            return {"items": [[_encode(key), _encode(entry)] for key, entry in value.items()]}
        case tuple():
            return {"record": [_encode(entry) for entry in value]}
        case list():
            return [_encode(entry) for entry in value]
        case np.generic():
            return value.item()
        case float() if math.isnan(value):  # which JSON does not know
            return {"float": "nan"}
    return value


def _decode(value: Any) -> Any:
    match value:
        case {"integers": numbers}:
            return np.array(numbers, dtype=np.int64)
        case {"fraction": [numerator, denominator]}:
            return Fraction(numerator, denominator)
        case {"items": pairs}:
            return {key: _decode(entry) for key, entry in pairs}
        case {"record": entries}:
            return tuple(_decode(entry) for entry in entries)
        case {"float": text}:
            return float(text)
        case list():
            return [_decode(entry) for entry in value]
    return value

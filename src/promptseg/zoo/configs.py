"""Configuration dataclasses as plain JSON values and back, strictly: a misspelt key is an error, not a default."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError, nearest

T = TypeVar("T")


def to_plain(config: Any) -> dict[str, Any]:
    """A (nested) dataclass as dictionaries, lists and scalars, ready for JSON."""
    plain: dict[str, Any] = _lists(asdict(config))
    return plain


def from_plain(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """The dataclass ``kind`` with these values; fields that are left out keep their defaults.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a missing one, or a value of another type; ``where`` leads there.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is a table of settings, not {values!r}.")
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init]  # type: ignore[arg-type]  # T is a dataclass
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} has an unknown key {key!r}.{nearest(str(key), known)} Known keys: {', '.join(known)}.")
    try:
        return kind(**{key: converted(hints[key], value, f"{where}.{key}") for key, value in values.items()})
    except TypeError as error:  # a field without default is missing
        raise ConfigError(f"{where} is incomplete: {error}.") from None


def converted(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the annotation ``hint`` says: lists become tuples, tables dataclasses; nothing else is converted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _alternative(arguments, value, where)
    if origin is Literal:
        return _expect(value in arguments, value, where, " or ".join(map(repr, arguments)), value)
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin in (Mapping, dict):
        _expect(isinstance(value, Mapping), value, where, "a table", value)
        return {key: converted(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        return from_plain(hint, value, where)
    if hint is float:
        return float(_expect(_is_number(value), value, where, "a number", value))
    if isinstance(hint, type):
        fits = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
        return _expect(fits, value, where, f"of type {hint.__name__}", value)
    return value


def _alternative(hints: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    errors = []
    for hint in _of_kind([hint for hint in hints if hint is not type(None)], value, where):
        try:
            return converted(hint, value, where)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _of_kind(hints: Sequence[Any], value: Any, where: str) -> Sequence[Any]:
    """Where every alternative is a dataclass with a ``kind`` of its own: the one that ``value`` names. Otherwise all."""
    tags: dict[Any, Any] = {field.default: hint for hint in hints if is_dataclass(hint) for field in fields(hint) if field.name == "kind"}
    if not 1 < len(hints) == len(tags) or not isinstance(value, Mapping):
        return hints
    kind = value.get("kind")
    if kind not in tags:
        raise ConfigError(f"{where}.kind is one of {', '.join(tags)}, not {kind!r}.{nearest(str(kind), list(tags))}")
    return [tags[kind]]


def _tuple(hints: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(value, (list, tuple)), value, where, "a list", value)
    items = [hints[0]] * len(value) if len(hints) == 2 and hints[1] is Ellipsis else list(hints)
    _expect(len(items) == len(value), value, where, f"a list of {len(items)}", value)
    return tuple(converted(hint, item, f"{where}[{index}]") for index, (hint, item) in enumerate(zip(items, value, strict=True)))


def _expect(fits: bool, value: Any, where: str, wanted: str, result: Any) -> Any:
    if not fits:
        raise ConfigError(f"{where} must be {wanted}, not {value!r}.")
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value

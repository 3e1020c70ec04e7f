"""Recipes from YAML files and from ``key=value`` words: the fields of `contracts.Recipe`, nothing else.

A file states what differs from its ``base``, the name of a published recipe:

    base: pocket
    output: runs/mine
    lr: 5.0e-4
    options: {size: 320}

Every key must exist and every value fit its field; the error names file, line and the nearest key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from ..contracts import Recipe
from ..errors import ConfigError, nearest
from ..zoo.configs import converted

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that somebody wrote: plain, or a table of entries by key; ``where`` says in which line or word."""

    value: Any
    where: str

    @property
    def plain(self) -> Any:
        """Without the places."""
        if isinstance(self.value, Mapping):
            return {key: entry.plain for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain for entry in self.value]
        return self.value


def read(path: str | Path) -> Recipe:
    """The recipe that a YAML file describes.

    Raises:
        ConfigError: no such file, no YAML, an unknown base or key, a value of another type; the message names file and line.
        ImportError: PyYAML is not installed.
    """
    from . import recipe

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe file {path} cannot be read: {error}.") from None
    table = parse(text, str(path))
    if not isinstance(table.value, Mapping):
        raise ConfigError(f"{path} is not a recipe: it must be a table of settings, such as 'base: pocket'.")
    rest = dict(table.value)
    base = rest.pop("base", None)
    if base is None:
        raise ConfigError(f"{path} names no base. Begin with the published recipe that it changes: 'base: pocket'.")
    try:
        start = recipe(str(base.plain))
    except ConfigError as error:
        raise ConfigError(f"{base.where}: {error}") from None
    named = {"name": Entry(path.stem, str(path)), **rest}
    return changed(start, named)


def with_words(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """The recipe changed by words such as ``lr=5e-4`` or ``options.size=320``.

    Raises:
        ConfigError: a word is not of that form, its key is unknown or its value of another type.
    """
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r} changes nothing: write key=value, for example lr=5e-4.")
        entry = parse(value, repr(word), one_line=True)
        for part in reversed(key.split(".")):
            entry = Entry({part: entry}, repr(word))
        recipe = changed(recipe, entry.value)
    return recipe


def changed(base: T, table: Mapping[str, Entry]) -> T:
    """A dataclass with some fields replaced; fields that are dataclasses or tables themselves are changed entry by entry.

    Raises:
        ConfigError: see `read`.
    """
    kind = type(base)
    known = [field.name for field in fields(base)]  # type: ignore[arg-type]  # T is a dataclass
    hints = get_type_hints(kind)
    values = {}
    for key, entry in table.items():
        if key not in known:
            raise ConfigError(f"{entry.where}: there is no setting {key!r}.{nearest(str(key), known)} There are: {', '.join(known)}.")
        values[key] = _value(getattr(base, key), hints[key], entry, key)
    try:
        return replace(base, **values)  # type: ignore[type-var]
    except ConfigError as error:
        culprit = next((entry for key, entry in table.items() if str(error).startswith(key)), next(iter(table.values())))
        raise ConfigError(f"{culprit.where}: {error}") from None


def _value(current: Any, hint: Any, entry: Entry, key: str) -> Any:
    table = entry.value if isinstance(entry.value, Mapping) else None
    if table is not None and is_dataclass(current) and ("kind" not in table or table["kind"].plain == getattr(current, "kind", None)):
        return changed(current, table)
    if is_dataclass(current) and table is None:
        raise ConfigError(f"{entry.where}: {key} is a table of settings, not {entry.plain!r}.")
    try:
        value = converted(hint, entry.plain, key)
        return {**current, **value} if isinstance(current, Mapping) and isinstance(value, Mapping) else value
    except ConfigError as error:
        raise ConfigError(f"{entry.where}: {error}") from None


def parse(text: str, source: str, *, one_line: bool = False) -> Entry:
    """YAML text with the place of every value.

    Raises:
        ConfigError: it is not YAML, or a key comes twice.
    """
    try:
        import yaml
    except ImportError:
        raise ImportError("Recipe files need PyYAML: pip install 'promptseg[train]'.") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return Entry(None, source) if node is None else _entry(node, source, one_line)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = source if one_line or mark is None else f"{source}, line {mark.line + 1}"
        raise ConfigError(f"{where}: this is not YAML: {getattr(error, 'problem', None) or error}.") from None


def _entry(node: yaml.Node, source: str, one_line: bool) -> Entry:
    import yaml

    where = source if one_line else f"{source}, line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        table: dict[str, Entry] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in table:
                raise ConfigError(f"{source}, line {key.start_mark.line + 1}: {name!r} is set twice.")
            table[name] = _entry(value, source, one_line)
        return Entry(table, where)
    if isinstance(node, yaml.SequenceNode):
        return Entry([_entry(item, source, one_line) for item in node.value], where)
    return Entry(_scalar(node), where)


def _scalar(node: yaml.Node) -> Any:
    """YAML 1.1 takes 5e-4 for a text; everybody else takes it for a number."""
    import yaml

    value = yaml.SafeLoader("").construct_object(node)
    if isinstance(value, str) and getattr(node, "style", None) is None:
        try:
            return float(value)
        except ValueError:
            return value
    return value

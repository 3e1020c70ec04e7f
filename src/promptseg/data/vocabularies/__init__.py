"""Class names of published data sets and the wordings of prompts, kept as data files beside this module; each file notes its source."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ...errors import DataError, nearest

__all__ = ["available", "names", "read_classes", "read_templates", "synonyms", "templates"]

NO_NAMES = ("mess", "removed_words", "templates")  # files that hold something else


def available() -> tuple[str, ...]:
    """Every vocabulary that `names` knows."""
    files = resources.files(__package__).iterdir()
    stems = (file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))
    return tuple(sorted(stem for stem in stems if stem not in NO_NAMES))


def names(vocabulary: str) -> tuple[str, ...]:
    """Class names in the order of the data set's indices, exactly as published (blanks and synonyms included).

    Raises:
        DataError: no such vocabulary.
    """
    return tuple(table(vocabulary)["names"])


def synonyms(vocabulary: str) -> tuple[tuple[str, ...], ...]:
    """The same with synonyms apart and blanks stripped: "building, edifice" -> ("building", "edifice")."""
    return tuple(map(_words, names(vocabulary)))


def read_classes(given: str) -> tuple[tuple[str, ...], ...]:
    """Classes with their synonyms: a list that ships, by its name, or a text file with a class per line, its synonyms joined by commas.

    Raises:
        DataError: it is neither, or the file cannot be read or holds no class.
    """
    from ..samples import read_lines

    known = available()
    if given in known:
        return synonyms(given)
    if not Path(given).is_file():
        raise DataError(f"{given!r} is no text file and no vocabulary that ships.{nearest(given, known)} There are {', '.join(known)}.")
    lines = read_lines(Path(given), "A vocabulary is a text file in UTF-8 with one class per line.")
    if not lines:
        raise DataError(f"{given} holds no class. Write one per line, its synonyms joined by commas.")
    return tuple(_words(line) for line in lines)


def templates(name: str) -> tuple[str, ...]:
    """Wordings with ``{}`` where the name goes: "imagenet80", "imagenet7", "photo" and others; ``templates.json`` has all.

    Raises:
        DataError: no such set.
    """
    sets = _read("templates")
    if name not in sets:
        raise DataError(f"There are no templates {name!r}; choose one of {', '.join(sets)}.")
    return tuple(sets[name]["templates"])


def read_templates(given: str) -> tuple[str, ...]:
    """Wordings: a set that ships, by its name, or a text file with one per line, each with one ``{}`` where the name goes.

    Raises:
        DataError: it is neither, or the file cannot be read, holds nothing, or a line has no place for the name, or several.
    """
    from ..samples import read_lines

    known = tuple(_read("templates"))
    if given in known:
        return templates(given)
    if not Path(given).is_file():
        raise DataError(f"{given!r} is no text file and no set of templates.{nearest(given, known)} There are {', '.join(known)}.")
    lines = read_lines(Path(given), "Templates are a text file in UTF-8 with one wording per line.")
    if wrong := [line for line in lines if line.count("{}") != 1]:
        raise DataError(f"{given}: {wrong[0]!r} needs one {{}}, the place of the class name.")
    if not lines:
        raise DataError(f"{given} holds no wording. Write one per line, such as: a photo of a {{}}.")
    return tuple(lines)


def table(vocabulary: str) -> dict[str, Any]:
    """A vocabulary's whole file: ``source``, ``names`` and what else it notes.

    Raises:
        DataError: no such vocabulary.
    """
    if vocabulary not in available():
        known = available()
        raise DataError(f"There is no vocabulary {vocabulary!r}.{nearest(vocabulary, known)} There are {', '.join(known)}.")
    return _read(vocabulary)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in name.split(","))


@cache
def _read(stem: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(resources.files(__package__).joinpath(f"{stem}.json").read_text(encoding="utf-8"))
    return content

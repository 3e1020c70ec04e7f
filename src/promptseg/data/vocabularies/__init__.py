"""Class names of published data sets and the wordings of prompts, kept as data files beside this module; each file notes its source."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from ...errors import DataError, nearest

__all__ = ["available", "names", "synonyms", "templates"]

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
    return tuple(tuple(word.strip() for word in name.split(",")) for name in names(vocabulary))


def templates(name: str) -> tuple[str, ...]:
    """Wordings with ``{}`` where the name goes: "imagenet80", "imagenet7", "photo" and others; ``templates.json`` has all.

    Raises:
        DataError: no such set.
    """
    sets = _read("templates")
    if name not in sets:
        raise DataError(f"There are no templates {name!r}; choose one of {', '.join(sets)}.")
    return tuple(sets[name]["templates"])


def table(vocabulary: str) -> dict[str, Any]:
    """A vocabulary's whole file: ``source``, ``names`` and what else it notes.

    Raises:
        DataError: no such vocabulary.
    """
    if vocabulary not in available():
        known = available()
        raise DataError(f"There is no vocabulary {vocabulary!r}.{nearest(vocabulary, known)} There are {', '.join(known)}.")
    return _read(vocabulary)


@cache
def _read(stem: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(resources.files(__package__).joinpath(f"{stem}.json").read_text(encoding="utf-8"))
    return content

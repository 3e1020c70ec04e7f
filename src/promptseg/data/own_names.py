"""The names of one's own classes as prompts: which of them mean nothing, what is asked for the others, and which of them it joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, nearest

__all__ = ["Asked", "Meant", "asked_of", "is_nothing", "joined", "meant"]

NOTHING = ("background", "unlabelled", "unlabeled", "void", "ignore")

Asked: TypeAlias = Mapping[str, Sequence[str]]  # what is asked -> the classes of the data that it means, joined
Meant: TypeAlias = dict[str, tuple[str, ...]]  # the same, of classes that the data has


def is_nothing(name: str) -> bool:
    """Whether a class name says that there is none, in any case and between any signs: "Background", "__background__", "[void]"."""
    return "".join(character for character in name if character.isalnum()).lower() in NOTHING


def asked_of(words: str) -> Meant:
    """``"hair, trousers=pants+jeans"`` -> {"hair": ("hair",), "trousers": ("pants", "jeans")}.

    Raises:
        ConfigError: a part is empty, or something is asked for twice.
    """
    asked: Meant = {}
    for part in words.split(","):
        said, equals, names = (piece.strip() for piece in part.partition("="))
        joins = tuple(name.strip() for name in names.split("+")) if equals else (said,)
        if not said or not all(joins) or said in asked:
            raise ConfigError(f"classes {words!r}: {part!r} is empty or comes twice. Write names with commas between, or WORDS=NAME+NAME.")
        asked[said] = joins
    return asked


def meant(classes: Asked | Sequence[str] | None, known: Sequence[str]) -> Meant:
    """What is asked of data with the classes ``known``: all of them, some of them, or some in other words and joined.

    Underscores and hyphens of the data's names are read as blanks.

    Raises:
        ConfigError: a class is none of the data's.
    """
    asked = classes if isinstance(classes, Mapping) else _by_words(known if classes is None else classes)
    for name in (name for names in asked.values() for name in names):
        if name not in known:
            raise ConfigError(f"The data has no class {name!r}.{nearest(name, known)} It has: {', '.join(known)}.")
    return {words: tuple(names) for words, names in asked.items()}


def _by_words(names: Sequence[str]) -> Meant:
    """Each name under its own words; names that differ only in how they are joined mean the same."""
    asked: Meant = {}
    for name in names:
        words = " ".join(name.replace("_", " ").replace("-", " ").split()) or name
        asked[words] = (*asked.get(words, ()), name)
    return asked


def joined(masks: Mapping[str, NDArray[np.bool_]], asked: Asked) -> dict[str, NDArray[np.bool_]]:
    """Bool (H, W) of all that is asked for and there."""
    there = {words: [masks[name] for name in names if name in masks] for words, names in asked.items()}
    return {words: np.logical_or.reduce(found) for words, found in there.items() if found}

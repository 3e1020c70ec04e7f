"""Classes that compete for every pixel: which phrases are asked for them, and which logits are theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .contracts import probability
from .errors import PromptError
from .prompts import Classes

ClassNames: TypeAlias = Sequence[str | Sequence[str]] | Classes
Background: TypeAlias = str | Sequence[str] | float | None

__all__ = ["Background", "ClassNames", "Contest", "given_or_own"]


@dataclass(frozen=True, slots=True)
class Contest:
    """``words``: the synonyms of each class, first the given ones, then background names that are not among them.

    ``background``: a probability that a winner must exceed, or the names whose pixels are nothing, or None.
    """

    words: tuple[tuple[str, ...], ...]
    background: float | tuple[str, ...] | None

    @classmethod
    def between(cls, classes: ClassNames, background: Background) -> Contest:
        """As `Segmenter.semantic` describes its arguments.

        Raises:
            PromptError: a name is empty or comes twice, or a string stands where a list of names is wanted.
            ConfigError: the threshold lies outside 0..1.
        """
        words = _synonyms(classes)
        if background is None:
            return cls(words, None)
        if not isinstance(background, str | Sequence):
            return cls(words, probability("background, where it is no name,", background))
        nothing = _synonyms([background] if isinstance(background, str) else background)
        known = {first for first, *_ in words}
        return cls((*words, *(names for names in nothing if names[0] not in known)), tuple(first for first, *_ in nothing))

    @property
    def classes(self) -> list[str]:
        """What the map calls them: the first of each one's synonyms."""
        return [first for first, *_ in self.words]

    @property
    def phrases(self) -> list[str]:
        """All that is asked."""
        return [phrase for synonyms in self.words for phrase in synonyms]

    @property
    def threshold(self) -> float | None:
        """The probability that a winner must exceed, where the background is one."""
        return self.background if isinstance(self.background, float) else None

    def without_background(self, labels: NDArray[np.int16]) -> NDArray[np.int16]:
        """Labels (H, W) with -1 where a background name has won."""
        if not isinstance(self.background, tuple):
            return labels
        return np.where(np.isin(labels, [self.classes.index(name) for name in self.background]), np.int16(-1), labels)

    @property
    def weights(self) -> list[list[float]]:
        """Per class the share of each phrase in it: what makes the mean of a class's synonyms of the phrases' conditions."""
        owners = [index for index, synonyms in enumerate(self.words) for _ in synonyms]
        return [[(owner == index) / len(synonyms) for owner in owners] for index, synonyms in enumerate(self.words)]

    def per_class(self, maps: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Maps (h, w) of the phrases -> of the classes, one after the other: a class is as probable as the most probable synonym."""
        phrases = iter(maps)
        for synonyms in self.words:
            yield reduce(np.maximum, islice(phrases, len(synonyms)))


def given_or_own(classes: ClassNames | None, own: Sequence[str], model: str) -> ClassNames:
    """The classes that were named, or, where none was, those that the model was trained with.

    Raises:
        PromptError: none was, and the model has none.
    """
    if classes is None and not own:
        raise PromptError(f"{model!r} has no list of classes of its own. Name them: ['sky', 'grass', 'a dog'].")
    return own if classes is None else classes


def _synonyms(names: ClassNames) -> tuple[tuple[str, ...], ...]:
    if isinstance(names, str):
        raise PromptError(f"Classes are a list of names, not the single string {names!r}.")
    checked = names if isinstance(names, Classes) else Classes(names)  # type: ignore[arg-type]  # which checks what it is given
    words = tuple((name,) if isinstance(name, str) else name for name in checked.names)
    twice = [name for name, count in Counter(first for first, *_ in words).items() if count > 1]
    if twice and not _published([first for first, *_ in words], twice):
        shown = ", ".join(map(repr, twice[:5])) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        raise PromptError(f"Classes are named twice: {shown}. A map could not tell them apart; name each once, its synonyms in one list.")
    return words


def _published(firsts: list[str], twice: list[str]) -> bool:
    """Whether these begin with the first synonyms of a vocabulary that ships, which are asked as published: ADE20K has three kinds of bag.

    Names that follow it are the user's own, and none of those that come ``twice``.
    """
    from .data.vocabularies import available, synonyms

    lists = ([first for first, *_ in synonyms(name)] for name in available())
    return any(firsts[: len(known)] == known and not set(twice) & set(firsts[len(known) :]) for known in lists)

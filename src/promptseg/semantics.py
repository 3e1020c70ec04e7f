"""Classes that compete for every pixel: which phrases are asked for them, and who wins. Works on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .contracts import Size
from .errors import ConfigError, PromptError
from .prompts import Classes

ClassNames: TypeAlias = Sequence[str | Sequence[str]]
Background: TypeAlias = str | Sequence[str] | float | None

__all__ = ["Background", "ClassNames", "Contest"]


@dataclass(frozen=True, slots=True)
class Contest:
    """``classes``: the names that a map shows. ``words``: the synonyms of each class, then the background names.

    ``losing``: positions in ``words`` that win nothing. ``threshold``: probability that a winner must exceed, or None.
    """

    classes: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    losing: tuple[int, ...]
    threshold: float | None

    @classmethod
    def between(cls, classes: ClassNames, background: Background) -> Contest:
        """As `Segmenter.semantic` describes its arguments; a background name that is also a class loses as that class.

        Raises:
            PromptError: a name is empty.
            ConfigError: the threshold lies outside 0..1.
        """
        threshold = float(background) if isinstance(background, int | float) else None
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"background is a probability from 0 to 1, or names, not {background}.")
        extra = _names([background] if isinstance(background, str) else [] if isinstance(background, int | float | None) else background)
        words = _names(classes)
        shown = tuple(synonyms[0] for synonyms in words)
        words += [synonyms for synonyms in extra if synonyms[0] not in shown]
        losing = [index for index, synonyms in enumerate(words) if synonyms[0] in [first for first, *_ in extra]]
        return cls(shown, tuple(words), tuple(losing), threshold)

    @property
    def phrases(self) -> list[str]:
        """All that is asked, in the order of ``words``."""
        return [phrase for synonyms in self.words for phrase in synonyms]

    def decide(self, logits: NDArray[np.float32], size: Size) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Logits (number of phrases, h, w) -> index into ``classes`` (H, W), -1 where nothing wins, and the classes' mean probabilities."""
        from .postprocess import semantic_labels

        ends = np.cumsum([len(synonyms) for synonyms in self.words])
        best = (logits[end - len(synonyms) : end].max(axis=0) for end, synonyms in zip(ends, self.words, strict=True))
        labels, scores = semantic_labels(best, size, threshold=self.threshold, background=self.losing)
        return labels, scores[: len(self.classes)]


def _names(names: ClassNames) -> list[tuple[str, ...]]:
    """Every name as its synonyms, the first of which is shown."""
    if isinstance(names, str):
        raise PromptError(f"Classes are a list of names, not the single string {names!r}.")
    checked = Classes(tuple(name if isinstance(name, str) else tuple(name) for name in names))
    return [(name,) if isinstance(name, str) else name for name in checked.names]

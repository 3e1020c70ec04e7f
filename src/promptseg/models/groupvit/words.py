"""Prompts made of the words of a caption (paper, section 3.2; published code). Which word is what, a tagger says; the rule is here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from ...errors import ConfigError

Tagged: TypeAlias = Sequence[tuple[str, str]]  # words and their Penn Treebank tags, in the order of the caption
WordType: TypeAlias = Literal["noun", "noun_phrase"]

NOUNS = frozenset(("NN", "NNS", "NNP", "VBG", "VB", "VBD", "VBN", "VBP", "VBZ"))  # verbs as well, but not NNPS (published code)


def candidates(tagged: Tagged, word_type: WordType = "noun") -> list[str]:
    """What prompts may be made of, in order.

    "noun": every noun and verb, repetitions kept. "noun_phrase": nouns with the adjectives before them. As published, a phrase is stored
    at the word that follows it, so one that ends the caption is not, and one that is known already grows into the next.

    Raises:
        ConfigError: another type of words.
    """
    if word_type == "noun":
        return [word for word, tag in tagged if tag in NOUNS]
    if word_type != "noun_phrase":
        raise ConfigError(f"word_type is 'noun' or 'noun_phrase', not {word_type!r}.")
    found: list[str] = []
    current: list[str] = []
    in_chunk = _chunked([tag for _, tag in tagged])
    for (word, _), inside in zip(tagged, in_chunk, strict=True):
        if inside:
            current.append(word)
        elif current and (phrase := " ".join(current)) not in found:
            found.append(phrase)
            current = []
    return found


def _chunked(tags: Sequence[str]) -> list[bool]:
    """Which words stand in a run of nouns and adjectives that ends in a noun; adjectives behind the last noun do not."""
    inside = [tag.startswith("NN") or tag == "JJ" for tag in tags]
    for index in range(len(tags) - 1, -1, -1):
        followed = index + 1 < len(tags) and inside[index + 1]
        if tags[index] == "JJ" and not followed:
            inside[index] = False
    return inside


def wordings(
    caption: str, words: Sequence[str], count: int, templates: Sequence[str], random: np.random.RandomState | None = None
) -> list[str]:
    """The caption, then ``count`` prompts: words without repetition of a place, each in a template; the caption where words are lacking.

    ``random``: NumPy's legacy generator, which the published runs draw from; None: its global one.
    """
    choice = np.random.choice if random is None else random.choice
    chosen = choice(list(words), min(count, len(words)), replace=False) if words and count else ()
    prompts = [str(choice(list(templates))).replace("{}", str(word)) for word in chosen]
    return [caption, *prompts, *[caption] * (count - len(prompts))]

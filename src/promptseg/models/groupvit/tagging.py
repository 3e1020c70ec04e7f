"""Who says which word of a caption is a noun: the published tagger where its data is at hand, else one that comes in a package."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Literal, TypeAlias

from ...errors import ConfigError
from .words import Tagged

TaggerName: TypeAlias = Literal["auto", "nltk", "pattern"]
Tagger: TypeAlias = Callable[[str], Tagged]

SHORT = {r"\bcan't\b": "can not", r"\bwon't\b": "will not", r"n't\b": " not"}  # TextBlob makes the nouns "n" and "t" of these
MISSING = "Prompts of a caption's nouns need a tagger: pip install 'promptseg[captions]'."


@cache
def tagger(name: TaggerName = "auto") -> tuple[str, Tagger]:
    """A tagger's name and a function, caption -> words with their Penn Treebank tags.

    "nltk": NLTK's averaged perceptron, as published; its data (punkt_tab, averaged_perceptron_tagger_eng) is NLTK's own download.
    "pattern": TextBlob's PatternTagger, whose lexicon and rules are part of the package. "auto": the first where it can be used, else the
    second; a run that is continued elsewhere should name one.

    Raises:
        ConfigError: another name, or NLTK is asked for and its data is not there.
        ImportError: the packages of the extra ``captions`` are missing.
    """
    if name not in ("auto", "nltk", "pattern"):
        raise ConfigError(f"tagger is 'auto', 'nltk' or 'pattern', not {name!r}.")
    if name != "pattern":
        found = _nltk()
        if found is not None:
            return "nltk", found
        if name == "nltk":
            raise ConfigError(
                "NLTK cannot tag here: python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng, or tagger='pattern'."
            )
    return "pattern", _pattern()


def _nltk() -> Tagger | None:
    try:
        import nltk
    except ImportError:
        return None

    def tag(caption: str) -> Tagged:
        found: Tagged = nltk.pos_tag(nltk.word_tokenize(caption))
        return found

    try:
        tag("a dog")
    except LookupError:  # how NLTK says that a file is not there
        return None
    return tag


def _pattern() -> Tagger:
    try:
        from textblob.en.taggers import PatternTagger
    except ImportError:
        raise ImportError(MISSING) from None
    pattern = PatternTagger()

    def tag(caption: str) -> Tagged:
        for short, whole in SHORT.items():
            caption = re.sub(short, whole, caption, flags=re.IGNORECASE)
        return [(str(word), str(kind)) for word, kind in pattern.tag(caption, tokenize=True)]

    return tag

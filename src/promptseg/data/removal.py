"""Phrases that a zero-shot protocol keeps out of training: those that name a class which the test treats as unseen (CLIPSeg, 5.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..errors import ConfigError

__all__ = ["REMOVALS", "Removal", "removal"]

FOLDS = (  # of Pascal-5i, as WordNet synsets
    ("aeroplane.n.01", "bicycle.n.01", "bird.n.01", "vessel.n.02", "bottle.n.01"),
    ("bus.n.01", "car.n.01", "cat.n.01", "chair.n.01", "cattle.n.01"),
    ("table.n.02", "dog.n.01", "horse.n.01", "motorcycle.n.01", "person.n.01"),
    ("pot_plant.n.01", "sheep.n.01", "sofa.n.01", "train.n.01", "television.n.03"),
)
UNSEEN_PAIRS = (
    ("cattle.n.01", "motorcycle.n.01"),
    ("aeroplane.n.01", "sofa.n.01"),
    ("cat.n.01", "television.n.03"),
    ("train.n.01", "bottle.n.01"),
    ("chair.n.01", "pot_plant.n.01"),
)
AFFORDANCES = (
    "drink drinks drinking sit sits sitting ride rides riding fly flies flying drive drives driving driven swim swims swimming "
    "wheel wheels leg legs ear ears"
)
REMOVALS = (*(f"pas5i-{fold}" for fold in range(4)), *(f"zs-{pairs}" for pairs in range(1, 6)), "aff")


@dataclass(frozen=True, slots=True)
class Removal:
    """Which phrases go: those that hold one of ``phrases`` anywhere, or one of ``words`` as a word of their own."""

    words: frozenset[str]
    phrases: tuple[str, ...] = ()

    def drops(self, phrase: str) -> bool:
        """Words are split at blanks and keep their case, as published."""
        return not self.words.isdisjoint(phrase.split(" ")) or any(part in phrase for part in self.phrases)


@cache
def removal(name: str) -> Removal:
    """What ``name`` keeps out.

    Args:
        name: "pas5i-K": the five classes of Pascal-5i's fold K, 0..3; "zs-N": the first N of five pairs of Pascal zero-shot classes
            (so 2 N unseen classes); "aff": words of affordances and parts.

    Raises:
        ConfigError: another name.
    """
    if name not in REMOVALS:
        raise ConfigError(f"{name!r} is no set of phrases to remove; choose one of {', '.join(REMOVALS)}.")
    kind, _, number = name.partition("-")
    if kind == "aff":
        return Removal(frozenset(AFFORDANCES.split()))
    if kind == "pas5i":
        return _naming(FOLDS[int(number)])
    return _naming(synset for pair in UNSEEN_PAIRS[: int(number)] for synset in pair)


def _naming(synsets: Iterable[str]) -> Removal:
    chosen = [_synsets()[synset] for synset in synsets]
    words = frozenset(word for synset in chosen for word in synset["words"])
    return Removal(words, tuple(sorted({phrase for synset in chosen for phrase in synset["phrases"]})))


@cache
def _synsets() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("vocabularies/removed_words.json").read_text(encoding="utf-8")
    synsets: dict[str, Any] = json.loads(text)["synsets"]
    return synsets

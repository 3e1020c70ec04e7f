"""The catalogue: the cards of all families. Imports no torch."""

from __future__ import annotations

from typing import Any

from ..contracts import Card
from ..errors import UnknownModel
from ..models import FAMILIES, family


def cards() -> tuple[Card, ...]:
    """Every model that can be named, in the order of the families."""
    return tuple(card for name in FAMILIES for card in getattr(family(name), "CARDS", ()))


def card(name: str) -> Card:
    """The card called ``name``.

    Raises:
        UnknownModel: there is none; the message offers the nearest name.
    """
    for entry in cards():
        if entry.name == name:
            return entry
    raise UnknownModel(name, [entry.name for entry in cards()])


def config(name: str) -> Any:
    """The configuration dataclass of a card; ``dataclasses.replace`` makes a smaller network of the same kind."""
    return card(name).config

"""The catalogue: the cards of all families. Imports no torch."""

from __future__ import annotations

from typing import Any

from ..contracts import Card
from ..errors import UnknownModel
from ..models import FAMILIES, family


def cards() -> tuple[Card, ...]:
    """Every model that can be named, in the order of the families."""
    return tuple(card for name in FAMILIES for card in getattr(family(name), "CARDS", ()))


def known(name: str) -> Card | None:
    """The card called ``name``, or None. Families whose name it begins with are looked at first: the others need not be imported."""
    families = sorted(FAMILIES, key=lambda key: not name.startswith(key))
    return next((card for key in families for card in getattr(family(key), "CARDS", ()) if card.name == name), None)


def card(name: str) -> Card:
    """The card called ``name``.

    Raises:
        UnknownModel: there is none; the message offers the nearest name.
    """
    entry = known(name)
    if entry is None:
        raise UnknownModel(name, [entry.name for entry in cards()])
    return entry


def config(name: str) -> Any:
    """The configuration dataclass of a card; ``dataclasses.replace`` makes a smaller network of the same kind."""
    return card(name).config

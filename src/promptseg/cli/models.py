"""``promptseg models``: the catalogue."""

from __future__ import annotations

import typer

from ..contracts import Card

__all__ = ["models"]


def models() -> None:
    """List every model that can be named: what it does, under which licence, and whether it is on this machine."""
    from rich.console import Console
    from rich.table import Table

    from ..zoo import cards

    table = Table(show_lines=True)
    for head in ("name", "family", "tasks", "prompts", "size", "code", "weights", "here"):
        table.add_column(head, no_wrap=head in ("name", "family", "size", "here"))
    for card in cards():
        table.add_row(*_line(card))
    Console().print(table)
    typer.echo("promptseg info NAME tells more; promptseg pull NAME downloads one that is not here.")


def _line(card: Card) -> tuple[str, ...]:
    from ..zoo import here

    there = "built in" if card.embedded else "yes" if here(card.name) else "no"
    size = f"{card.size_mb:.0f} MB"
    return card.name, card.family, "\n".join(card.tasks), "\n".join(card.prompts), size, card.code_license, card.weights_license, there

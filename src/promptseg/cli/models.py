"""``promptseg models``: the catalogue."""

from __future__ import annotations

import typer

from ..contracts import Card

__all__ = ["models"]

WIDTH = 110  # columns that the table needs


def models() -> None:
    """List every model that can be named: what it does, under which licence, and whether it is on this machine."""
    from rich.console import Console
    from rich.table import Table

    from ..zoo import cards

    table = Table(show_lines=True)
    for head in ("name\nfamily", "tasks", "prompts", "size", "here"):
        table.add_column(head, no_wrap=True)
    table.add_column("licence of the code\nand of the weights", overflow="fold", min_width=20)
    for card in cards():
        table.add_row(*_line(card))
    Console(width=max(Console().width, WIDTH)).print(table)  # a narrow terminal must not hide the licences
    typer.echo("promptseg info NAME tells more, also how to get one that is not here.")


def _line(card: Card) -> tuple[str, ...]:
    from ..zoo import size_on_disk

    stored = size_on_disk(card.name)
    there = "built in" if card.embedded else "no" if stored is None else "yes"
    size = f"{card.size_mb:.0f} MB\nfloat32" if stored is None else f"{stored / 1e6:.0f} MB\non disk"
    name, licences = f"{card.name}\n{card.family}", f"{card.code_license}\n{card.weights_license}"
    return name, "\n".join(card.tasks), "\n".join(card.prompts), size, there, licences

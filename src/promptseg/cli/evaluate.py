"""``promptseg eval``: the figures of a model on annotated photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Precision

if TYPE_CHECKING:
    from ..evaluation import Row

__all__ = ["evaluate"]


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with coco/, coco_person/, msrc/ and davis/.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of `promptseg models`, or a folder.")] = "pocket",
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Measure a model on the validation photographs and print the table, with what the project holds itself to."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from ..evaluation import Pocket
    from ..evaluation import evaluate as measure
    from ..segmenter import load

    segmenter = load(name, device=device, precision=precision)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        rows = measure(
            Pocket(data), segmenter, lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
        )
    table = Table("figure", "value", "floor", "aim", "", title=f"{segmenter.card.name}, {segmenter.precision}")
    for row in rows:
        table.add_row(*_line(row))
    console.print(table)


def _line(row: Row) -> tuple[str, ...]:
    sign = "<= " if row.smaller else ""
    limits = ("" if limit is None else f"{sign}{limit:.2f}" for limit in (row.floor, row.aim))
    return row.name, f"{row.value:.3f}", *limits, {None: "", True: "met", False: "missed"}[row.passed]

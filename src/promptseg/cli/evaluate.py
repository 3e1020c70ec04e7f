"""``promptseg eval``: a model's figures by a published protocol, or on one's own labelled photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from .options import Device, Precision
from .progress import progress_bar

if TYPE_CHECKING:
    from ..evaluation import Protocol, Table
    from ..segmenter import Segmenter

LIST = "list"

EPILOG = """[bold]Examples[/bold]

    promptseg eval list                                              what can be measured, and what it needs

    promptseg eval list phrasecut                                    its data, options and published figures

    promptseg eval own --data my-photos -o own.json                  the built-in model on your own labelled photos

    promptseg eval phrasecut --model clipseg-rd64 --data PhraseCut -o table.json

    promptseg eval pascal-zero-shot unseen=4 --model runs/zs2 --data VOCdevkit

Stopped with -o, the same command goes on where it stopped. Beside table.json lie then table.md, table.classes.csv, table.photos.csv and
table.png, a sheet of the best, median and worst cases."""

__all__ = ["EPILOG", "evaluate"]


def evaluate(
    name: Annotated[str, typer.Argument(metavar="PROTOCOL", help="What to measure; `list` shows all.")],
    options: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the protocol.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data lies: a folder; for own also a COCO .json.")] = None,
    models: Annotated[list[str] | None, typer.Option("--model", "-m", help="A model, or its folder; again for a table of several.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file for the table; the other files lie beside it.")] = None,
    per_part: Annotated[bool, typer.Option("--per-part", help="One model per part (fold) of the protocol, in order.")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Draws of the photos for the 95 % interval; 0: none.")] = 200,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Measure models by a protocol, beside the published figures and with all constants that the figures depend on."""
    if name == LIST:
        return _list(*(options or []))
    if data is None:
        raise typer.BadParameter(f"{name} needs the place of its data: --data ROOT. `promptseg eval list {name}` tells what lies there.")
    from .. import evaluation
    from ..segmenter import load

    protocol = evaluation.protocol(name, data, **_pairs(options or []))
    segmenters = [load(model, device=device, precision=precision) for model in models or ["pocket"]]
    groups = [segmenters] if per_part else [[segmenter] for segmenter in segmenters]
    tables = [_run(protocol, group, _place(output, len(groups), number), resamples) for number, group in enumerate(groups)]
    if len(tables) > 1:
        text = evaluation.comparison(tables)
        typer.echo(text)
        if output is not None:
            output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    return None


def _pairs(options: Sequence[str]) -> dict[str, str]:
    """``["unseen=4"]`` -> ``{"unseen": "4"}``.

    Raises:
        ConfigError: one has no equals sign.
    """
    if wrong := [option for option in options if "=" not in option]:
        raise ConfigError(f"{wrong[0]!r} is no option; options of a protocol are written key=value, and models are given with --model.")
    return dict(option.split("=", 1) for option in options)


def _place(output: Path | None, count: int, number: int) -> Path | None:
    """Each of several tables gets a number before its ending."""
    return output if output is None or count == 1 else output.with_suffix(f".{number + 1}{output.suffix}")


def _run(protocol: Protocol, segmenters: Sequence[Segmenter], output: Path | None, resamples: int) -> Table:
    from ..evaluation import evaluate as measure

    with progress_bar() as progress:
        task = progress.add_task("")

        def step(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        table = measure(protocol, segmenters, step, output=output, resamples=resamples)
    _print(table)
    if output is not None:
        typer.echo(f"Written: {output} and what lies beside it.")
    return table


def _print(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Printed

    head, lines = table.cells()
    printed = Printed(*head, title=table.protocol)
    for line in lines:
        printed.add_row(*line)
    Console().print(printed)
    typer.echo("; ".join(f"{name} {value}" for name, value in table.constants.items()))


def _list(name: str | None = None, *more: str) -> None:
    """All protocols, or one with its data, options and published figures."""
    from .. import evaluation

    if more:
        raise ConfigError(f"`promptseg eval list` shows one protocol at a time; {more[0]!r} is one word too many.")
    if name is None:
        width = max(map(len, evaluation.PROTOCOLS))
        for kind in evaluation.PROTOCOLS.values():
            typer.echo(f"{kind.NAME:<{width}}  {kind.TITLE}")
        typer.echo("promptseg eval list PROTOCOL shows its data, options and published figures.")
        return
    protocol = evaluation.protocol(name, ".")
    typer.echo(f"{name}: {protocol.TITLE}\nData: {protocol.DATA}\nAsks by: {', '.join(protocol.PROMPTS)}")
    given = evaluation.options(name)
    typer.echo("Options: " + (" ".join(f"{key}={value}" for key, value in given.items()) or "none"))
    for model, figures in protocol.published().items():
        typer.echo(f"{model}: " + ", ".join(f"{row} {value:.3f}" for row, value in figures.items()))

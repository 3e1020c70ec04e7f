"""``promptseg train``: run a recipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, TrainingStopped

if TYPE_CHECKING:
    from ..contracts import Recipe
    from ..training.estimate import Plan

INTERRUPTED = 130
LIST = "list"
EVERY = 100  # steps between two lines where there is no terminal to draw a bar on

__all__ = ["reporter", "train"]


def train(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A published recipe, or a file that changes one; `list` shows all.")
    ],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changed settings: lr=5e-4 options.size=320.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Root folder of the data.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for checkpoints and the trained model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed gives another model; the same one the same.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the newest checkpoint in the output folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show recipe, parameters, time and memory; train nothing.")] = False,
) -> None:
    """Train a model as a recipe says. A run that is stopped at any moment continues with --resume and ends with the same weights.

    promptseg train list                            # all recipes; list clipseg: those of one family

    promptseg train pocket --data ROOT --output runs/mine

    promptseg train mine.yaml lr=5e-4 --dry-run     # mine.yaml: "base: pocket" and what differs

    accelerate launch -m promptseg train pocket --data ROOT     # several GPUs
    """
    from .. import training
    from ..training.files import read, with_words
    from ..training.record import prepare

    if name == LIST:
        _list(*(changes or []))
        return
    recipe = read(name) if name.endswith((".yaml", ".yml")) else training.recipe(name)
    recipe = with_words(_given(recipe, data=data and str(data), output=output and str(output), seed=seed), changes or [])
    following = training.stages(recipe)
    if dry_run:
        _show(training.plan(following[0], log=_quiet))
        for stage in following[1:]:
            typer.echo(f"Then {stage.name}: {stage.steps} steps of {stage.batch_size}, which go on from its result.")
        return
    main = os.environ.get("RANK", "0") == "0"  # as torchrun and accelerate number their processes; one of them speaks
    say = typer.echo if main else _nothing
    prepare(recipe, resume)  # complain before an earlier training, not after
    try:
        for stage in following:
            say(f"{stage.name}: {stage.steps} steps of {stage.batch_size} from {stage.data} to {stage.output}")
            with reporter(stage.steps) if main else nullcontext() as report:
                goes_on = resume if stage is recipe else training.begun(stage)
                folder = training.train(stage, resume=goes_on, report=report, log=say)
    except TrainingStopped:
        if main:
            raise
        raise typer.Exit(INTERRUPTED) from None
    say(f"Trained: {folder}. Measure it on your photos: promptseg eval own --model {folder} --data PHOTOS; promptseg eval list has more.")


def _list(family: str = "", *more: str) -> None:
    """All recipes, or those of a family, and what sets them apart."""
    from .. import training

    if more:
        raise ConfigError(f"`promptseg train list` shows one family at a time; {more[0]!r} is one word too many.")
    shown = {name: make for name, make in training.recipes().items() if name.startswith(family)}
    if not shown:
        raise ConfigError(f"No recipe begins with {family!r}; `promptseg train list` shows all.")
    width = max(map(len, shown))
    for name, make in shown.items():
        about = (getattr(make, "func", make).__doc__ or "").partition("\n")[0]
        typer.echo(f"{name:<{width}}  {about}".rstrip())
    typer.echo("promptseg train RECIPE --dry-run shows one whole, its data, its steps and what it would take.")


def _given(recipe: Recipe, **given: Any) -> Recipe:
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})


def _nothing(line: str) -> None:
    pass


def _quiet(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def reporter(steps: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A bar with losses, pace, memory and remaining time on a terminal; a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield lambda step, figures: _line(steps, step, figures)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps)

        def report(step: int, figures: Mapping[str, float]) -> None:
            progress.update(task, completed=step + 1, description=_words(figures))

        yield report


def _line(steps: int, step: int, figures: Mapping[str, float]) -> None:
    if step % EVERY == 0 or step + 1 == steps:
        typer.echo(f"step {step:>6}  {_words(figures)}")


def _words(figures: Mapping[str, float]) -> str:
    losses = {key: value for key, value in figures.items() if key not in ("rate", "seconds", "memory_mb")}
    named = "  ".join(f"{key} {value:.4f}" for key, value in losses.items())
    return f"{named}  rate {figures['rate']:.2e}  {figures['seconds']:.2f} s  {figures['memory_mb']:.0f} MB"


def _show(plan: Plan) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from ..zoo.configs import to_plain

    console = Console()
    console.print_json(json.dumps(to_plain(plan.recipe), default=str))
    table = Table("group", "parameters", "rate", "weight decay")
    for group in plan.groups:
        table.add_row(group.pattern or "all others", f"{group.count:,}", f"{group.lr:g}", f"{group.weight_decay:g}")
    table.add_row("trainable", f"{plan.trainable:,}", "", "")
    table.add_row("frozen", f"{plan.total - plan.trainable:,}", "", "")
    table.add_row("all", f"{plan.total:,}", "", "")
    console.print(table)
    console.print(f"One measured step: {plan.seconds:.2f} s, {plan.memory_mb:.0f} MB.")
    console.print(f"{plan.recipe.steps} steps of {plan.recipe.batch_size}: about {_duration(plan.hours)}.")


def _duration(hours: float) -> str:
    minutes = round(60 * hours)
    return f"{hours:.1f} hours" if minutes >= 60 else f"{minutes} minutes" if minutes > 1 else "a minute"

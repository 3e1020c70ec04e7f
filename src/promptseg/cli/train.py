"""``promptseg train``: run a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..contracts import Recipe

EVERY = 100  # steps between two lines

__all__ = ["train"]


def train(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, such as pocket; a wrong one lists them all.")],
    data: Annotated[Path | None, typer.Option(help="Root folder of the data.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for checkpoints and the trained model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed gives another model; the same one the same.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the newest checkpoint in the output folder.")] = False,
) -> None:
    """Train a model as a published recipe says. An interrupted run continues with --resume and ends with the same weights."""
    from .. import training

    recipe = _changed(training.recipe(name), data=data and str(data), output=output and str(output), seed=seed)
    typer.echo(f"{recipe.name}: {recipe.steps} steps of {recipe.batch_size} from {recipe.data} to {recipe.output}")

    def report(step: int, losses: dict[str, float]) -> None:
        if step % EVERY == 0 or step + 1 == recipe.steps:
            typer.echo(f"step {step:>6}  " + "  ".join(f"{key} {value:.4f}" for key, value in losses.items()))

    folder = training.train(recipe, resume=resume, report=report, log=typer.echo)
    typer.echo(
        f"Trained: {folder}. Measure it on your photos: promptseg eval own --model {folder} --data PHOTOS; promptseg eval list has more."
    )


def _changed(recipe: Recipe, **given: Any) -> Recipe:
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})

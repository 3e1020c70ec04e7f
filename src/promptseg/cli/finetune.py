"""``promptseg finetune``: a better model from one's own labelled photos."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .train import reporter

__all__ = ["finetune"]

EPILOG = """[bold]Examples[/bold]

    promptseg finetune my-photos -o runs/mine

    promptseg finetune labels.json --preset lora --minutes 10 -o runs/mine

    promptseg finetune my-photos --classes "hair, trousers=pants+jeans" -o runs/mine

    promptseg segment photo.jpg "trousers" --model runs/mine"""


class Preset(StrEnum):
    """What learns."""

    head = "head"
    lora = "lora"
    full = "full"


def finetune(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Images and masks, a COCO JSON, a YOLO-seg folder or tar shards.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the preset: lr=5e-4.")] = None,
    model: Annotated[str, typer.Option(help="A model of `promptseg models`, or the folder of an earlier fine-tuning.")] = "pocket",
    preset: Annotated[Preset, typer.Option(help="The decoder, or one beside it; low-rank adapters; everything.")] = Preset.head,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model, the table and the pictures.")] = Path(
        "runs/finetune"
    ),
    classes: Annotated[
        str | None, typer.Option(help="Only these, with commas between; WORDS=NAME+NAME asks for classes of the data in other words.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="How long; without it, as the preset says.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="How long training may take, about.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another model; the same one the same.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
) -> None:
    """Fine-tune a model on your own photos: labels are checked, a part is held out, and a table shows every class before and after.

    DATA is in one of the forms of `promptseg data list own`. The result is a model: promptseg segment photo.jpg "..." --model FOLDER.
    """
    from ..data.own_names import asked_of
    from ..training import finetune as run

    asked = None if classes is None else asked_of(classes)
    result = run(
        data, model=model, preset=preset, output=output, classes=asked, steps=steps, minutes=minutes, resume=resume, seed=seed,
        changes=changes or (), progress=reporter, log=typer.echo,
    )  # fmt: skip
    typer.echo(f"\n{result}\n\n{output} holds the model, this table and before-after.png.")

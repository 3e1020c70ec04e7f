"""``promptseg instances``: every object of the classes that a detector knows, for any number of photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    MAX_PIXELS,
    Device,
    Formats,
    MaxPixels,
    Output,
    Overwrite,
    Precision,
    ScoreMaps,
    Threshold,
    listed,
    ready,
    score_maps,
)
from .outputs import OutputFolder, Row, model_stamp

if TYPE_CHECKING:
    from ..results import Instances

EPILOG = """[bold]Examples[/bold]

    promptseg instances street.jpg

    promptseg instances street.jpg person bicycle -m denseclip-maskrcnn-r101

    promptseg instances photos/ dog --threshold 0.5 -o dogs --format overlay,coco

Exit code 3: some photos could not be read or written; the others are done."""


def instances(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO... [CLASS...]", help="Photos, folders and globs; whatever is none of these is a class to look for."),
    ],
    classes: Annotated[list[str] | None, typer.Option("--class", "-c", help="A class, even if a file has that name. Repeatable.")] = None,
    threshold: Threshold = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A detector (`promptseg models`), or a checkpoint folder.")] = (
        "denseclip-maskrcnn-r50"
    ),
    output: Output = Path("instances"),
    formats: Formats = "overlay,png",
    long: Annotated[int | None, typer.Option(help="DenseCLIP: longest side, in pixels, of the photo as it is shown; default 1333.")] = None,
    short: Annotated[
        int | None, typer.Option(help="The same of the shorter side; default 800. Less is quicker and misses small things.")
    ] = None,
    scores: ScoreMaps = False,
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Find every object of the classes that a detector was trained on, each with a mask of its own."""
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, classes or (), output=output, need_prompt=False, option="--class")
    wanted = listed(formats, tuple(FORMATS), "format")
    request: dict[str, Any] = {"command": "instances", "classes": given.prompts, "threshold": threshold, "model": model_stamp(model)}
    own = {"long": long, "short": short}
    request |= {"formats": wanted, **own, "scores": scores}

    from .batch import run

    segmenter = ready(model, "instances", device=device, precision=precision, max_pixels=max_pixels)
    options, names = segmenter.options(**own), given.prompts or None

    def ask(photo: Path) -> tuple[Instances, list[Row]]:
        found = segmenter.instances(photo, names, threshold=threshold, options=options)
        return found, _rows(found)

    besides = score_maps(segmenter, names, options) if scores else None
    run(given.photos, OutputFolder(output, request), ask, wanted, overwrite, besides)


def _rows(found: Instances) -> list[Row]:
    pixels = found.size[0] * found.size[1]
    return [Row(label, True, mask.score, mask.area / pixels) for label, mask in zip(found.labels, found, strict=True)]

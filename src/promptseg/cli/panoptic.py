"""``promptseg panoptic``: every pixel's class, and the object that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import MAX_PIXELS, Device, Formats, MaxPixels, Model, Output, Overwrite, Precision, listed, ready, synonyms
from .outputs import OutputFolder, Row, model_stamp

if TYPE_CHECKING:
    from ..maps import PanopticMap

EPILOG = """[bold]Examples[/bold]

    promptseg panoptic street.jpg

    promptseg panoptic photos/ --thing car --thing person --stuff road --stuff sky -o found

Exit code 3: some photos could not be read or written; the others are done."""


def panoptic(
    arguments: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos, folders and globs.")],
    things: Annotated[
        list[str] | None, typer.Option("--thing", help="A class whose objects are told apart; 'car, automobile' is one. Repeatable.")
    ] = None,
    stuff: Annotated[list[str] | None, typer.Option("--stuff", help="A class that is one region. Repeatable.")] = None,
    model: Model = "psalm",
    output: Output = Path("panoptic"),
    formats: Formats = "overlay,png",
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Divide photos into objects and regions; without names, those of the classes that the model was trained with."""
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, output=output, need_prompt=False)
    if given.prompts:
        raise typer.BadParameter(f"{given.prompts[0]!r} is no photo, folder or glob; classes are named with --thing and --stuff.")
    wanted = listed(formats, tuple(FORMATS), "format")
    request: dict[str, Any] = {"command": "panoptic", "things": things, "stuff": stuff, "model": model_stamp(model), "formats": wanted}

    from .batch import run

    segmenter = ready(model, "panoptic", device=device, precision=precision, max_pixels=max_pixels)

    def ask(photo: Path) -> tuple[PanopticMap, list[Row]]:
        found = segmenter.panoptic(photo, things and synonyms(things), stuff and synonyms(stuff))
        return found, _rows(found)

    run(given.photos, OutputFolder(output, request), ask, wanted, overwrite)


def _rows(found: PanopticMap) -> list[Row]:
    pixels = found.size[0] * found.size[1]
    numbers = zip(found.segments, found.areas, strict=True)
    return [Row(segment.label, True, float(segment.score), float(area / pixels)) for segment, area in numbers]

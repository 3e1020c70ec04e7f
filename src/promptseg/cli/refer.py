"""``promptseg refer``: what an expression means, none, one or many things."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import MAX_PIXELS, Device, Formats, MaxPixels, Model, Output, Overwrite, Precision, listed, ready
from .outputs import OutputFolder, Row, model_stamp

if TYPE_CHECKING:
    from ..results import Masks

EPILOG = """[bold]Examples[/bold]

    promptseg refer photo.jpg "the cup on the left"

    promptseg refer photos/ "everybody in red" "the man without a hat" -o found

Exit code 3: some photos could not be read or written; the others are done."""


def refer(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="PHOTO... EXPRESSION...", help="Photos, folders and globs; whatever is none of these is an expression."),
    ],
    model: Model = "psalm",
    output: Output = Path("referred"),
    formats: Formats = "overlay,png",
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Find what expressions mean in photos: one mask per expression, of all things that it means."""
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, output=output)
    wanted = listed(formats, tuple(FORMATS), "format")
    request: dict[str, Any] = {"command": "refer", "expressions": given.prompts, "model": model_stamp(model), "formats": wanted}

    from ..results import Masks
    from .batch import run

    segmenter = ready(model, "refer", device=device, precision=precision, max_pixels=max_pixels)

    def ask(photo: Path) -> tuple[Masks, list[Row]]:
        shown = segmenter.embed_image(photo)
        masks = [segmenter.refer(shown, expression)[0] for expression in given.prompts]
        found = Masks(masks, shown.size, photo=photo, model=segmenter.card.name)
        return found, [Row.of(mask) for mask in found]

    run(given.photos, OutputFolder(output, request), ask, wanted, overwrite)

"""``promptseg segment``: one mask per prompt, for any number of photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import PromptError
from .options import MAX_PIXELS, Device, Formats, MaxPixels, Model, Output, Overwrite, Precision, Threshold, Tile, listed, ready
from .outputs import OutputFolder, Row, model_stamp, stamp

if TYPE_CHECKING:
    from ..prompts import Exemplar
    from ..results import Masks

EPILOG = """[bold]Examples[/bold]

    promptseg segment photo.jpg "a dog" "the grass"

    promptseg segment holiday/ more/*.png "a red car" --negative "a bus" -o found --format overlay,coco

    promptseg segment shelf.jpg --exemplar cup.jpg cup-mask.png

    promptseg segment photo.jpg --exemplar photo.jpg 120,80,260,200     (more of what is in this box)

[bold]What is written[/bold]

    out/PHOTO/overlay.png, out/PHOTO/masks/000-a-dog.png and so on: a photo that is already done is skipped.
    Exit code 3: some photos could not be read or written; the others are done."""


def segment(
    arguments: Annotated[
        list[str], typer.Argument(metavar="PHOTO... PROMPT...", help="Photos, folders and globs; whatever is none of these is a prompt.")
    ],
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt, even if a file has that name. Repeatable.")] = None,
    exemplar: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="IMAGE MASK", help="Show an example: a photo, and a mask file or box X0,Y0,X1,Y1 of the thing in it."),
    ] = None,
    negative: Annotated[list[str] | None, typer.Option(help="What must not be in the masks. Repeatable.")] = None,
    model: Model = "pocket",
    threshold: Threshold = None,
    output: Output = Path("out"),
    formats: Formats = "overlay,png",
    upsample: Annotated[Literal["bilinear", "guided"], typer.Option(help="bilinear, or guided by the photo's edges.")] = "bilinear",
    tile: Tile = None,
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Find what you say, or show, in photos: one mask per prompt."""
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, prompt or (), output=output, need_prompt=exemplar is None, option="--prompt")
    wanted = listed(formats, tuple(FORMATS), "format")
    request: dict[str, Any] = {"command": "segment", "prompts": given.prompts, "exemplar": exemplar and [*exemplar, *map(stamp, exemplar)]}
    request |= {
        "negative": negative,
        "model": model_stamp(model),
        "threshold": threshold,
        "formats": wanted,
        "upsample": upsample,
        "tile": tile,
    }

    from ..prompts import as_prompts
    from .batch import run

    asked = as_prompts([*given.prompts, *([_example(*exemplar)] if exemplar else [])])
    segmenter = ready(model, "masks", asked, device=device, precision=precision, max_pixels=max_pixels)
    prompts = segmenter.embed_prompts(asked)
    unwanted = segmenter.embed_prompts(negative or [])
    options = segmenter.options(tile=tile)

    def ask(photo: Path) -> tuple[Masks, list[Row]]:
        masks = segmenter(photo, prompts, negative=unwanted, threshold=threshold, upsample=upsample, options=options)
        return masks, [Row.of(mask) for mask in masks]

    run(given.photos, OutputFolder(output, request), ask, wanted, overwrite)


def _example(image: str, region: str) -> Exemplar:
    """``region``: a mask file, or a box as four numbers."""
    from ..prompts import Exemplar

    numbers = region.split(",")
    if len(numbers) != 4 or Path(region).exists():
        return Exemplar(image, mask=region)
    try:
        x0, y0, x1, y1 = map(float, numbers)
    except ValueError:
        raise PromptError(f"{region!r} is neither a mask file nor a box X0,Y0,X1,Y1 in pixels.") from None
    return Exemplar(image, box=(x0, y0, x1, y1))

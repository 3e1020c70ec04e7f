"""``promptseg semantic``: the most probable class of every pixel, for any number of photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contracts import probability
from .options import (
    MAX_PIXELS,
    Device,
    Formats,
    MaxPixels,
    Mode,
    Model,
    Output,
    Overwrite,
    Precision,
    ScoreMaps,
    Templates,
    Tile,
    Vocabulary,
    listed,
    ready,
    score_maps,
    synonyms,
    vocabulary,
)
from .outputs import OutputFolder, Row, model_stamp

if TYPE_CHECKING:
    from ..maps import SemanticMap

EPILOG = """[bold]Examples[/bold]

    promptseg semantic street.jpg road sky building car

    promptseg semantic photo.jpg "a dog" grass --background 0.5

    promptseg semantic street.jpg road sky building car -m catseg-base --mode whole

    promptseg semantic street.jpg --vocabulary ade150 "my red bicycle" -m catseg-base

    promptseg semantic photos/ water forest field -o found --format overlay,png,coco

Exit code 3: some photos could not be read or written; the others are done."""


def semantic(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO... CLASS...",
            help="Photos, folders and globs; whatever is none of these is a class. Synonyms of one class: 'car, automobile'.",
        ),
    ],
    classes: Annotated[list[str] | None, typer.Option("--class", "-c", help="A class, even if a file has that name. Repeatable.")] = None,
    listing: Vocabulary = None,
    background: Annotated[
        str | None,
        typer.Option(
            help="What stays unlabelled: pixels up to a probability (0 to 1; 0 labels all), or those of names, joined by commas; "
            "default: the model's rule."
        ),
    ] = None,
    model: Model = "pocket",
    output: Output = Path("maps"),
    formats: Formats = "overlay,png",
    tile: Tile = None,
    fit: Annotated[
        str | None, typer.Option(help="How a photo is fitted into the network's input: stretch, letterbox or native; default: the model's.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the network's input in pixels, or as the model counts; larger finds smaller things.")
    ] = None,
    mode: Mode = None,
    crop: Annotated[int | None, typer.Option(help="GroupViT: side of the windows, in pixels of the resized photo.")] = None,
    stride: Annotated[int | None, typer.Option(help="GroupViT: pixels from one window to the next.")] = None,
    templates: Templates = None,
    max_classes: Annotated[
        int | None, typer.Option(help="CAT-Seg: refine only so many classes, those most like some place of the photo; approximate.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="CAT-Seg: of more than 256 classes refine the 256 nearest, as the published code does.")
    ] = False,
    merging: Annotated[
        str | None, typer.Option("--synonyms", help="A class of several names is asked for each, max, or once for their mean, mean.")
    ] = None,
    scores: ScoreMaps = False,
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Give every pixel the most probable of some classes, or none where all are improbable."""
    from ..data.vocabularies import read_templates
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, classes or (), output=output, need_prompt=False, option="--class")
    wanted = listed(formats, tuple(FORMATS), "format")
    asked = [*vocabulary(listing), *given.prompts]
    worded = None if templates is None else read_templates(templates)
    request: dict[str, Any] = {"command": "semantic", "classes": asked, "background": background, "model": model_stamp(model)}
    own = {"tile": tile, "fit": fit, "size": size, "mode": mode, "crop": crop, "stride": stride}
    own |= {"max_classes": max_classes, "truncate": truncate or None, "synonyms": merging}
    request |= {"formats": wanted, **own, "templates": worded, "scores": scores}

    from .batch import run

    nothing = _background(background)
    segmenter = ready(model, "semantic", device=device, precision=precision, max_pixels=max_pixels)
    options, names = segmenter.options(**own, templates=worded), synonyms(asked) or None

    def ask(photo: Path) -> tuple[SemanticMap, list[Row]]:
        found = segmenter.semantic(photo, names, background=nothing, options=options)
        return found, _rows(found, nothing if isinstance(nothing, list) else ())

    besides = score_maps(segmenter, names, options) if scores else None
    run(given.photos, OutputFolder(output, request), ask, wanted, overwrite, besides)


def _background(text: str | None) -> float | list[str] | None:
    """A number is a threshold, anything else are names.

    Raises:
        ConfigError: the number is no probability.
    """
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return [name.strip() for name in text.split(",") if name.strip()]
    return probability("background, where it is no name,", number)


def _rows(found: SemanticMap, background: Sequence[str]) -> list[Row]:
    """One per class that was asked for; the names of the background own no pixel and say nothing."""
    pixels = found.size[0] * found.size[1]
    numbers = zip(found.classes, found.scores, found.areas, strict=True)
    return [Row(name, bool(area), float(score), float(area / pixels)) for name, score, area in numbers if name not in background]

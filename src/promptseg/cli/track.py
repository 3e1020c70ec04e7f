"""``promptseg track``: the objects of the first frame through all others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contracts import MAX_PIXELS
from ..errors import ImageError
from .marks import Box, MaskFile, Point, Scribble, marks
from .options import Device, Formats, MaxPixels, Model, Output, Precision, listed

if TYPE_CHECKING:
    from ..results import Masks

EPILOG = """[bold]Examples[/bold]

    promptseg track frames/ --objects first.png -o tracked

    promptseg track frames/ --point 120,80 --box 10,20,200,150

Frames are taken in the order of their names. labels/FRAME.png holds each frame's objects as numbers, 0 where there is none."""


def track(
    arguments: Annotated[list[str], typer.Argument(metavar="FRAME...", help="Frames, folders and globs, in the order of time.")],
    objects: Annotated[
        Path | None, typer.Option(help="A picture of the first frame's objects: every value but 0 is one (an index PNG, as of DAVIS).")
    ] = None,
    points: Point = None,
    boxes: Box = None,
    scribbles: Scribble = None,
    masks: MaskFile = None,
    model: Model = "psalm",
    output: Output = Path("tracked"),
    formats: Formats = "overlay",
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Follow objects through the frames of a video, from their masks, or marks on them, in the first frame."""
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, need_prompt=False)
    if given.prompts:
        raise typer.BadParameter(f"{given.prompts[0]!r} is no photo, folder or glob.")
    if objects is not None and (points or boxes or scribbles or masks):
        raise typer.BadParameter("Say the first frame's objects in one way: --objects, or marks on them.")
    wanted = listed(formats, tuple(FORMATS), "format")
    start: Any = marks(points, boxes, scribbles, masks) if objects is None else _objects(objects)

    from ..segmenter import load

    segmenter = load(model, device=device, precision=precision, max_pixels=max_pixels)
    labels = output / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    for frame, found in zip(given.photos, segmenter.track(given.photos, start), strict=True):
        found.save(output / frame.stem, wanted)
        (labels / f"{frame.stem}.png").write_bytes(_index(found))
        typer.echo(f"{frame}: {', '.join(f'{mask.label} {mask.area / (mask.size[0] * mask.size[1]):.1%}' for mask in found)}")
    typer.echo(f"{len(given.photos)} frames in {output}")


def _objects(path: Path) -> Any:
    """(K, H, W) bool, one for every value but 0.

    Raises:
        ImageError: the picture cannot be read, or holds nothing but 0.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as picture:
            values = np.asarray(picture if picture.mode in ("P", "L", "1", "I;16", "I") else picture.convert("L")).astype(np.int64)
    except OSError as error:
        raise ImageError(f"{path} cannot be read as a picture: {error}.") from None
    found = [values == value for value in np.unique(values) if value]
    if not found:
        raise ImageError(f"{path} marks no object: every pixel is 0. Give each object of the first frame a value of its own.")
    return np.stack(found)


def _index(found: Masks) -> bytes:
    """The objects as numbers from 1; where two overlap the later one stands."""
    import numpy as np

    from ..maps import SemanticMap

    index = np.full(found.size, -1, np.int16)
    for number, mask in enumerate(found):
        index[mask.mask] = number
    return SemanticMap(index, [f"{number} {label}" for number, label in enumerate(found.labels, 1)]).to_png()

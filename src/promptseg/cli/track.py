"""``promptseg track``: the objects of the first frame through all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contracts import MAX_PIXELS
from ..errors import ExportError, ImageError
from .marks import Box, MaskFile, Point, Scribble, marks
from .options import Device, Formats, MaxPixels, Model, Output, Precision, listed, ready

if TYPE_CHECKING:
    from ..results import Masks

EPILOG = """[bold]Examples[/bold]

    promptseg track frames/ --objects first.png -o tracked

    promptseg track frames/ --point 120,80 --box 10,20,200,150

Frames are taken in the order of their names. labels/FRAME.png holds each frame's objects as the values of --objects, or numbers from 1; 0
where there is none."""

LARGEST = 2**16 - 1  # value of an index PNG


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Track again frames that the output folder holds already.")] = False,
) -> None:
    """Follow objects through the frames of a video, from their masks, or marks on them, in the first frame."""
    from ..writers import FORMATS
    from .photos import sort_arguments

    given = sort_arguments(arguments, output=output, need_prompt=False)
    if given.prompts:
        raise typer.BadParameter(f"{given.prompts[0]!r} is no photo, folder or glob.")
    if objects is not None and (points or boxes or scribbles or masks):
        raise typer.BadParameter("Say the first frame's objects in one way: --objects, or marks on them.")
    wanted = listed(formats, tuple(FORMATS), "format")
    prompts = marks(points, boxes, scribbles, masks) if objects is None else []
    start: Any = prompts
    values: Sequence[int] = range(1, len(prompts) + 1)
    if objects is not None:
        start, values = _objects(objects)
    _check_places(given.photos, output, overwrite)

    segmenter = ready(model, "track", prompts, device=device, precision=precision, max_pixels=max_pixels)
    labels = output / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    for frame, found in zip(given.photos, segmenter.track(given.photos, start), strict=True):
        found.save(output / frame.stem, wanted)
        (labels / f"{frame.stem}.png").write_bytes(_index(found, values))
        typer.echo(f"{frame}: {', '.join(f'{mask.label} {mask.area / (mask.size[0] * mask.size[1]):.1%}' for mask in found)}")
    typer.echo(f"{len(given.photos)} frames in {output}")


def _check_places(frames: Sequence[Path], output: Path, overwrite: bool) -> None:
    """Every frame has a place of its own, where nothing is yet.

    Raises:
        ExportError: two frames have one name, or one has results already.
    """
    seen: dict[str, Path] = {}
    for frame in frames:
        if frame.stem in seen:
            raise ExportError(f"{seen[frame.stem]} and {frame} have one name, which their results would share. Track one folder at a time.")
        seen[frame.stem] = frame
        for place in (output / "labels" / f"{frame.stem}.png", output / frame.stem):
            if place.exists() and not overwrite:
                raise ExportError(f"{place} is there already. Choose another folder with -o, or write over it with --overwrite.")


def _objects(path: Path) -> tuple[Masks, list[int]]:
    """One mask for every value but 0, and the values.

    Raises:
        ImageError: the picture cannot be read, holds nothing but 0, or values that no index PNG holds.
    """
    import numpy as np
    from PIL import Image

    from ..masks import Mask
    from ..results import Masks

    try:
        with Image.open(path) as picture:
            values = np.asarray(picture if picture.mode in ("P", "L", "1", "I;16", "I") else picture.convert("L")).astype(np.int64)
    except OSError as error:
        raise ImageError(f"{path} cannot be read as a picture{f': {error.strerror}' if error.strerror else ''}.") from None
    found = [value for value in np.unique(values).tolist() if value]
    if not found:
        raise ImageError(f"{path} marks no object: every pixel is 0. Give each object of the first frame a value of its own.")
    if found[0] < 0 or found[-1] > LARGEST:
        raise ImageError(f"{path} has values from {found[0]} to {found[-1]}; number the objects with values up to {LARGEST}.")
    masks = [Mask.from_array(values == value, f"object {value}") for value in found]
    return Masks(masks, (values.shape[0], values.shape[1])), found


def _index(found: Masks, values: Sequence[int]) -> bytes:
    """The objects as their values; where two overlap the later one stands."""
    import numpy as np

    from ..drawing import palette, palette_png
    from ..masks import png

    index = np.full(found.size, -1, np.int32)
    for value, mask in zip(values, found, strict=True):
        index[mask.mask] = value - 1
    return png(palette_png(index, palette(max(values))))

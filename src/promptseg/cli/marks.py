"""Points, boxes, scribbles and masks on a command line, and ``promptseg click``, which asks with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PromptError
from .options import MAX_PIXELS, Device, Formats, MaxPixels, Model, Output, Overwrite, Precision, listed, ready
from .outputs import OutputFolder, Row, model_stamp, stamp

if TYPE_CHECKING:
    from ..prompts import Prompt
    from ..results import Masks

EPILOG = """[bold]Examples[/bold]

    promptseg click photo.jpg --point 120,80

    promptseg click photo.jpg --point "120,80 140,95" --box 10,20,200,150 --scribble "5,5 40,60 80,60" --mask part.png

Each of these is one object; all are asked for at once. Coordinates are pixels of the upright photo, x,y."""

Point = Annotated[list[str] | None, typer.Option("--point", help='Clicks on one object: "X,Y" or "X,Y X,Y". Repeatable.')]
Box = Annotated[list[str] | None, typer.Option("--box", help="A box around an object: X0,Y0,X1,Y1. Repeatable.")]
Scribble = Annotated[list[str] | None, typer.Option("--scribble", help='A line through an object: "X,Y X,Y X,Y". Repeatable.')]
MaskFile = Annotated[list[str] | None, typer.Option("--mask", help="A picture, white on (part of) an object. Repeatable.")]

__all__ = ["Box", "MaskFile", "Point", "Scribble", "click", "marks"]


def click(
    photo: Annotated[str, typer.Argument(metavar="PHOTO", help="One photo.")],
    points: Point = None,
    boxes: Box = None,
    scribbles: Scribble = None,
    masks: MaskFile = None,
    model: Model = "psalm",
    output: Output = Path("clicked"),
    formats: Formats = "overlay,png",
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Find the objects that are pointed at, boxed or drawn on: one mask for each."""
    from ..writers import FORMATS

    prompts = marks(points, boxes, scribbles, masks)
    wanted = listed(formats, tuple(FORMATS), "format")
    request: dict[str, Any] = {"command": "click", "marks": [points, boxes, scribbles, masks], "files": [*map(stamp, masks or ())]}
    request |= {"model": model_stamp(model), "formats": wanted}

    from .batch import run

    segmenter = ready(model, "masks", prompts, device=device, precision=precision, max_pixels=max_pixels)

    def ask(path: Path) -> tuple[Masks, list[Row]]:
        found = segmenter(path, prompts)
        return found, [Row.of(mask) for mask in found]

    run([Path(photo)], OutputFolder(output, request), ask, wanted, overwrite)


def marks(
    points: Sequence[str] | None, boxes: Sequence[str] | None, scribbles: Sequence[str] | None, masks: Sequence[str] | None
) -> list[Prompt]:
    """One prompt per option: points, then boxes, scribbles and masks.

    Raises:
        PromptError: there is none, or one is no list of coordinates.
    """
    from .. import prompts

    found: list[Prompt] = [prompts.Points(_pairs(text, "--point")) for text in points or ()]
    found += [_box(text) for text in boxes or ()]
    found += [prompts.Scribble(_pairs(text, "--scribble")) for text in scribbles or ()]
    found += [prompts.MaskPrompt(file) for file in masks or ()]
    if not found:
        raise PromptError("Nothing is pointed at. Give --point X,Y, --box X0,Y0,X1,Y1, --scribble 'X,Y X,Y' or --mask FILE.")
    return found


def _box(text: str) -> Prompt:
    """``"1,2,3,4"``."""
    from ..prompts import Box

    try:
        x0, y0, x1, y1 = (float(number) for number in text.split(","))
    except ValueError:
        raise PromptError(f"--box {text!r} is not X0,Y0,X1,Y1 in pixels.") from None
    return Box(x0, y0, x1, y1)


def _pairs(text: str, option: str) -> tuple[tuple[float, float], ...]:
    """``"1,2 3,4"``."""
    try:
        pairs = [tuple(float(number) for number in pair.split(",")) for pair in text.split()]
        return tuple((x, y) for x, y in pairs)
    except ValueError:
        raise PromptError(f"{option} {text!r} is not X,Y in pixels, or several of them with blanks between.") from None

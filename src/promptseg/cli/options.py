"""Options that several commands share, so that they are called and explained alike."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..contracts import MAX_PIXELS, Task
from ..devices import PRECISIONS
from ..errors import ConfigError, nearest

if TYPE_CHECKING:
    from ..contracts import Options
    from ..prompts import Prompt
    from ..segmenter import Segmenter
    from ..semantics import ClassNames

__all__ = [
    "MAX_PIXELS",
    "Device",
    "Formats",
    "MaxPixels",
    "Mode",
    "Model",
    "Output",
    "Overwrite",
    "Precision",
    "ScoreMaps",
    "Templates",
    "Threshold",
    "Tile",
    "Vocabulary",
    "listed",
    "ready",
    "score_maps",
    "synonyms",
    "vocabulary",
]


def _a_number(value: float | None) -> float | None:
    """Refuses NaN, which no limit of older typers does."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no probability; give a number from 0 to 1.")
    return value


Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model (`promptseg models`), or a checkpoint folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}; auto takes bfloat16 where it is fast.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results; each photo gets a folder in it.")]
Formats = Annotated[str, typer.Option("--format", "-f", help="Any of overlay, png, coco, geojson, yolo, npz, joined by commas.")]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, callback=_a_number, help="Probability above which a pixel counts; default: the model's."),
]
Tile = Annotated[
    int | None, typer.Option(help="Show large photos in overlapping windows of so many pixels: finds smaller things, takes longer.")
]
Mode = Annotated[
    str | None, typer.Option(help="CAT-Seg, DenseCLIP, GroupViT: slide (windows over the photo, as published) or whole (one look, faster).")
]
Vocabulary = Annotated[
    str | None,
    typer.Option(
        "--vocabulary",
        metavar="NAME|FILE",
        help="Classes of a published list, such as ade150 or coco-stuff171, or of a text file, one per line. They come first.",
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Wordings of class names, averaged: a published set, such as photo or imagenet80, or a text file with one per line, each with "
        "a {} for the name; default: the model's.",
    ),
]
ScoreMaps = Annotated[bool, typer.Option("--score-maps", help="DenseCLIP: also a picture per class of how well it fits where, in scores/.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Refuse larger photos, before they are decoded.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Segment again what an earlier run has done.")]


def listed(text: str, allowed: tuple[str, ...], what: str) -> list[str]:
    """``"a, b"`` -> ``["a", "b"]``.

    Raises:
        ConfigError: nothing is left, or an entry is not allowed.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in allowed:
            raise ConfigError(f"{name!r} is no {what}; allowed: {', '.join(allowed)}.{nearest(name, allowed)}")
    if not names:
        raise ConfigError(f"No {what} was given; allowed: {', '.join(allowed)}.")
    return names


def synonyms(names: Sequence[str]) -> list[str | list[str]]:
    """``["road", "car, automobile"]`` -> ``["road", ["car", "automobile"]]``: names joined by commas are one class."""
    split = [[word.strip() for word in name.split(",") if word.strip()] for name in names]
    return [words if len(words) > 1 else name for name, words in zip(names, split, strict=True)]


def vocabulary(given: str | None) -> list[str]:
    """Classes, the synonyms of one joined by commas: a list that ships, by its name, or a text file with one class per line; None: none.

    The entry "background" of a published list is left out: it stands for what is none of the classes.

    Raises:
        DataError: it is neither, or the file cannot be read or holds no class.
    """
    from ..data.vocabularies import available, read_classes

    if given is None:
        return []
    return [", ".join(words) for words in read_classes(given) if words != ("background",) or given not in available()]


def ready(model: str, task: Task, prompts: Sequence[Prompt] = (), *, device: str, precision: str, max_pixels: int) -> Segmenter:
    """The segmenter of a command. What a model cannot be asked at all is said before its weights are looked for, let alone downloaded.

    Raises:
        UnsupportedTask, UnsupportedPrompt, and what `segmenter.load` raises.
    """
    from .. import zoo
    from ..abilities import kind_of, require_kinds, require_task

    if (card := zoo.known(model)) is not None:
        require_task(card, task)
        require_kinds(card, map(kind_of, prompts))
    _import_torch()
    from ..segmenter import load

    return load(model, device=device, precision=precision, max_pixels=max_pixels)


def _import_torch() -> None:
    """Without searching its objects, which stay, for cycles: not now, not later, not at the end. That was a quarter of a command's time."""
    if "torch" in sys.modules:
        return
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()


def score_maps(segmenter: Segmenter, names: ClassNames | None, options: Options) -> Callable[[Path, Path], None]:
    """What writes the score maps of a photo, a picture per name, into ``scores`` in a folder."""

    def write(photo: Path, folder: Path) -> None:
        from ..score_maps import draw_score_maps
        from ..writers import png_name

        (folder / "scores").mkdir()
        for index, (name, picture) in enumerate(draw_score_maps(segmenter, photo, names, options=options).items()):
            picture.save(folder / "scores" / png_name(index, name))

    return write

"""What an evaluation leaves on disk: JSON, a Markdown table, figures per class and per photo, and a sheet of the best and worst cases."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.sheet import SIDE, tiled
from ..drawing import Entry, Painter, palette
from ..errors import ConfigError, DataError
from .protocol import Part, Picture
from .table import PhotoFigures, Table, shown

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["check", "files", "save", "sheet", "write"]

CASES = 4  # of each kind on the sheet


def files(output: Path) -> dict[str, Path]:
    """What is written for ``-o output``: "json", "markdown", "classes" and "photos" (CSV), "sheet" (PNG)."""
    endings = {"markdown": ".md", "classes": ".classes.csv", "photos": ".photos.csv", "sheet": ".png"}
    return {"json": output, **{name: output.with_suffix(ending) for name, ending in endings.items()}}


def check(output: Path) -> None:
    """Complain of a place before all photos are counted, not after.

    Raises:
        ConfigError: no .json file, beside which the others could lie.
    """
    if output.suffix != ".json" or output.is_dir():
        raise ConfigError(f"-o {output} must be a file that ends in .json; the others get its name, with their own endings.")


def write(table: Table, output: Path, parts: Sequence[Part], segmenters: Sequence[Segmenter]) -> None:
    """All files, each under its name only once it is complete.

    Raises:
        DataError: the place cannot be written.
    """
    places = files(output)
    save(places["json"], json.dumps(table.json(), indent=1, default=str).encode() + b"\n")
    save(places["markdown"], f"{table.markdown()}\n{table.markdown_row()}\n".encode())
    if table.classes:
        save(places["classes"], _csv(_class_lines(table)))
    save(places["photos"], _csv(_photo_lines(table)))
    picture = sheet(table, parts, segmenters)
    if picture is not None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=4)
        save(places["sheet"], buffer.getvalue())


def save(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: the place cannot be written.
    """
    draft = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}. Give a place that can with -o.") from None


def _csv(lines: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _class_lines(table: Table) -> Iterator[Sequence[object]]:
    yield ["class", *table.classes]
    for name in dict.fromkeys(name for values in table.classes.values() for name in values):
        yield [name, *(_number(values.get(name, math.nan)) for values in table.classes.values())]


def _photo_lines(table: Table) -> Iterator[Sequence[object]]:
    names = list(dict.fromkeys(name for photo in table.photos for name in photo.figures))
    yield ["part", "photo", *names]
    for photo in table.photos:
        yield [photo.part, photo.key, *(_number(photo.figures.get(name, math.nan)) for name in names)]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


# --- pictures ---------------------------------------------------------------------------------------------------------------------------


def chosen(photos: Sequence[PhotoFigures]) -> list[list[int]]:
    """Indices of the best, the median and the worst cases, at most `CASES` of each and none twice."""
    order = sorted((index for index, photo in enumerate(photos) if not math.isnan(photo.score)), key=lambda index: -photos[index].score)
    count = min(CASES, -(-len(order) // 3))
    best, rest = order[:count], order[count:]
    worst = rest[max(0, len(rest) - count) :][::-1]
    rest = rest[: len(rest) - len(worst)]
    start = max(0, (len(rest) - count) // 2)
    return [kind for kind in (best, rest[start : start + count], worst) if kind]


def sheet(table: Table, parts: Sequence[Part], segmenters: Sequence[Segmenter]) -> Image.Image | None:
    """A line each of the best, median and worst cases: every case as answered and, right of it, as labelled. None without any case."""
    places = [(part, segmenter, index) for part, segmenter in zip(parts, segmenters, strict=True) for index in range(len(part.keys))]
    pictures: list[Image.Image] = []
    lines = chosen(table.photos)
    for line in lines:
        for case in line:
            part, segmenter, index = places[case]
            picture, title = part.count(index, segmenter).picture(), f"{table.photos[case].key}: {shown(table.photos[case].score)}"
            pictures += [_painted(picture, True, title), _painted(picture, False, "as labelled")]
        pictures += [Image.new("RGB", (1, 1), (250, 250, 250))] * (2 * (len(lines[0]) - len(line)))
    return tiled(pictures, 2 * len(lines[0])) if pictures else None


def _painted(picture: Picture, answered: bool, title: str) -> Image.Image:
    """The photo with its masks, small; names have the same colour on both sides."""
    names = list(dict.fromkeys((*picture.labelled, *picture.answered)))
    masks, colours = picture.answered if answered else picture.labelled, palette(len(names))
    height, width = picture.photo.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    painter, entries = Painter((size[1], size[0])), [Entry(title, None)]
    for name, colour in zip(names, colours, strict=True):
        small = _resized(masks[name], size) if name in masks else np.zeros((size[1], size[0]), dtype=np.bool_)
        painter.add(small, int(small.sum()))
        entries += [Entry(name, colour)] if small.any() else []
    photo = np.asarray(Image.fromarray(picture.photo).resize(size, Image.Resampling.BILINEAR))
    return painter.paint(photo, colours, entries)


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))

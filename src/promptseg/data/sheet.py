"""A contact sheet: photos of a data set with their masks painted on, side by side, to see at one glance whether they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..drawing import Entry, Painter, palette
from ..errors import PromptSegError
from .samples import Bools, PhotoSet, Sample

__all__ = ["compared", "contact_sheet", "painted", "tiled"]

SIDE, GAP = 320, 8  # pixels: the longer side of a photo on the sheet, and between photos
PAPER = (250, 250, 250)


def contact_sheet(photos: PhotoSet[Sample], count: int = 12, *, columns: int = 4) -> Image.Image | None:
    """``count`` photos, spread evenly over the set, that can be read; None where none can."""
    step = max(1, len(photos) // count)
    pictures = [picture for sample in photos.samples[::step] if (picture := _picture(sample)) is not None]
    return tiled(pictures[:count], columns) if pictures else None


def _picture(sample: Sample) -> Image.Image | None:
    """The photo with its masks, small; None where it or they cannot be read, which the report tells."""
    try:
        photo, (masks, _) = sample.image(), sample.masks()
    except PromptSegError:
        return None
    return painted(photo, masks, tuple(masks))


def painted(photo: NDArray[np.uint8], masks: Mapping[str, Bools], names: Sequence[str]) -> Image.Image:
    """A photo (H, W, 3) with its masks (H, W), small, and a legend of those that are not empty. A colour is a place in ``names``."""
    height, width = photo.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))
    painter, entries, colours = Painter((size[1], size[0])), [], []
    for name, colour in zip(names, palette(len(names)), strict=True):
        if name in masks and masks[name].any():
            shown = np.asarray(Image.fromarray(masks[name]).resize(size, Image.Resampling.NEAREST))
            painter.add(shown, int(shown.sum()))
            entries.append(Entry(name, colour))
            colours.append(colour)
    return painter.paint(small, colours, entries)


def compared(pairs: Iterable[tuple[NDArray[np.uint8], Mapping[str, Bools], Mapping[str, Bools]]]) -> Image.Image:
    """Photos (H, W, 3) with what is said of them and the truth, masks (H, W) by name, side by side: a name has one colour in both."""
    pictures = []
    for photo, said, truth in pairs:
        names = tuple(dict.fromkeys((*truth, *said)))
        pictures += [painted(photo, masks, names) for masks in (said, truth)]
    return tiled(pictures, columns=4)


def tiled(pictures: Iterable[Image.Image], columns: int) -> Image.Image:
    """Pictures in rows, each in a square of `SIDE` pixels."""
    shown = list(pictures)
    across, down = min(columns, len(shown)), -(-len(shown) // columns)
    sheet = Image.new("RGB", (across * (SIDE + GAP) + GAP, down * (SIDE + GAP) + GAP), PAPER)
    for index, picture in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + GAP)
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
    return sheet

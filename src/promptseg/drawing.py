"""Pictures of results: colours, overlays and their legend. Works mask by mask, so its memory does not grow with their number."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .contracts import Size
from .errors import ExportError

__all__ = ["Entry", "Painter", "heat", "palette", "palette_png"]

Colour: TypeAlias = tuple[int, int, int]

# Well apart for the eye, also for most colour-blind ones, and bright enough to show on photographs.
FIRST_COLOURS: tuple[Colour, ...] = (
    (230, 57, 70),
    (33, 150, 243),
    (255, 193, 7),
    (67, 190, 90),
    (171, 71, 220),
    (255, 122, 24),
    (20, 205, 205),
    (240, 98, 170),
    (160, 205, 30),
    (104, 92, 230),
    (188, 122, 70),
    (0, 140, 120),
)
HEAT: tuple[Colour, ...] = ((20, 20, 90), (110, 30, 150), (205, 60, 110), (250, 150, 60), (250, 245, 80))  # rising in lightness
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # how bright red, green and blue are (ITU-R BT.601)
TINT = 0.5  # share of the colour inside a mask
GREY = 0.35  # how far the rest of the photo is drawn towards its own grey, so that the colours stand out
ROWS = 256  # rows that are mixed at once


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a legend; ``colour`` None: nothing was found."""

    text: str
    colour: Colour | None


def palette(count: int) -> list[Colour]:
    """Distinct colours, always the same: a chosen dozen, then steps of the golden angle around the hue circle."""
    colours = list(FIRST_COLOURS[:count])
    for index in range(len(colours), count):
        lightness, saturation = (0.55, 0.42, 0.68)[index % 3], (0.75, 0.55)[index // 3 % 2]
        red, green, blue = colorsys.hls_to_rgb(index * 0.61803398875 % 1, lightness, saturation)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colours


class Painter:
    """Collects masks one by one and paints them over a photo: the smaller of two lies on top, whatever the order."""

    def __init__(self, size: Size) -> None:
        self._owner = np.full(size, -1, dtype=np.int32)  # which mask is seen at a pixel
        self._areas: list[int] = []

    def add(self, mask: NDArray[np.bool_], area: int) -> None:
        """Take the next mask, (H, W) bool, of ``area`` pixels."""
        index = len(self._areas)
        self._areas.append(area)
        if not area:
            return
        order = np.asarray([*self._areas, np.iinfo(np.int64).max])  # the last one, at index -1, is the bare photo
        rows = np.flatnonzero(mask.any(axis=1))
        for top in range(rows[0], rows[-1] + 1, ROWS):
            part, owner = mask[top : top + ROWS], self._owner[top : top + ROWS]
            part = part & (order[owner] >= area)
            owner[part] = index

    def paint(self, photo: NDArray[np.uint8] | None, colours: Sequence[Colour], entries: Sequence[Entry] = ()) -> Image.Image:
        """The photo (H, W, 3), or a grey sheet, with every mask in its colour, outlined, and the legend in the emptiest corner."""
        height, width = self._owner.shape
        table = np.array([*colours, (0, 0, 0)], dtype=np.float32)
        canvas = np.empty((height, width, 3), dtype=np.uint8)
        line = max(1, round(min(height, width) / 300))
        for top in range(0, height, ROWS):
            rows = slice(top, top + ROWS)
            base = np.full((*self._owner[rows].shape, 3), 236, dtype=np.float32) if photo is None else photo[rows].astype(np.float32)
            canvas[rows] = _mix(base, self._owner[rows], table, _outline(self._owner, rows, line))
        picture = Image.fromarray(canvas)
        if entries:
            _draw_legend(picture, entries, self._owner >= 0)
        return picture


def heat(photo: NDArray[np.uint8], values: NDArray[np.floating], limits: tuple[float, float] | None = None) -> Image.Image:
    """The photo (H, W, 3) in grey under a map of ``values`` (h, w), enlarged: from dark blue, the lowest, to yellow, the highest.

    ``limits``: the values of the two ends; None: the lowest and the highest there are.
    """
    low, high = (float(values.min()), float(values.max())) if limits is None else limits
    share = np.clip((np.asarray(values, np.float32) - low) / max(high - low, 1e-12), 0, 1)
    size = (photo.shape[1], photo.shape[0])
    smooth = np.asarray(Image.fromarray(share, mode=None).resize(size, Image.Resampling.BILINEAR))
    places, ramp = np.linspace(0, 1, len(HEAT)), np.array(HEAT, np.float32)
    canvas = np.empty_like(photo)
    for top in range(0, len(photo), ROWS):
        rows = slice(top, top + ROWS)
        grey = photo[rows] @ LUMA
        colours = np.stack([np.interp(smooth[rows], places, channel) for channel in ramp.T], axis=-1)
        canvas[rows] = (0.5 * grey[..., None] + 0.5 * colours).round().astype(np.uint8)
    return Image.fromarray(canvas)


def palette_png(labels: NDArray[np.integer], colours: Sequence[Colour]) -> Image.Image:
    """A label map as a picture: value k becomes k + 1, nothing (-1) becomes 0; with a palette up to 255 labels, else 16-bit grey.

    Raises:
        ExportError: more labels than 16 bits tell apart.
    """
    if len(colours) > 65535:
        raise ExportError(f"A label map is saved as a PNG, which holds at most 65535 regions, not {len(colours)}; take to_numpy().")
    if len(colours) > 255:
        return Image.fromarray((labels + 1).astype(np.uint16))
    picture = Image.fromarray((labels + 1).astype(np.uint8), mode=None).convert("L")
    picture.putpalette([0, 0, 0, *(value for colour in colours for value in colour)])
    return picture


def _mix(base: NDArray[np.float32], owner: NDArray[np.int32], table: NDArray[np.float32], outline: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Colour inside, grey outside, the pure colour on outlines."""
    share = np.where(outline, np.float32(1), np.float32(TINT))[..., None]
    grey = base @ LUMA
    outside = base + GREY * (grey[..., None] - base)
    inside = base + share * (table[owner] - base)
    return np.where((owner >= 0)[..., None], inside, outside).round().astype(np.uint8)


def _outline(owner: NDArray[np.int32], rows: slice, line: int) -> NDArray[np.bool_]:
    """Pixels of a mask within ``line`` pixels, along a row or column, of where another begins."""
    height, width = owner.shape
    here = owner[rows]
    result = np.zeros(here.shape, dtype=np.bool_)
    index = np.arange(rows.start, rows.start + here.shape[0])
    for step in {line, max(1, line // 2)}:
        result |= (owner[np.maximum(index - step, 0)] != here) | (owner[np.minimum(index + step, height - 1)] != here)
        apart = here[:, step:] != here[:, :-step] if step < width else np.zeros((len(here), 0), dtype=np.bool_)
        result[:, : apart.shape[1]] |= apart
        result[:, width - apart.shape[1] :] |= apart
    return result


# --- legend -----------------------------------------------------------------------------------------------------------------------------


def _draw_legend(picture: Image.Image, entries: Sequence[Entry], covered: NDArray[np.bool_]) -> None:
    """A dark translucent panel; left out where the photo is too small to read it."""
    width, height = picture.size
    text = max(11, round(min(width, height) / 28))
    line, pad = round(text * 1.5), round(text * 0.6)
    room = (height - 4 * pad) // line
    if room < 1 or width < 6 * text:
        return
    font = ImageFont.load_default(text)
    shown = list(entries) if len(entries) <= room else [*entries[: room - 1], Entry(f"and {len(entries) - room + 1} more", None)]
    lines = [_fit(entry.text, font, width - 6 * pad - text) for entry in shown]
    box_width = round(max(font.getlength(one) for one in lines)) + text + 3 * pad
    left, top = _emptiest_corner(covered, box_width, line * len(shown) + pad, pad)
    panel = Image.new("RGBA", (box_width, line * len(shown) + pad), (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    draw.rounded_rectangle((0, 0, panel.width - 1, panel.height - 1), radius=pad, fill=(18, 20, 26, 205))
    for index, (entry, words) in enumerate(zip(shown, lines, strict=True)):
        middle = pad // 2 + index * line + line // 2
        if entry.colour is not None:
            chip = (pad, middle - text // 2, pad + text, middle + (text + 1) // 2)
            draw.rounded_rectangle(chip, radius=max(2, text // 4), fill=entry.colour)
        draw.text((2 * pad + text, middle), words, font=font, anchor="lm", fill="white" if entry.colour else (170, 174, 182))
    picture.paste(panel, (left, top), panel)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text, cut in the middle where it is too long: the score at its end stays."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 4 and font.getlength(_cut(text, keep)) > width:
        keep -= 1
    return _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    tail = min(8, keep // 2)
    return f"{text[: keep - tail]}...{text[len(text) - tail :]}"


def _emptiest_corner(covered: NDArray[np.bool_], width: int, height: int, margin: int) -> tuple[int, int]:
    """Where the panel hides least of the masks; the first of equals: upper left, lower left, upper right, lower right."""
    bottom, right = max(covered.shape[0] - height - margin, 0), max(covered.shape[1] - width - margin, 0)
    corners = [(min(x, right), min(y, bottom)) for x in (margin, right) for y in (margin, bottom)]
    return min(corners, key=lambda corner: int(covered[corner[1] : corner[1] + height, corner[0] : corner[0] + width].sum()))

"""What a model with groups sees in a photo, in the authors' modes (NVlabs/GroupViT, ``--vis``).

input               the photo
first_group         the photo, half of it the colours of the first stage's groups
final_group         the same of the last stage's
all_groups          the same of every stage, as all_groups_layer0, all_groups_layer1, ...
pred                the label map of some classes, as a palette PNG
input_pred          the photo, half of it the colours of the classes; where nothing is, the photo alone
input_pred_label    the same, with the name of every class in the middle of its pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from . import images
from .drawing import Colour, palette, palette_png
from .errors import ConfigError, nearest

if TYPE_CHECKING:
    from .contracts import Options
    from .maps import SemanticMap
    from .prompts import ImageInput
    from .segmenter import Segmenter

__all__ = ["MODES", "NAMED", "visualise"]

NAMELESS = ("input", "first_group", "final_group", "all_groups")
NAMED = ("pred", "input_pred", "input_pred_label")
MODES = (*NAMELESS, *NAMED)
TEXT, TEXT_SIZE, BOX = (255, 69, 0), 16, 128  # orange red on black, half of which lets the photo through


def visualise(
    segmenter: Segmenter,
    photo: ImageInput,
    modes: Sequence[str] = ("all_groups",),
    classes: Sequence[str | Sequence[str]] = (),
    *,
    background: Any = None,
    options: Options | None = None,
) -> dict[str, Image.Image]:
    """Pictures of the photo's size by name: that of the mode, and for "all_groups" one per stage.

    ``classes``, ``background`` and ``options`` as in `Segmenter.semantic`, for the modes that name. Colours are always the same for a
    group, and no two stages share one.

    Raises:
        ConfigError: an unknown mode, or one that names without classes.
        UnsupportedTask: the model forms no groups.
        ImageError: the photo cannot be read.
    """
    for mode in modes:
        if mode not in MODES:
            raise ConfigError(f"There is no mode {mode!r}.{nearest(mode, MODES)} There are: {', '.join(MODES)}.")
        if mode in NAMED and not classes:
            raise ConfigError(f"The mode {mode!r} shows classes: name some. Without names there are {', '.join(NAMELESS)}.")
    shown = images.load(photo)
    pictures: dict[str, Image.Image] = {}
    stages = segmenter.groups(photo) if any(mode.endswith(("group", "groups")) for mode in modes) else []
    found = segmenter.semantic(photo, classes, background=background, options=options) if any(mode in NAMED for mode in modes) else None
    for mode in modes:
        if mode == "input":
            pictures[mode] = Image.fromarray(shown)
        elif mode == "all_groups":
            pictures |= {f"{mode}_layer{index}": _groups(shown, stages, index) for index in range(len(stages))}
        elif mode in NAMELESS:
            pictures[mode] = _groups(shown, stages, 0 if mode == "first_group" else len(stages) - 1)
        else:
            assert found is not None
            pictures[mode] = _named(shown, found, mode)
    return pictures


def _groups(photo: NDArray[np.uint8], stages: Sequence[SemanticMap], index: int) -> Image.Image:
    before = sum(len(one.classes) for one in stages[:index])
    return Image.fromarray(blended(photo, stages[index].labels, palette(before + len(stages[index].classes))[before:]))


def _named(photo: NDArray[np.uint8], found: SemanticMap, mode: str) -> Image.Image:
    colours = palette(len(found.classes))
    if mode == "pred":
        return palette_png(found.labels, colours)
    picture = Image.fromarray(blended(photo, found.labels, colours))
    return _labelled(picture, found) if mode == "input_pred_label" else picture


def blended(photo: NDArray[np.uint8], labels: NDArray[Any], colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """(H, W, 3): half photo, half the colour of the label (H, W); where that is -1, the photo."""
    table = np.array([*colours, (0, 0, 0)], dtype=np.uint16)  # the last one, at index -1, is not looked at
    half = ((photo.astype(np.uint16) + table[labels] + 1) // 2).astype(np.uint8)
    return np.where((labels >= 0)[..., None], half, photo)


def _labelled(picture: Image.Image, found: SemanticMap) -> Image.Image:
    """Names, each with its upper left corner at the mean of its pixels."""
    sheet = Image.new("RGBA", picture.size)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE)
    for index in np.flatnonzero(found.areas).tolist():
        rows, columns = np.nonzero(found.labels == index)
        place = (float(columns.mean()), float(rows.mean()))
        draw.rectangle(draw.textbbox(place, found.classes[index], font=font), fill=(0, 0, 0, BOX))
        draw.text(place, found.classes[index], font=font, fill=(*TEXT, 255))
    return Image.alpha_composite(picture.convert("RGBA"), sheet).convert("RGB")

"""What a group of GroupViT stands for: the photos of a folder in which it fires most, side by side (paper, section 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import images
from .data.sheet import painted, tiled
from .errors import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from .maps import GroupMap
    from .segmenter import Segmenter

__all__ = ["Fired", "fired_most", "sheet"]


@dataclass(frozen=True, slots=True)
class Fired:
    """How much a group fires in a photo: ``score`` its mean share of the pixels that it owns, ``area`` their part of the photo, 0..1."""

    photo: Path
    found: GroupMap
    group: int
    score: float
    area: float


def fired_most(
    segmenter: Segmenter,
    photos: Iterable[Path],
    token: int,
    *,
    stage: int = 1,
    count: int = 12,
    failed: Callable[[Path, ImageError], None] | None = None,
) -> list[Fired]:
    """The photos in which group ``token`` (from 0) of ``stage`` (from 1) owns pixels with the largest share, at most ``count``, best first.

    ``failed`` hears of photos that cannot be read, which are left out.

    Raises:
        ConfigError: no such stage or group.
        UnsupportedTask: the model forms no groups.
        ImageError: a photo cannot be read, and nobody wants to hear of it.
    """
    best: list[Fired] = []
    for photo in photos:
        try:
            stages = segmenter.groups(photo)
        except ImageError as error:
            if failed is None:
                raise
            failed(photo, error)
            continue
        found = _group(stages, stage, token)
        area = float(found.areas[token]) / (found.size[0] * found.size[1])
        if area:
            fired = Fired(photo, found, token, float(found.scores[token]), area)
            best = sorted([*best, fired], key=lambda one: -one.score)[:count]  # no more maps are held than are shown
    return best


def sheet(fired: Sequence[Fired], *, columns: int = 4) -> Image.Image:
    """The photos in small, each with the pixels of the group coloured.

    Raises:
        ConfigError: there are none.
    """
    if not fired:
        raise ConfigError("The group owns no pixel in any of the photos; try another one, or more photos.")
    pictures = []
    for one in fired:
        name = one.found.classes[one.group]
        pictures.append(painted(images.load(one.photo), {name: np.asarray(one.found.labels == one.group)}, (name,)))
    return tiled(pictures, columns)


def _group(stages: Sequence[GroupMap], stage: int, token: int) -> GroupMap:
    if not 1 <= stage <= len(stages):
        raise ConfigError(f"stage is 1 to {len(stages)} for this model, not {stage}.")
    found = stages[stage - 1]
    if not 0 <= token < len(found.classes):
        raise ConfigError(f"Stage {stage} has the groups 0 to {len(found.classes) - 1}, not {token}.")
    return found

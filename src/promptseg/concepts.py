"""What a group of GroupViT stands for: the photos of a folder in which it fires most, side by side (paper, section 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import images
from .abilities import require_task
from .data.sheet import painted, tiled
from .errors import ConfigError, ImageError, MemoryLimitError, NumericalError, PromptSegError

if TYPE_CHECKING:
    from PIL import Image

    from .maps import GroupMap
    from .segmenter import Segmenter

__all__ = ["Fired", "fired_most", "require_group", "sheet"]


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
    failed: Callable[[Path, PromptSegError], None] | None = None,
) -> list[Fired]:
    """The photos in which group ``token`` (from 0) of ``stage`` (from 1) owns pixels with the largest share, at most ``count``, best first.

    ``failed`` hears of photos that cannot be read, or of which the network makes nothing, which are left out.

    Raises:
        ConfigError: no such stage or group.
        UnsupportedTask: the model forms no groups.
        ImageError, MemoryLimitError, NumericalError: a photo is left out, and nobody wants to hear of it.
    """
    require_group(segmenter, stage, token)
    best: list[Fired] = []
    for photo in photos:
        try:
            stages = segmenter.groups(photo)
        except (ImageError, MemoryLimitError, NumericalError) as error:
            if failed is None:
                raise
            failed(photo, error)
            continue
        found = stages[stage - 1]
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


def require_group(segmenter: Segmenter, stage: int = 1, token: int = 0) -> int:
    """Look whether the model has group ``token`` (from 0) in ``stage`` (from 1), before any photo is; -> the number of its stages.

    Raises:
        ConfigError: no such stage or group.
        UnsupportedTask: the model forms no groups.
    """
    require_task(segmenter.card, "groups")
    counts: Sequence[int] = segmenter.model.group_counts
    if not 1 <= stage <= len(counts):
        raise ConfigError(f"stage is 1 to {len(counts)} for this model, not {stage}.")
    if not 0 <= token < counts[stage - 1]:
        raise ConfigError(f"Stage {stage} has the groups 0 to {counts[stage - 1] - 1}, not {token}.")
    return len(counts)

"""Exemplars as a user gives them (paths, boxes, "in this photo") -> exemplars as networks take them: two arrays. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from . import images
from .contracts import MAX_PIXELS
from .errors import PromptError
from .prompts import Blend, Exemplar, Prompt

AT_ONCE = 8  # exemplars whose photos and masks are in memory together, however many there are
_NO_SOURCE = (-1, "")

__all__ = ["decoded", "needs_photo"]


def needs_photo(prompt: Prompt) -> bool:
    """Whether the prompt points into the photo that is being segmented, so that it means something else for every photo."""
    exemplar = _exemplar(prompt)
    return exemplar is not None and exemplar.image is None


def decoded(
    prompts: Sequence[Prompt], photo: np.ndarray | None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Sequence[int], Sequence[Prompt]]]:
    """The same prompts, few at a time with their places in the list: first all without an exemplar, then the others, decoded.

    Every exemplar's image is uint8 (H, W, 3) and its mask bool (H, W); a box becomes a mask, neither means everywhere. Exemplars of one
    photo follow each other, so that it is read once, and the memory of those that were is free again once the caller lets go of them.
    ``max_pixels`` as in `images.load`.

    Raises:
        PromptError: the region is empty or lies outside its photo, or ``photo`` is None and a prompt needs it.
        ImageError: the exemplar's photo or mask cannot be read, or the mask has another size than its photo.
    """
    shown = {place: exemplar for place, prompt in enumerate(prompts) if (exemplar := _exemplar(prompt)) is not None}
    if others := [place for place in range(len(prompts)) if place not in shown]:
        yield others, [prompts[place] for place in others]
    order = sorted(shown, key=lambda place: _source(shown[place]))
    source, image = _NO_SOURCE, photo
    for start in range(0, len(order), AT_ONCE):
        places, batch = order[start : start + AT_ONCE], list[Prompt]()
        for place in places:
            exemplar = shown[place]
            if _source(exemplar) != source:
                source = _source(exemplar)
                image = photo if exemplar.image is None else images.load(exemplar.image, max_pixels=max_pixels)
            batch.append(_with(prompts[place], _decode_exemplar(exemplar, image)))
        yield places, batch


def _exemplar(prompt: Prompt) -> Exemplar | None:
    if isinstance(prompt, Blend):
        return prompt.exemplar
    return prompt if isinstance(prompt, Exemplar) else None


def _with(prompt: Prompt, exemplar: Exemplar) -> Prompt:
    return replace(prompt, exemplar=exemplar) if isinstance(prompt, Blend) else exemplar


def _source(exemplar: Exemplar) -> tuple[int, str]:
    """What is equal for exemplars of one photo, and in an order."""
    if isinstance(exemplar.image, str | os.PathLike):
        return 0, os.fsdecode(exemplar.image)
    return 1, str(id(exemplar.image))


def _decode_exemplar(exemplar: Exemplar, image: np.ndarray | None) -> Exemplar:
    if image is None:
        raise PromptError(
            "This exemplar is a region of the photo being segmented and cannot be encoded before it is known. "
            "Give its photo, Exemplar(image, ...), or hand the exemplar to the call itself."
        )
    mask = _region(exemplar, image.shape[0], image.shape[1])
    if not mask.any():
        raise PromptError("The exemplar's region is empty: no pixel of its photo is marked. Mark the thing that is to be found.")
    return replace(exemplar, image=image, mask=mask, box=None)


def _region(exemplar: Exemplar, height: int, width: int) -> np.ndarray:
    """(H, W) bool; a box covers every pixel that it touches."""
    if exemplar.mask is not None:
        return images.load_mask(exemplar.mask, (height, width), max_pixels=max(MAX_PIXELS, height * width))
    mask = np.zeros((height, width), bool)
    x0, y0, x1, y1 = exemplar.box or (0, 0, width, height)
    if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:  # what rounding makes of a box to the edge may pass
        raise PromptError(
            f"The exemplar's box {exemplar.box} reaches beyond its photo of {width}x{height} pixels; give x0, y0, x1, y1 in its pixels."
        )
    x0, y0 = max(x0, 0), max(y0, 0)
    mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
    return mask

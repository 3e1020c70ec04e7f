"""Exemplars as a user gives them (paths, boxes, "in this photo") -> exemplars as networks take them: two arrays. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from . import images
from .contracts import MAX_PIXELS
from .errors import PromptError
from .prompts import Blend, Exemplar, Prompt

__all__ = ["decode_exemplars", "needs_photo"]


def needs_photo(prompt: Prompt) -> bool:
    """Whether the prompt points into the photo that is being segmented, so that it means something else for every photo."""
    if isinstance(prompt, Blend):
        return needs_photo(prompt.exemplar)
    return isinstance(prompt, Exemplar) and prompt.image is None


def decode_exemplars(prompts: Sequence[Prompt], photo: np.ndarray | None, max_pixels: int = MAX_PIXELS) -> tuple[Prompt, ...]:
    """The same prompts with every exemplar's image uint8 (H, W, 3) and mask bool (H, W); a box becomes a mask, neither means everywhere.

    ``max_pixels`` as in `images.load`.

    Raises:
        PromptError: the region is empty or lies outside its photo, or ``photo`` is None and a prompt needs it.
        ImageError: the exemplar's photo or mask cannot be read, or the mask has another size than its photo.
    """
    return tuple(_decode(prompt, photo, max_pixels) for prompt in prompts)


def _decode(prompt: Prompt, photo: np.ndarray | None, max_pixels: int) -> Prompt:
    if isinstance(prompt, Blend):
        return replace(prompt, exemplar=_decode_exemplar(prompt.exemplar, photo, max_pixels))
    return _decode_exemplar(prompt, photo, max_pixels) if isinstance(prompt, Exemplar) else prompt


def _decode_exemplar(exemplar: Exemplar, photo: np.ndarray | None, max_pixels: int) -> Exemplar:
    image = photo if exemplar.image is None else images.load(exemplar.image, max_pixels=max_pixels)
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

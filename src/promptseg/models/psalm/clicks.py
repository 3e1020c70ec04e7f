"""Points, scribbles, boxes and masks of a photo -> regions on the network's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...contracts import Size
from ...errors import PromptError
from ...prompts import Box, MaskPrompt, Points, Prompt, Scribble
from .photos import POINT_RADIUS, SCRIBBLE_RADIUS, discs, fit_region

__all__ = ["REGIONS", "regions"]

Mask = NDArray[np.bool_]
REGIONS = (Points, Scribble, Box, MaskPrompt)


def regions(prompts: Sequence[Prompt], size: Size, side: int, first: int = 0) -> Mask:
    """Prompts in a photo of ``size`` (H, W) -> (K, side, side), none of them empty; masks must be arrays already.

    Points become discs of 10 pixels' radius, scribbles lines with a radius of 5, as in training; boxes and masks stay as they are.
    ``first``: the number of the first one in messages.

    Raises:
        PromptError: a prompt marks no pixel of the photo, says what is not meant, or is of another kind.
    """
    grids = [fit_region(_drawn(prompt, size), side) for prompt in prompts]
    if empty := [str(place) for place, grid in enumerate(grids, first) if not grid.any()]:
        raise PromptError(
            f"Prompt {', '.join(empty)} (counted from 0) marks nothing of this photo of {size[1]} x {size[0]} pixels. Points, scribbles "
            "and boxes are pixels of the upright photo, (x, y)."
        )
    return np.stack(grids) if grids else np.zeros((0, side, side), np.bool_)


def _drawn(prompt: Prompt, size: Size) -> Mask:
    """(H, W) bool."""
    if isinstance(prompt, MaskPrompt) and isinstance(prompt.mask, np.ndarray):
        return np.asarray(prompt.mask, np.bool_)
    canvas = np.zeros(size, np.bool_)
    if isinstance(prompt, Box):
        canvas[_span(prompt.y0, prompt.y1, size[0]), _span(prompt.x0, prompt.x1, size[1])] = True
        return canvas
    if isinstance(prompt, Scribble):
        line = Image.new("1", (size[1], size[0]))
        ImageDraw.Draw(line).line([(math.floor(x), math.floor(y)) for x, y in prompt.xy], fill=1)
        canvas |= np.asarray(line)
        for x, y in prompt.xy[:1]:  # of a line of one point Pillow draws nothing
            _mark(canvas, x, y)
        return discs(canvas, SCRIBBLE_RADIUS)
    if not isinstance(prompt, Points):
        raise PromptError(f"PSALM is shown points, scribbles, boxes and masks of the photo itself, not {type(prompt).__name__}.")
    if 0 in (prompt.labels or ()):
        raise PromptError("PSALM knows clicks on the thing only (label 1), not beside it; leave the points with label 0 out.")
    for x, y in prompt.xy:
        _mark(canvas, x, y)
    return discs(canvas, POINT_RADIUS)


def _mark(canvas: Mask, x: float, y: float) -> None:
    if 0 <= y < canvas.shape[0] and 0 <= x < canvas.shape[1]:
        canvas[math.floor(y), math.floor(x)] = True


def _span(low: float, high: float, length: int) -> slice:
    """Every pixel that is touched."""
    return slice(max(0, math.floor(low)), max(0, min(length, math.ceil(high))))

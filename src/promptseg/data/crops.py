"""Random square crops that keep enough of a thing in view (CLIPSeg's data code, `find_crop`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .randomness import Draws

__all__ = ["Crop", "find_crop"]


@dataclass(frozen=True, slots=True)
class Crop:
    """A window; ``pixels`` of the thing are in it. ``poor``: no window with enough of the thing was found."""

    rows: slice
    columns: slice
    pixels: int
    poor: bool = False


def find_crop(
    mask: NDArray[np.bool_],
    size: tuple[int, int],
    draws: Draws,
    *,
    iterations: int = 1000,
    min_frac: float | None = None,
    best_of: int | None = None,
) -> Crop:
    """Draw windows of ``size`` (h, w), row offset first, until one holds more than ``min_frac`` * H * W pixels of the mask (H, W).

    ``min_frac`` is a share of the whole image, not of the window; None: a single pixel is enough. ``best_of``: collect so many good ones
    and take the fullest. When ``iterations`` draws find none, the fullest of the others, marked ``poor`` (published code ignores the mark).
    """
    enough = 0 if min_frac is None else mask.shape[0] * mask.shape[1] * min_frac
    good: list[Crop] = []
    best_poor: Crop | None = None
    for _ in range(iterations):
        crop = _draw(mask, size, draws)
        if crop.pixels > enough:
            good.append(crop)
            if len(good) >= (best_of or 1):
                break
        elif best_poor is None or crop.pixels > best_poor.pixels:
            best_poor = crop
    if best_poor is None or len(good) >= (best_of or 1):
        return max(good, key=lambda crop: crop.pixels)
    return Crop(best_poor.rows, best_poor.columns, best_poor.pixels, poor=True)


def _draw(mask: NDArray[np.bool_], size: tuple[int, int], draws: Draws) -> Crop:
    top, left = (draws.integer(whole - part + 1) for whole, part in zip(mask.shape, size, strict=True))
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return Crop(rows, columns, int(np.count_nonzero(mask[rows, columns])))

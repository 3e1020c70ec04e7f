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
    corner_sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=corner_sums[1:, 1:])
    good: list[Crop] = []
    best_poor: Crop | None = None
    for _ in range(iterations):
        crop = _draw(corner_sums, size, draws)
        if crop.pixels > enough:
            good.append(crop)
            if len(good) >= (best_of or 1):
                break
        elif best_poor is None or crop.pixels > best_poor.pixels:
            best_poor = crop
    if best_poor is None or len(good) >= (best_of or 1):
        return max(good, key=lambda crop: crop.pixels)
    return Crop(best_poor.rows, best_poor.columns, best_poor.pixels, poor=True)


def _draw(corner_sums: NDArray[np.int64], size: tuple[int, int], draws: Draws) -> Crop:
    """A window anywhere, its content from the sums over everything above and left of each corner."""
    top, left = (draws.integer(whole - part) for whole, part in zip(corner_sums.shape, size, strict=True))
    bottom, right = top + size[0], left + size[1]
    pixels = corner_sums[bottom, right] - corner_sums[top, right] - corner_sums[bottom, left] + corner_sums[top, left]
    return Crop(slice(top, bottom), slice(left, right), int(pixels))

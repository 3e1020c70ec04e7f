"""Photos, masks and prompts on the network's square grid: the longer side fills it, the rest lies at the right and bottom.

Nothing is turned, cut or jittered, in training neither (paper's code). Padding is a grey that the network sees, not the mean colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import floor
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...contracts import Size
from ...data.filling import fill_coco
from ...images import Photo
from ...regions import grow

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["discs", "fit_mask", "fit_photo", "fit_region", "fitted", "normalised", "polygon_mask", "scaled", "to_input"]

Mask: TypeAlias = NDArray[np.bool_]
Points: TypeAlias = NDArray[np.float64]  # (K, 2) of (x, y)

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0..255, of ImageNet
PADDING: Final = 128
POINT_RADIUS, SCRIBBLE_RADIUS = 10, 5  # pixels of the photo by which points and scribbles grow into regions


def fitted(size: Size, side: int) -> Size:
    """Size (h, w) that a photo of ``size`` (H, W) has on a grid of ``side``: its longer side fills it."""
    scale = side / min(size)
    height, width = (float(side), scale * size[1]) if size[0] < size[1] else (scale * size[0], float(side))
    if max(height, width) > side:
        scale = side / max(height, width)
        height, width = height * scale, width * scale
    return max(1, floor(height + 0.5)), max(1, floor(width + 0.5))


def fit_photo(photo: Photo, side: int) -> Photo:
    """uint8 (H, W, 3) -> uint8 (side, side, 3): Pillow's bilinear filter, grey padding."""
    height, width = fitted((photo.shape[0], photo.shape[1]), side)
    result = np.full((side, side, 3), PADDING, dtype=np.uint8)
    result[:height, :width] = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))
    return result


def normalised(square: Photo, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """uint8 (side, side, 3) -> (3, side, side) float32, network input."""
    import torch

    values = (square.astype(np.float32) - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def to_input(photo: Photo, side: int) -> Tensor:
    """uint8 (H, W, 3) -> network input (3, side, side) float32."""
    return normalised(fit_photo(photo, side))


def fit_mask(mask: Mask, side: int) -> Mask:
    """A mask of the photo (H, W) -> (side, side): nearest pixel, nothing in the padding."""
    height, width = fitted((mask.shape[0], mask.shape[1]), side)
    result = np.zeros((side, side), dtype=np.bool_)
    result[:height, :width] = np.asarray(Image.fromarray(mask.view(np.uint8)).resize((width, height), Image.Resampling.NEAREST)) > 0
    return result


def fit_region(mask: Mask, side: int) -> Mask:
    """As `fit_mask`, for what is pointed at: a mask so small that no pixel is left keeps one, the nearest to its middle."""
    grid = fit_mask(mask, side)
    if mask.any() and not grid.any():
        content = fitted((mask.shape[0], mask.shape[1]), side)
        middle = (np.argwhere(mask).mean(0) + 0.5) * content / mask.shape
        grid[tuple(middle.astype(np.int64))] = True
    return grid


def scaled(polygons: Iterable[Points], size: Size, side: int) -> list[Points]:
    """Polygons of a photo of ``size`` (H, W), (x, y) in its pixels, in pixels of the grid."""
    height, width = fitted(size, side)
    factors = np.array([width / size[1], height / size[0]])
    return [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) * factors for polygon in polygons]


def polygon_mask(polygons: Iterable[Points], size: Size, side: int) -> Mask:
    """The union of an object's polygons on the grid (side, side): scaled first, then filled by COCO's rule, as in training."""
    return fill_coco(scaled(polygons, size, side), (side, side))


def discs(mask: Mask, radius: int) -> Mask:
    """Every pixel of a mask (H, W) grown to the disc of those at most ``radius`` pixels away."""
    return grow(mask, radius)

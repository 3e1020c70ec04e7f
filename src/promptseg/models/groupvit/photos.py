"""Photos as classification sees them, and maps of groups cleared of the small ones (published code)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB, 0..1


def centre(photo: NDArray[np.uint8], resize: int = 256, crop: int = 224) -> Tensor:
    """(H, W, 3) uint8 -> the middle of it (3, crop, crop) float32, normalised, the shorter side resized to ``resize`` on 8-bit values."""
    height, width = photo.shape[:2]
    shorter = min(height, width)
    size = (resize * width // shorter, resize * height // shorter)
    picture = Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    values = np.asarray(picture.crop((left, top, left + crop, top + crop)), dtype=np.float32) / 255
    return torch.from_numpy((values - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)).permute(2, 0, 1)


def largest(maps: Tensor, count: int) -> Tensor:
    """Maps (B, H, W, G): every pixel outside the ``count`` groups of the largest sums takes the values of the nearest pixel inside them.

    A pixel is inside a group where that group is the largest; distances are Euclidean, the first of equals in row-major order is taken.
    """
    return torch.stack([_filled(one, count) for one in maps])


def _filled(maps: Tensor, count: int) -> Tensor:
    inside = torch.isin(maps.argmax(-1), maps.sum((0, 1)).topk(count).indices)
    sources, lacking = inside.nonzero(), (~inside).nonzero()
    result = maps.clone()
    for part in torch.split(lacking, 4096):
        nearest = sources[(part[:, None] - sources[None]).square().sum(-1).argmin(1)]
        result[part[:, 0], part[:, 1]] = maps[nearest[:, 0], nearest[:, 1]]
    return result

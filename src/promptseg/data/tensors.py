"""Photos and masks as the networks of the published protocols are shown them: tensors of one size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .samples import LabelSample

__all__ = ["labelled", "normalised", "resize_image", "resize_mask"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def labelled(sample: LabelSample, size: int) -> tuple[Tensor, Tensor]:
    """A photo stretched to a square, (3, S, S) normalised, and its labels, (S, S) int64, nearest pixels: CLIPSeg's zero-shot test."""
    labels = resize_mask(sample.labels(), (size, size)).long()
    return normalised(resize_image(sample.image(), (size, size))), labels


def normalised(image: Tensor) -> Tensor:
    """(3, H, W) float 0..255 -> /255, ImageNet's mean subtracted, divided by its standard deviation."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (image / 255 - mean) / std


def resize_image(photo: NDArray[np.uint8], size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) float32 0..255, bilinear without antialiasing; not rounded."""
    image = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).float()
    return F.interpolate(image[None], size, mode="bilinear", align_corners=align_corners)[0]


def resize_mask(mask: NDArray[np.bool_] | NDArray[np.integer], size: tuple[int, int]) -> Tensor:
    """(H, W) -> (h, w) float32, nearest pixels (the upper left one of four, as torch's "nearest")."""
    return F.interpolate(torch.from_numpy(np.asarray(mask, dtype=np.float32))[None, None], size, mode="nearest")[0, 0]

"""How CAT-Seg's training photos are cut, coloured and turned (code: detectron2's mapper with MaskFormer's settings)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from ...contracts import Size
from .jitter import jittered
from .windows import resized

Labels = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapper:
    """``short`` sides among which one is drawn, ``long`` side at most; a ``crop`` (h, w), filled up where the photo is smaller."""

    short: tuple[int, ...] = (384,)
    long: int = 1333
    crop: Size = (384, 384)
    padded: Size = (384, 384)
    pad_photo: int = 128
    pad_label: int = 255

    def __call__(self, photo: NDArray[np.uint8], labels: Labels, seed: int) -> tuple[NDArray[np.uint8], Labels, Size]:
        """uint8 (H, W, 3) and labels (H, W) -> both of size ``padded``, and the (h, w) that is no padding.

        Draws come from NumPy's and Python's old generators in the published order, so that a seed means what it means there.
        """
        draw = np.random.RandomState(seed)
        size = resized((photo.shape[0], photo.shape[1]), int(draw.choice(list(self.short))), self.long)
        photo = np.asarray(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        labels = resize_labels(labels, size)
        height, width = min(self.crop[0], size[0]), min(self.crop[1], size[1])
        y = int(draw.randint(size[0] - height + 1))
        x = int(draw.randint(size[1] - width + 1))
        photo = jittered(photo[y : y + height, x : x + width], Random(seed))
        labels = labels[y : y + height, x : x + width]
        if draw.uniform(0, 1) < 0.5:
            photo, labels = photo[:, ::-1], labels[:, ::-1]
        margin = ((0, max(0, self.padded[0] - height)), (0, max(0, self.padded[1] - width)))
        photo = np.pad(photo, (*margin, (0, 0)), constant_values=self.pad_photo)
        return photo, np.pad(labels, margin, constant_values=self.pad_label), (height, width)


def resize_labels(labels: Labels, size: Size) -> Labels:
    """Labels (H, W) -> ``size``: torch's nearest, since the published mapper holds labels as doubles."""
    values = torch.from_numpy(labels.astype(np.float64))[None, None]
    return F.interpolate(values, size, mode="nearest")[0, 0].numpy().astype(labels.dtype)

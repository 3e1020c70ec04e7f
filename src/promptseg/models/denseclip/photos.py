"""How DenseCLIP's training photos are scaled, cut, turned and coloured (mmsegmentation 0.19's pipeline for ADE20K)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ...contracts import Size
from ...data.colours import Photo, linear, saturated, turned
from ...images import resized_8bit
from ...nn.slides import resized

Labels = NDArray[Any]
SCALES = (0.5, 2.0)  # between which the limits are stretched
TRIES = 10  # crops that are drawn again
LARGEST = 0.75  # share of a crop's labelled pixels that one class may have


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """``limits``: of the resized photo's longer and shorter side at scale 1; ``crop``: side of the squares that are cut out of it."""

    limits: tuple[int, int]
    crop: int
    ignore: int = 255

    def __call__(self, photo: Photo, labels: Labels, seed: int) -> tuple[Photo, Labels]:
        """uint8 (H, W, 3) and labels (H, W) -> both (h, w), at most the crop's side; what is missing is filled up after normalisation.

        Draws come from NumPy's old generator in the published order, so that a seed means what it means there.
        """
        draw = RandomState(seed)
        scale = draw.random_sample() * (SCALES[1] - SCALES[0]) + SCALES[0]
        size = resized((photo.shape[0], photo.shape[1]), int(self.limits[1] * scale), int(self.limits[0] * scale))
        photo, labels = resized_8bit(photo, size), nearest(labels, size)
        rows, columns = cut(labels, (self.crop, self.crop), draw, self.ignore)
        photo, labels = photo[rows, columns], labels[rows, columns]
        if draw.rand() < 0.5:
            photo, labels = photo[:, ::-1], labels[:, ::-1]
        return coloured(np.ascontiguousarray(photo), draw), np.ascontiguousarray(labels)


def nearest(labels: Labels, size: Size) -> Labels:
    """Labels (H, W) -> ``size`` as OpenCV resizes them: each pixel takes the label at floor(index * scale)."""
    rows, columns = (
        np.minimum((np.arange(target) * (source / target)).astype(np.int64), source - 1)
        for source, target in zip(labels.shape, size, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def cut(labels: Labels, size: Size, draw: RandomState, ignore: int = 255, largest: float = LARGEST) -> tuple[slice, slice]:
    """A window of ``size`` in which no class has too much of the labelled pixels, if one is found among the first few."""
    window = _window(labels, size, draw)
    for _ in range(TRIES):
        found = labels[window]
        counts = np.unique(found[found != ignore], return_counts=True)[1]
        if len(counts) > 1 and counts.max() / counts.sum() < largest:
            return window
        window = _window(labels, size, draw)
    return window


def coloured(photo: Photo, draw: RandomState) -> Photo:
    """Brightness, contrast, saturation and hue, each changed with probability 1/2; photo uint8 (H, W, 3) RGB."""
    if draw.randint(2):
        photo = linear(photo, 1, draw.uniform(-32, 32))
    contrast_first = draw.randint(2) == 1
    if contrast_first:
        photo = _contrast(photo, draw)
    if draw.randint(2):
        photo = saturated(photo, draw.uniform(0.5, 1.5))
    if draw.randint(2):
        photo = turned(photo, int(draw.randint(-18, 18)))
    return photo if contrast_first else _contrast(photo, draw)


def _contrast(photo: Photo, draw: RandomState) -> Photo:
    return linear(photo, draw.uniform(0.5, 1.5), 0) if draw.randint(2) else photo


def _window(labels: Labels, size: Size, draw: RandomState) -> tuple[slice, slice]:
    top, left = (int(draw.randint(0, max(whole - part, 0) + 1)) for whole, part in zip(labels.shape, size, strict=True))
    return slice(top, top + size[0]), slice(left, left + size[1])

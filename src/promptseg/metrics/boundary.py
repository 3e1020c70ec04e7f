"""Boundary IoU (Cheng et al. 2021): the overlap of the bands that two masks have along the inside of their outlines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import BoolArray, IntArray, as_mask, as_masks, plane
from .iou import PairIoU, iou
from .semantic import SemanticIoU

Labels = TypeVar("Labels", bound=np.generic)
SHARE = 0.02  # of the photo's diagonal that a band is wide (Cheng et al., section 4)


def band_width(shape: tuple[int, ...], share: float = SHARE) -> int:
    """Pixels, at least 1, that ``share`` of the diagonal of a (H, W) photo comes to."""
    return max(1, round(share * math.hypot(*shape)))


def band(mask: ArrayLike, width: int) -> BoolArray:
    """Pixels of a (H, W) mask at most ``width`` rows or columns from the outside; beyond the photo is outside."""
    array = plane(as_mask(mask, "mask"))
    return array & ~_eroded(array, width)


def boundary_iou(prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None, share: float = SHARE) -> float:
    """IoU of the bands of two (H, W) masks, 0..1, where ``known``; NaN when both are empty."""
    ours, truth, counts = as_masks(prediction, target, known)
    width = band_width(plane(truth).shape, share)
    return iou(band(ours, width), band(truth, width), counts)


@dataclass
class BoundaryIoU(PairIoU):
    """Mean over (photo, prompt) pairs of the boundary IoU of one mask with its truth; ``share`` of the diagonal is the band's width."""

    share: float = SHARE

    def update(self, name: str | int, prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> Self:
        """One pair; (H, W) arrays, bool or integers. Bands are those of the whole masks; only pixels that are ``known`` count."""
        return self.add(name, boundary_iou(prediction, target, known, self.share))


@dataclass
class SemanticBoundaryIoU(SemanticIoU):
    """The boundary IoU of label maps as detectron2's semantic evaluator counts it.

    A map minus the least label in the neighbourhood is taken for a map of labels again. The differences name no class that is really
    there, so this figure serves comparison with published ones only; `BoundaryIoU` with a class's mask is the paper's measure.
    """

    share: float = SHARE

    def count(self, prediction: ArrayLike, target: ArrayLike) -> IntArray:
        """The matrix of one photo, which is not added; ignored labels and pixels without prediction are the class after the last."""
        rows, columns = self._read(prediction, target)
        width = band_width(columns.shape, self.share)
        return self._table(rows - _eroded(rows, width), columns - _eroded(columns, width))


def _eroded(array: NDArray[Labels], width: int) -> NDArray[Labels]:
    """(H, W): the least value at most ``width`` rows and columns away, 0 (outside) beyond the photo."""
    padded: NDArray[Any] = np.pad(array, width)
    for axis in (0, 1):
        padded = _running_minimum(padded, 2 * width + 1, axis)
    return padded


def _running_minimum(array: NDArray[Any], window: int, axis: int) -> NDArray[Any]:
    """The least of every ``window`` neighbours along an axis, which becomes shorter by window - 1. Windows double until they suffice."""
    array = np.moveaxis(array, axis, 0)
    span = 1
    while span < window:
        step = min(span, window - span)
        array = np.minimum(array[:-step], array[step:])
        span += step
    return np.moveaxis(array, 0, axis)

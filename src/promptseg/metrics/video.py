"""Objects in video: region similarity J, contour accuracy F and J&F (DAVIS: Perazzi et al. 2016, Pont-Tuset et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .accumulator import Accumulator
from .arrays import BoolArray, EmptyRule, FloatArray, Name, as_masks, checked, in_order, mean, plane
from .iou import iou

TOLERANCE = 0.008  # of the diagonal: how far a contour may be off
Frames: TypeAlias = dict[int, tuple[float, float]]  # J and F by frame number, NaN where both masks are empty


def contours(mask: BoolArray) -> BoolArray:
    """Pixels of a (H, W) mask's outline: those that differ from the pixel right of, below, or right below them, inside the map."""
    last = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return np.asarray((mask != last[:-1, 1:]) | (mask != last[1:, :-1]) | (mask != last[1:, 1:]))


def contour_accuracy(prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None, tolerance: float = TOLERANCE) -> float:
    """F: harmonic mean of the share of predicted outline near the true one and the reverse, 0..1; NaN when both masks have no outline.

    Near is inside a disc of ceil(``tolerance`` x diagonal) pixels. Pixels that are not ``known`` are taken out of both masks.
    """
    ours, truth, counts = as_masks(prediction, target, known)
    if counts is not None:
        ours, truth = ours & counts, truth & counts
    radius = math.ceil(tolerance * math.hypot(*plane(truth).shape))
    found, wanted = contours(ours), contours(truth)
    if not found.any() or not wanted.any():
        return math.nan if not found.any() and not wanted.any() else 0.0
    precision = np.count_nonzero(found & _near(wanted, radius)) / np.count_nonzero(found)
    recall = np.count_nonzero(wanted & _near(found, radius)) / np.count_nonzero(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(points: BoolArray, radius: int) -> BoolArray:
    """Pixels inside a disc around any point. Each row of the disc is one interval, kept as +1 at its start and -1 past its end."""
    height, width = points.shape
    rows, columns = np.nonzero(points)
    ends = np.zeros((height + 2 * radius, width + 2 * radius + 1), dtype=np.int32)
    for offset in range(-radius, radius + 1):
        half = math.isqrt(radius**2 - offset**2)
        ends[rows + radius + offset, columns + radius - half] += 1  # no place occurs twice, as the points are different
        ends[rows + radius + offset, columns + radius + half + 1] -= 1
    near = ends.cumsum(axis=1) > 0
    return np.asarray(near[radius : radius + height, radius : radius + width])


@dataclass(frozen=True, slots=True)
class Statistic:
    """Of one measure over frames: its ``mean``, the ``recall`` (share of frames above 0.5) and the ``decay`` from first to last quarter."""

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True, slots=True)
class VideoResult:
    """Means over all objects of all sequences, and each (sequence, object) for itself. ``j_and_f``: mean of the two means."""

    j_and_f: float
    j: Statistic
    f: Statistic
    per_object: Mapping[tuple[Name, Name], tuple[Statistic, Statistic]]
    absent: EmptyRule
    skip_ends: bool


@dataclass
class VideoJF(Accumulator[VideoResult]):
    """J, F and J&F as davis2017-evaluation computes them.

    ``absent``: what a frame counts, in either measure, in which the object is neither shown nor marked. ``skip_ends`` leaves out each
    object's first and last frame, as the semi-supervised protocol does, whose first mask is given.
    """

    absent: EmptyRule = "one"
    skip_ends: bool = False
    tolerance: float = TOLERANCE
    frames: dict[Name, dict[Name, Frames]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        checked(self.absent, EmptyRule)

    def update(
        self, sequence: Name, thing: Name, frame: int, prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None
    ) -> Self:
        """One object in one frame; (H, W) masks, bool or integers. Frames may come in any order.

        Raises:
            DataError: the shapes differ, or the frame was already counted.
        """
        frames = self.frames.setdefault(sequence, {}).setdefault(thing, {})
        if frame in frames:
            raise DataError(f"Frame {frame} of {thing!r} in {sequence!r} was already counted; give each frame once.")
        frames[frame] = (iou(prediction, target, known), contour_accuracy(prediction, target, known, self.tolerance))
        return self

    def per_frame(self, sequence: Name, thing: Name) -> FloatArray:
        """(T, 2): J and F of an object's frames in order; NaN in a frame that the rule leaves out."""
        frames = self.frames[sequence][thing]
        values = np.array([frames[number] for number in sorted(frames)], dtype=np.float64).reshape(-1, 2)
        if self.absent != "skip":
            values[np.isnan(values)] = float(self.absent == "one")
        return values[1:-1] if self.skip_ends else values

    def compute(self) -> VideoResult:
        """NaN before any update."""
        objects = [(sequence, thing) for sequence in in_order(self.frames) for thing in in_order(self.frames[sequence])]
        values = {key: self.per_frame(*key) for key in objects}
        per_object = {key: (statistic(both[:, 0]), statistic(both[:, 1])) for key, both in values.items()}
        j, f = (_averaged([pair[place] for pair in per_object.values()]) for place in (0, 1))
        return VideoResult((j.mean + f.mean) / 2, j, f, per_object, self.absent, self.skip_ends)


def statistic(values: FloatArray) -> Statistic:
    """Mean, recall and decay of one measure over an object's frames (T,), those that are NaN left out."""
    counted = values[~np.isnan(values)]
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1  # quarters share the frames at their ends
    first, last = (mean(values[start : end + 1]) for start, end in (edges[:2], edges[-2:]))
    return Statistic(mean(values), mean(counted > 0.5), first - last)


def _averaged(parts: list[Statistic]) -> Statistic:
    return Statistic(*(mean(getattr(part, figure) for part in parts) for figure in ("mean", "recall", "decay")))

"""Every threshold in one pass: how the IoUs move with it, which is best, and the average precision of CLIPSeg."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError, DataError
from .accumulator import Accumulator
from .arrays import AbsentRule, FloatArray, IntArray, Name, as_mask, checked, in_order, iou_of_classes, mean, ratios, same_shape

Figure: TypeAlias = Literal["mean", "foreground", "binary"]
CLIPSEG_THRESHOLDS = tuple(np.linspace(0, 1, 51)[1:-1].tolist())  # 0.02 to 0.98, as published


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The figures, 0..1, at one threshold."""

    threshold: float
    mean: float
    foreground: float
    binary: float


@dataclass(frozen=True, slots=True, eq=False)
class SweepResult:
    """Figures (T,), 0..1, per threshold: ``mean`` of the classes' IoU, ``foreground`` IoU of all pixels, ``binary``: mean of that and the
    background's. ``curve`` (n, 2): distinct pairs of recall and precision by rising recall; ``average_precision`` is its Simpson integral.
    """

    thresholds: FloatArray
    mean: FloatArray
    foreground: FloatArray
    binary: FloatArray
    curve: FloatArray
    average_precision: float
    smoothing: int
    absent: AbsentRule

    def at(self, threshold: float) -> OperatingPoint:
        """The figures at one of the thresholds.

        Raises:
            ConfigError: it is none of them, to the last digit.
        """
        found = np.flatnonzero(self.thresholds == threshold)
        if not len(found):
            closest = float(self.thresholds[np.abs(self.thresholds - threshold).argmin()])
            raise ConfigError(f"{threshold!r} is none of the {len(self.thresholds)} thresholds; the nearest is {closest!r}.")
        return self._point(int(found[0]))

    def best(self, figure: Figure = "mean") -> OperatingPoint:
        """The figures where one of them is largest; the lowest such threshold.

        Raises:
            ConfigError: there is no such figure.
        """
        checked(figure, Figure, "figure")
        values: FloatArray = getattr(self, figure)
        return self._point(0 if np.isnan(values).all() else int(np.nanargmax(values)))

    def _point(self, index: int) -> OperatingPoint:
        return OperatingPoint(*(float(values[index]) for values in (self.thresholds, self.mean, self.foreground, self.binary)))


@dataclass
class ThresholdSweep(Accumulator[SweepResult]):
    """Scores, 0..1, of named masks against their truths at many thresholds at once: ``FixedIntervalMetrics`` of CLIPSeg.

    A pixel is in the mask when its score is larger than the threshold (compared in the scores' own precision). Only counts are kept:
    2 (T+1) integers per name, however many pixels there are. As published, ``smoothing`` 1 is added to every denominator, so that even a
    perfect answer stays below 1; 0 gives the plain definitions. A name may be a class or a sample's number: then ``mean`` is per sample.
    """

    thresholds: tuple[float, ...] = CLIPSEG_THRESHOLDS
    smoothing: int = 1
    absent: AbsentRule = "zero"
    counts: dict[Name, IntArray] = field(default_factory=dict, init=False)  # (2, T+1): by truth and number of thresholds below the score

    def __post_init__(self) -> None:
        self.thresholds = tuple(map(float, self.thresholds))
        checked(self.absent, AbsentRule)
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ConfigError(f"thresholds={self.thresholds} do not rise; give at least one, each larger than the one before.")

    def update(self, name: Name, scores: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> Self:
        """One mask: scores float, target and known bool or integers, of one shape; only pixels that are ``known`` count.

        Raises:
            DataError: the shapes differ, or a score is not a number.
        """
        values, truth = np.asarray(scores), as_mask(target, "target")
        values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
        same_shape(scores=values, target=truth)
        if known is not None:
            counted = as_mask(known, "map of known pixels")
            same_shape(scores=values, known=counted)
            values, truth = values[counted], truth[counted]
        if np.isnan(values).any():
            raise DataError(f"The scores of {name!r} hold NaN; a sweep needs numbers, such as probabilities.")
        bins = len(self.thresholds) + 1
        below = np.searchsorted(np.array(self.thresholds, dtype=values.dtype), values.ravel(), side="left")
        counts = np.bincount(below + bins * truth.ravel(), minlength=2 * bins).reshape(2, bins)
        self.counts[name] = self.counts[name] + counts if name in self.counts else counts
        return self

    def names(self) -> list[Name]:
        """The names so far: numbers, then texts, each in their order."""
        return in_order(self.counts)

    def confusion(self) -> IntArray:
        """(C, 4, T): per name and threshold the pixels hit, falsely marked, missed, rightly left out."""
        counts = np.array([self.counts[name] for name in self.names()], dtype=np.int64).reshape(-1, 2, len(self.thresholds) + 1)
        marked = counts[..., ::-1].cumsum(-1)[..., -2::-1]  # from the largest score down: how many lie above each threshold
        unmarked = counts.sum(-1, keepdims=True) - marked
        return np.stack([marked[:, 1], marked[:, 0], unmarked[:, 1], unmarked[:, 0]], axis=1)

    def compute(self) -> SweepResult:
        """NaN (the average precision: 0) before any update."""
        table = self.confusion()
        whole = table.sum(0)
        foreground, background = self._whole(whole), self._whole(whole[::-1])
        curve = self._curve(whole)
        return SweepResult(
            thresholds=np.array(self.thresholds),
            mean=np.array([mean(column) for column in self._per_class(table).T]),
            foreground=foreground,
            binary=np.array([mean(pair) for pair in zip(foreground, background, strict=True)]),
            curve=curve,
            average_precision=simpson(curve[:, 0], curve[:, 1]),
            smoothing=self.smoothing,
            absent=self.absent,
        )

    def _per_class(self, table: IntArray) -> FloatArray:
        """IoUs (C, T) of tables (C, 4, T), NaN where the rule leaves a class out."""
        hits, false, missed = table[:, 0], table[:, 1], table[:, 2]
        return iou_of_classes(hits, hits + false + missed, hits + missed, self.absent, self.smoothing)

    def _whole(self, whole: IntArray) -> FloatArray:
        """IoU (T,) of a table (4, T), NaN where no pixel was measured."""
        return ratios(whole[0], np.where(whole.any(0), self.smoothing + whole[:3].sum(0), 0))

    def _curve(self, whole: IntArray) -> FloatArray:
        """(4, T) -> (n, 2), for thresholds with any marked pixel. Pairs of equal recall keep the order that Python's set gives them, as in
        the published code, whose average precision depends on it."""
        hits, false, missed, _ = whole[:, whole[0] + whole[1] > 0]
        recall, precision = ratios(hits, self.smoothing + hits + missed), ratios(hits, self.smoothing + hits + false)
        pairs = sorted(set(zip(recall.tolist(), precision.tolist(), strict=True)), key=lambda pair: pair[0])
        return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def simpson(x: FloatArray, y: FloatArray) -> float:
    """Integral of y over unevenly spaced x by Simpson's rule; an even number of points ends with Cartwright's correction (SciPy >= 1.11).

    A zero-width step leaves out the terms that it would divide by, as SciPy does.
    """
    if len(x) < 2:
        return 0.0
    step = np.diff(x)
    if len(x) == 2:
        return float(step[0] * y.sum() / 2)
    h0, h1 = step[:-1:2], step[1::2]
    width, slope = h0 + h1, _divided(h0, h1)
    inner = y[1:-1:2] * width * _divided(width, h0 * h1)
    parts = width / 6 * (y[:-2:2] * (2 - _divided(np.ones_like(slope), slope)) + inner + y[2::2] * (2 - slope))
    return float(parts.sum()) + (_last_interval(step[-2], step[-1], y) if len(x) % 2 == 0 else 0.0)


def _last_interval(h0: float, h1: float, y: FloatArray) -> float:
    """The last of an odd number of intervals, by the parabola through the last three points (Cartwright 2017, eq. 8)."""
    last = (2 * h1**2 + 3 * h0 * h1) / (6 * (h0 + h1)) if h0 + h1 else 0.0
    middle = (h1**2 + 3 * h0 * h1) / (6 * h0) if h0 else 0.0
    first = h1**3 / (6 * h0 * (h0 + h1)) if h0 * (h0 + h1) else 0.0
    return float(last * y[-1] + middle * y[-2] - first * y[-3])


def _divided(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)

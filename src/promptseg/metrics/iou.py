"""Intersection over union in its usual readings, and how well a model knows what is not there."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np


def intersection_union(prediction: np.ndarray, target: np.ndarray, known: np.ndarray | None = None) -> tuple[int, int]:
    """Pixels in both and in either of two bool (H, W) masks, where ``known``."""
    if known is not None:
        prediction, target = prediction & known, target & known
    return int(np.count_nonzero(prediction & target)), int(np.count_nonzero(prediction | target))


class MeanIoU:
    """Mean over classes of the IoU over a whole set: intersections and unions add up per class before they are divided."""

    def __init__(self) -> None:
        self.intersection: defaultdict[str, int] = defaultdict(int)
        self.union: defaultdict[str, int] = defaultdict(int)

    def update(self, name: str, prediction: np.ndarray, target: np.ndarray, known: np.ndarray | None = None) -> MeanIoU:
        both, either = intersection_union(prediction, target, known)
        self.intersection[name] += both
        self.union[name] += either
        return self

    def merge(self, other: MeanIoU) -> MeanIoU:
        for name, count in other.intersection.items():
            self.intersection[name] += count
        for name, count in other.union.items():
            self.union[name] += count
        return self

    def per_class(self) -> dict[str, float]:
        """Class -> IoU; a class that is neither shown nor predicted anywhere is left out."""
        return {name: self.intersection[name] / union for name, union in sorted(self.union.items()) if union}

    def compute(self) -> float:
        """0..1, or NaN before any update."""
        values = list(self.per_class().values())
        return float(np.mean(values)) if values else math.nan


class BinaryIoU:
    """Mean over (photo, prompt) pairs of the IoU of one mask with its truth; an empty answer to an empty truth counts 1."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[float]] = defaultdict(list)

    def update(self, name: str, prediction: np.ndarray, target: np.ndarray, known: np.ndarray | None = None) -> BinaryIoU:
        both, either = intersection_union(prediction, target, known)
        self.values[name].append(both / either if either else 1.0)
        return self

    def merge(self, other: BinaryIoU) -> BinaryIoU:
        for name, values in other.values.items():
            self.values[name] += values
        return self

    def per_class(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in sorted(self.values.items())}

    def compute(self) -> float:
        """0..1, or NaN before any update."""
        values = [value for group in self.values.values() for value in group]
        # a sum in sorted order is the same however the parts were merged
        return math.fsum(values) / len(values) if values else math.nan


class Presence:
    """Answers to "is it there at all": how often an absent name gets a mask, and Matthews' correlation of the decision."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, 2), dtype=np.int64)  # truth x answer
        self.absent = 0
        self.masked = 0

    def update(self, truth: bool, answer: bool, share: float, *, tolerated: float = 0.01) -> Presence:
        """``share``: part of the photo that the mask covers; more than ``tolerated`` on an absent name is a false mask."""
        self.counts[int(truth), int(answer)] += 1
        if not truth:
            self.absent += 1
            self.masked += share > tolerated
        return self

    def merge(self, other: Presence) -> Presence:
        self.counts += other.counts
        self.absent += other.absent
        self.masked += other.masked
        return self

    def false_masks(self) -> float:
        """Share of absent names with a mask, 0..1, or NaN without any absent name."""
        return self.masked / self.absent if self.absent else math.nan

    def matthews(self) -> float:
        """-1..1; 0 where a row or column of the table is empty."""
        (tn, fp), (fn, tp) = self.counts.astype(float)
        scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return (tp * tn - fp * fn) / scale if scale else 0.0

"""Label maps against label maps: one confusion matrix over the data set, and everything that is read off it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError
from .accumulator import Accumulator
from .arrays import AbsentRule, FloatArray, IntArray, checked, iou_of_classes, mean, ratio, ratios, same_shape

Result = TypeVar("Result", covariant=True)
NOTHING = -1  # a predicted pixel without any class, as in `SemanticMap.labels`


@dataclass
class Confusion(Accumulator[Result]):
    """Counts pixels by predicted and labelled class.

    ``classes``: names, in the order of the indices. ``ignore``: the label that does not count, None where there is none. ``matrix``
    (N+1, N+1): rows are predictions, columns labels; the last column holds ignored labels, the last row pixels predicted as nothing (-1),
    which are misses of their labelled class.
    """

    classes: tuple[str, ...]
    ignore: int | None = 255
    absent: AbsentRule = "skip"
    matrix: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.classes = tuple(self.classes)
        checked(self.absent, AbsentRule)
        if len(set(self.classes)) < len(self.classes) or not self.classes:
            raise ConfigError(f"{len(self.classes)} class names, {len(set(self.classes))} of them different; give each class its own name.")
        self.matrix = np.zeros((len(self.classes) + 1,) * 2, dtype=np.int64)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> Self:
        """One photo: integer maps (H, W) of class indices; predicted -1 is nothing.

        Raises:
            DataError: the shapes differ, or a value is no class.
        """
        self.matrix = self.matrix + self.count(prediction, target)
        return self

    def count(self, prediction: ArrayLike, target: ArrayLike) -> IntArray:
        """The matrix of one photo, which is not added."""
        return self._table(*self._read(prediction, target))

    def _read(self, prediction: ArrayLike, target: ArrayLike) -> tuple[IntArray, IntArray]:
        """Rows and columns of the matrix, (H, W) each."""
        rows, columns = np.asarray(prediction), np.asarray(target)
        same_shape(prediction=rows, target=columns)
        return self._indices(rows, "prediction", NOTHING), self._indices(columns, "target", self.ignore)

    def _table(self, rows: IntArray, columns: IntArray) -> IntArray:
        side = len(self.matrix)
        return np.bincount((side * rows + columns).ravel(), minlength=side * side).reshape(side, side)

    def _indices(self, labels: NDArray[Any], what: str, last: int | None) -> IntArray:
        """Labels as indices of the matrix; the value ``last`` belongs to its last row or column."""
        if labels.dtype.kind not in "iu":
            raise DataError(f"The {what} is {labels.dtype}; a label map holds integers, one class index per pixel.")
        count, indices = len(self.classes), labels.astype(np.int64)
        special = np.zeros(labels.shape, dtype=np.bool_) if last is None else indices == last
        wrong = ((indices < 0) | (indices >= count)) & ~special
        if wrong.any():
            raise DataError(
                f"The {what} holds the value {indices[wrong][0]}; there are classes 0 to {count - 1}"
                f"{'' if last is None else f' and {last}, which does not count as one'}. Map other labels before measuring."
            )
        return np.where(special, count, indices)

    def iou(self, matrix: IntArray | None = None, absent: AbsentRule | None = None) -> FloatArray:
        """IoU per class, 0..1, NaN where the rule leaves a class out; of the whole set unless a photo's matrix is given."""
        hits, marked, labelled = _totals(self.matrix if matrix is None else matrix)
        return iou_of_classes(hits, marked + labelled - hits, labelled, absent or self.absent)

    def named(self, values: FloatArray) -> dict[str, float]:
        """One figure per class by its name; NaN where it has none."""
        return dict(zip(self.classes, values.tolist(), strict=True))


def _totals(matrix: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Per class: pixels hit, marked, labelled; ignored labels do not count."""
    counted = matrix[:, :-1]
    return counted.diagonal(), counted.sum(1)[:-1], counted.sum(0)


@dataclass(frozen=True, slots=True)
class SemanticResult:
    """All 0..1. ``iou``, ``accuracy`` and ``dice`` are per class; NaN: undefined, or left out by the rule.

    ``mean_iou``: over the set; ``image_mean_iou``: each photo's mean over the classes that are in it, averaged over photos;
    ``frequency_weighted_iou``: classes weighted by their labelled pixels; ``mean_accuracy``: over the labelled classes.
    """

    mean_iou: float
    image_mean_iou: float
    frequency_weighted_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    iou: Mapping[str, float]
    accuracy: Mapping[str, float]
    dice: Mapping[str, float]
    images: int
    absent: AbsentRule
    ignore: int | None


@dataclass
class SemanticIoU(Confusion[SemanticResult]):
    """mIoU, accuracies and Dice of label maps (mmsegmentation's figures; with ``absent="labelled"`` detectron2's).

    A photo's own mean is over classes that are labelled or predicted in it, with ``absent="labelled"`` over those labelled in it.
    """

    of_images: Fraction = field(default=Fraction(0), init=False)
    images: int = field(default=0, init=False)

    def update(self, prediction: ArrayLike, target: ArrayLike) -> Self:
        """One photo: integer maps (H, W) of class indices; predicted -1 is nothing.

        Raises:
            DataError: the shapes differ, or a value is no class.
        """
        matrix = self.count(prediction, target)
        self.matrix = self.matrix + matrix
        own = mean(self.iou(matrix, "labelled" if self.absent == "labelled" else "skip"))
        if not np.isnan(own):  # a photo of ignored pixels only has no mean
            self.of_images += Fraction(own)
            self.images += 1
        return self

    def compute(self) -> SemanticResult:
        """NaN before any update."""
        hits, marked, labelled = _totals(self.matrix)
        iou, accuracy = self.iou(), ratios(hits, labelled)
        plain = self.iou(absent="labelled")
        return SemanticResult(
            mean_iou=mean(iou),
            image_mean_iou=float(self.of_images / self.images) if self.images else float("nan"),
            frequency_weighted_iou=ratio(float(np.nansum(plain * labelled)), labelled.sum()),
            pixel_accuracy=ratio(hits.sum(), labelled.sum()),
            mean_accuracy=mean(accuracy),
            iou=self.named(iou),
            accuracy=self.named(accuracy),
            dice=self.named(ratios(2 * hits, marked + labelled)),
            images=self.images,
            absent=self.absent,
            ignore=self.ignore,
        )


@dataclass(frozen=True, slots=True)
class ZeroShotResult:
    """All 0..1: mean IoU over the ``seen`` and the ``unseen`` classes, their ``harmonic`` mean, and the mean over all classes."""

    seen: float
    unseen: float
    harmonic: float
    overall: float
    iou: Mapping[str, float]
    absent: AbsentRule


@dataclass
class ZeroShotIoU(Confusion[ZeroShotResult]):
    """Generalised zero-shot mIoU: all classes compete for every pixel; ``unseen`` names those that had no masks in training.

    The background, where it is a class, counts as seen. CLIPSeg's evaluator lets a class that is nowhere count 0, hence the default.
    """

    absent: AbsentRule = "zero"
    unseen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unseen = tuple(self.unseen)
        if unknown := set(self.unseen) - set(self.classes):
            raise ConfigError(f"unseen holds {', '.join(sorted(unknown))}, which is none of the classes; use the names of classes.")

    def compute(self) -> ZeroShotResult:
        """NaN where a group has no class that counts."""
        iou = self.iou()
        is_unseen = np.isin(self.classes, self.unseen)
        seen, unseen = mean(iou[~is_unseen]), mean(iou[is_unseen])
        harmonic = 0.0 if seen == unseen == 0 else 2 * seen * unseen / (seen + unseen)
        return ZeroShotResult(seen, unseen, harmonic, mean(iou), self.named(iou), self.absent)

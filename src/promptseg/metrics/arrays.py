"""Reading what a metric is given, and the two rules that decide about what is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError, nearest

BoolArray: TypeAlias = NDArray[np.bool_]
IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
Name: TypeAlias = str | int

AbsentRule: TypeAlias = Literal["skip", "labelled", "zero", "one"]
"""What a class counts that is absent.

"skip": left out when it is neither labelled nor predicted anywhere; only predicted, it counts 0 (mmsegmentation, torchmetrics).
"labelled": left out unless it is labelled somewhere (detectron2).
"zero", "one": counts 0 (CLIPSeg's zero-shot evaluator) or 1 when it is neither labelled nor predicted.
"""
EmptyRule: TypeAlias = Literal["one", "zero", "skip"]
"""What one mask counts when neither it nor its truth has a pixel: 1, 0, or left out."""


def checked(rule: str, allowed: Any, name: str = "absent") -> None:
    """Refuse a choice that does not exist.

    Raises:
        ConfigError: then; it lists what ``allowed``, a Literal, holds.
    """
    names = get_args(allowed)
    if rule not in names:
        raise ConfigError(f"{name}={rule!r} is not known; choose one of {', '.join(map(repr, names))}.{nearest(str(rule), names)}")


def as_mask(values: ArrayLike, what: str) -> BoolArray:
    """Anything array-like of bool, or of integers (not 0: in the mask) -> bool.

    Raises:
        DataError: it holds floating-point numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise DataError(f"The {what} is {array.dtype}; a mask is bool or integers. Apply a threshold to probabilities first.")
    return array if array.dtype == np.bool_ else array != 0


def as_masks(prediction: ArrayLike, target: ArrayLike, known: ArrayLike | None = None) -> tuple[BoolArray, BoolArray, BoolArray | None]:
    """Prediction, target and the pixels that count (None: all), as bool arrays of one shape.

    Raises:
        DataError: the shapes differ, or one is no mask.
    """
    ours, truth = as_mask(prediction, "prediction"), as_mask(target, "target")
    counts = None if known is None else as_mask(known, "map of known pixels")
    same_shape(prediction=ours, target=truth, **({} if counts is None else {"known": counts}))
    return ours, truth, counts


def same_shape(**arrays: NDArray[Any]) -> None:
    """Refuse arrays of different shapes.

    Raises:
        DataError: it names every shape.
    """
    if len({array.shape for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(f"The shapes differ: {shapes}. Resize to the photo's size before measuring.")


def in_order(names: Iterable[Name]) -> list[Name]:
    """Names in one order whatever order they came in: numbers, then texts."""
    return sorted(names, key=lambda name: (isinstance(name, str), name))


def plane(mask: BoolArray) -> BoolArray:
    """The mask, whose outline is asked for, if it is (H, W).

    Raises:
        DataError: it has another number of dimensions.
    """
    if mask.ndim != 2:
        raise DataError(f"An outline needs a mask (H, W), but this one has the shape {mask.shape}; give one photo and one mask at a time.")
    return mask


def ratio(part: float, whole: float) -> float:
    """part / whole, or NaN where the whole is 0."""
    return float(part) / float(whole) if whole else math.nan


def ratios(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    """part / whole elementwise, NaN where the whole is 0."""
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole != 0)
    return result


def iou_of_classes(hits: IntArray, union: IntArray, labelled: IntArray, rule: AbsentRule, smoothing: int = 0) -> FloatArray:
    """IoU per class from its pixels; NaN for a class that the rule leaves out. ``smoothing`` is added to every union."""
    scores = ratios(hits, np.where(union > 0, union + smoothing, 0))
    if rule in ("zero", "one"):
        scores[union == 0] = float(rule == "one")
    if rule == "labelled":
        scores[labelled == 0] = np.nan
    return scores


def mean(values: Iterable[float]) -> float:
    """Mean of what is not NaN, rounded once, so that the order does not matter; NaN of nothing."""
    numbers = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan

"""Figures that CLIPSeg's tables are made of, read off a sweep over thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from ..errors import ConfigError
from ..metrics import CLIPSEG_THRESHOLDS, SweepResult

__all__ = ["Show", "at", "checked_threshold", "checked_window", "summary"]

Show: TypeAlias = Literal["text", "visual"]


def checked_threshold(threshold: float) -> None:
    """Refuse a threshold that the sweep does not measure.

    Raises:
        ConfigError: then.
    """
    if not np.isclose(CLIPSEG_THRESHOLDS, threshold).any():
        raise ConfigError(f"threshold is one of 0.02, 0.04, ... 0.98, the thresholds of the published sweep, not {threshold}.")


def checked_window(size: int) -> None:
    """Refuse an impossible side of the network's input.

    Raises:
        ConfigError: then.
    """
    if not 16 <= size <= 8192:
        raise ConfigError(f"size is the side of the network's input in pixels, 16 to 8192, not {size}.")


def at(result: SweepResult, threshold: float) -> Any:
    """The figures at the measured threshold that is meant."""
    return result.at(float(result.thresholds[np.abs(result.thresholds - threshold).argmin()]))


def summary(result: SweepResult, threshold: float, figures: Sequence[str]) -> dict[str, float]:
    """Any of "mIoU", "IoU_FG", "IoU_BIN" at a fixed and at its best threshold, and "AP", by the names that rows have."""
    fields = {"mIoU": "mean", "IoU_FG": "foreground", "IoU_BIN": "binary"}
    fixed = {figure: getattr(at(result, threshold), fields[figure]) for figure in figures}
    best: dict[str, float] = {figure: getattr(result.best(fields[figure]), fields[figure]) for figure in figures}  # type: ignore[arg-type]
    return {**fixed, "AP": result.average_precision, **{f"{figure} at its best threshold": value for figure, value in best.items()}}

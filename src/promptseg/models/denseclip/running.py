"""The family's training run: of a segmenter or of a detector, as its recipe says."""

from __future__ import annotations

from collections.abc import Callable

from ...contracts import Recipe
from .detection.recipes import DetectionTraining
from .detection.run import DetectionRun
from .run import DenseClipRun


class Run:
    """``Run(recipe)`` is a `DenseClipRun` or a `DetectionRun`."""

    def __new__(cls, recipe: Recipe, log: Callable[[str], None] = print) -> DenseClipRun | DetectionRun:  # type: ignore[misc]
        return (DetectionRun if isinstance(recipe.options, DetectionTraining) else DenseClipRun)(recipe, log)

"""What a benchmark is made of: a `Protocol` has `Part`s, passes over photos; a part counts photo by photo; figures come from sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..abilities import require_kinds, require_task
from ..contracts import PromptKind, Task
from ..errors import DataError
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Counted", "Figures", "Metrics", "Part", "Picture", "Protocol"]

Metrics: TypeAlias = Mapping[str, Any]  # `metrics.Accumulator`s by what they measure
Figures: TypeAlias = Mapping[str, float]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What the sheet of cases shows: a photo uint8 (H, W, 3), and bool (H, W) masks by name as answered and as labelled."""

    photo: NDArray[np.uint8]
    answered: Mapping[str, BoolArray]
    labelled: Mapping[str, BoolArray]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What one photo adds: a fresh metric of each kind, updated with this photo alone. ``picture`` is made for few photos only."""

    metrics: Metrics
    picture: Callable[[], Picture]


class Part(ABC):
    """One pass over photos. ``name``: what progress and tables call it."""

    name: str

    @property
    @abstractmethod
    def keys(self) -> Sequence[str]:
        """The photo's (or the question's) id, case by case."""

    @property
    def groups(self) -> Sequence[str]:
        """What is drawn as a whole when the confidence interval is estimated, case by case; each case by itself unless a part says else."""
        return [str(index) for index in range(len(self.keys))]

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """Every metric before the first photo."""

    @abstractmethod
    def count(self, index: int, segmenter: Segmenter) -> Counted:
        """Ask the model about case ``index`` and count the answer.

        Raises:
            DataError: the photo or its annotation cannot be read.
        """

    @abstractmethod
    def figures(self, metrics: Metrics) -> Figures:
        """What is read off sums, of one photo (where the first figure ranks it) or of all."""


@dataclass(frozen=True)
class Protocol(ABC):
    """A benchmark: data, prompts, metric, post-processing. Fields are its options; ``root`` is where the data lies.

    Making one touches no file. ``TITLE`` is one line for lists, ``DATA`` the name in `data.catalogue` or the folders that it needs,
    ``PROMPTS`` the kinds of prompts that the model must take, ``TASK`` what it must do.
    """

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    DATA: ClassVar[str]
    PROMPTS: ClassVar[tuple[PromptKind, ...]] = ("text",)
    TASK: ClassVar[Task] = "masks"

    root: Path

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The passes over photos, in order.

        Raises:
            DataError: the data is not where ``root`` says.
        """

    @abstractmethod
    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        """The table, from the sums of every part by its name; called again and again for the confidence interval."""

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        """Figures per class: column -> class -> value."""
        return {}

    def published(self) -> Mapping[str, Figures]:
        """What a paper reports: model -> name of the row -> value."""
        return {}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        """All that the figures depend on beside model and data: the options; protocols add their rules."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "root"}

    def check(self, segmenter: Segmenter) -> None:
        """Refuse a model that cannot be asked.

        Raises:
            UnsupportedTask, UnsupportedPrompt: then; they name models that can.
        """
        require_task(segmenter.card, self.TASK)
        require_kinds(segmenter.card, self.PROMPTS, f"The protocol {self.NAME!r} asks by them.")


def existing(root: Path) -> Path:
    """``root`` with ``~`` resolved.

    Raises:
        DataError: there is nothing.
    """
    place = Path(root).expanduser()
    if not place.exists():
        raise DataError(f"{place} does not exist; give the place of the data with --data.")
    return place

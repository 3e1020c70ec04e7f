"""One label per pixel: semantic and panoptic maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .contracts import Size
from .drawing import Colour, palette, palette_png
from .errors import ConfigError, DataError, ImageError
from .exports import Exports
from .images import pillow_limit
from .masks import Mask, png
from .prompts import Text
from .sources import LabelSource
from .storage import read_index, taken_apart

if TYPE_CHECKING:
    from .prompts import ImageInput
    from .results import Masks

__all__ = ["GroupMap", "PanopticMap", "Segment", "SemanticMap"]

FloatArray = NDArray[np.float32]
LABELS_PNG = "labels.png"


class LabelMap(Exports):
    """What both maps share: an index per pixel, -1 where nothing is, into a list of regions with names and scores."""

    def __init__(self, index: NDArray[Any], names: Sequence[str], scores: Sequence[float] | FloatArray, photo: Any, model: str) -> None:
        if len(scores) != len(names):
            raise ConfigError(f"There are {len(scores)} scores for {len(names)} names.")
        self._index = array = _checked(index, len(names))
        self._names = tuple(names)
        self.scores = np.asarray(scores, dtype=np.float32)
        self.size: Size = (array.shape[0], array.shape[1])
        self.photo, self.model = photo, model

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """(C,) pixels per class or segment."""
        return _areas(self._index, len(self._names))

    @cached_property
    def masks(self) -> Masks:
        """The regions that have pixels, one `Mask` each, in the order of their index."""
        from .results import Masks

        masks = [
            Mask(LabelSource(self._index, index), Text(self._names[index]), presence=float(self.scores[index])) for index in self._shown
        ]
        return Masks(masks, self.size, photo=self.photo, model=self.model)

    @property
    def boxes(self) -> FloatArray:
        """(K, 4) float32 x0, y0, x1, y1, half-open pixels, one per mask."""
        return self.masks.boxes

    @cached_property
    def _shown(self) -> list[int]:
        shown: list[int] = np.flatnonzero(self.areas).tolist()
        return shown

    def to_png(self) -> bytes:
        """The map as one PNG: value + 1, so that 0 is nothing; with a palette up to 255 regions, beyond that 16-bit grey."""
        return png(palette_png(self._index, self._palette()))

    def to_numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The map, (H, W) integer, -1 where nothing is; ``force`` changes nothing, since a map is never large."""
        return self._index

    def _masks(self) -> Sequence[Mask]:
        return self.masks

    def _palette(self) -> list[Colour]:
        return palette(len(self._names))

    def _colours(self) -> list[Colour]:
        colours = self._palette()  # of a panoptic map one per segment: two dogs are told apart
        return [colours[index] for index in self._shown]

    def _index_head(self, folder: Path) -> dict[str, Any]:
        (folder / LABELS_PNG).write_bytes(self.to_png())
        return super()._index_head(folder) | {"scores": [float(score) for score in self.scores]}


class SemanticMap(LabelMap):
    """One class per pixel.

    ``classes``, ``scores`` and ``areas`` speak of every class that was asked for; ``masks``, ``boxes`` and exports of those that have
    pixels, in the same order; each mask brings its class as its ``label``, and its score.

    Attributes:
        classes: C names.
        scores: (C,) float32, mean probability of each class over its pixels, 0 where it has none.
    """

    INDEX: ClassVar[str] = "semantic.json"
    KEPT: ClassVar[tuple[str, ...]] = ("classes", "scores")  # what the index says, beside the labels

    def __init__(
        self,
        labels: NDArray[Any],
        classes: Sequence[str],
        *,
        scores: Sequence[float] | FloatArray | None = None,
        photo: ImageInput | None = None,
        model: str = "",
    ) -> None:
        """``labels``: (H, W) integer index into ``classes``, -1 where nothing is. ``scores`` None: 1 for every class.

        Raises:
            ImageError: the labels are no such array.
            ConfigError: scores and classes differ in number.
        """
        super().__init__(labels, classes, [1.0] * len(classes) if scores is None else scores, photo, model)
        self.classes = self._names

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read back a folder that `save` wrote.

        Raises:
            DataError: nothing is there, or it is damaged or another kind of result.
        """
        with taken_apart(Path(path), cls.INDEX):
            head = read_index(Path(path), cls.__name__, cls.INDEX, *cls.KEPT)
            kept = {name: head[name] for name in cls.KEPT}
            return cls(_read_labels(Path(path), head), photo=head["photo"], model=head["model"], **kept)

    @property
    def labels(self) -> NDArray[Any]:
        """(H, W) integer index into ``classes``, -1 where nothing is."""
        return self._index

    def __repr__(self) -> str:
        found = [self.classes[index] for index in self._shown[:8]]
        return f"{type(self).__name__}({self.size[1]}x{self.size[0]} pixels, {len(self._shown)} of {len(self.classes)} classes: {found})"

    def _classes(self) -> tuple[tuple[str, ...], Sequence[int]]:
        return self.classes, self._shown

    def _index_head(self, folder: Path) -> dict[str, Any]:
        return super()._index_head(folder) | {"classes": list(self.classes)}


class GroupMap(SemanticMap):
    """One group per pixel, of one stage of a model that forms groups before anything is named.

    Attributes:
        parents: C indices, of each group the group of the next stage that it became a part of; none at the last stage. Groups go there as
            wholes; the next stage's map weighs every group's shares, so along borders its pixels may be another's.
    """

    INDEX: ClassVar[str] = "groups.json"
    KEPT: ClassVar[tuple[str, ...]] = (*SemanticMap.KEPT, "parents")

    def __init__(
        self,
        labels: NDArray[Any],
        classes: Sequence[str],
        *,
        parents: Sequence[int] = (),
        scores: Sequence[float] | FloatArray | None = None,
        photo: ImageInput | None = None,
        model: str = "",
    ) -> None:
        """As a `SemanticMap`.

        Raises:
            ConfigError: parents are neither none nor one per class.
        """
        super().__init__(labels, classes, scores=scores, photo=photo, model=model)
        self.parents = tuple(map(int, parents))
        if len(self.parents) not in (0, len(self.classes)):
            raise ConfigError(f"There are {len(self.parents)} parents for {len(self.classes)} groups.")

    def _index_head(self, folder: Path) -> dict[str, Any]:
        return super()._index_head(folder) | {"parents": list(self.parents)}


@dataclass(frozen=True, slots=True)
class Segment:
    """One region of a panoptic map: the name of its class, whether it is a countable thing, and its score, 0..1."""

    label: str
    thing: bool
    score: float = 1.0


class PanopticMap(LabelMap):
    """One segment per pixel: things one by one, stuff as a whole.

    A segment has pixels: one that is given without any is left out and the index renumbered. So ``segments``, ``labels``, ``scores``,
    ``areas``, ``masks`` and ``boxes`` are all of one length and in one order, that of the index, and every export has as many entries.

    Attributes:
        segments: what the index means.
        scores: (S,) float32, 0..1.
        classes: the names that occur; exports number them in this order.
    """

    INDEX: ClassVar[str] = "panoptic.json"

    def __init__(self, index: NDArray[Any], segments: Sequence[Segment], *, photo: ImageInput | None = None, model: str = "") -> None:
        """``index``: (H, W) integer index into ``segments``, -1 where nothing is.

        Raises:
            ImageError: the index is no such array.
        """
        index, segments = _without_empty(_checked(index, len(segments)), segments)
        super().__init__(index, [segment.label for segment in segments], [segment.score for segment in segments], photo, model)
        self.segments = tuple(segments)
        self.classes = tuple(dict.fromkeys(self._names))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PanopticMap:
        """Read back a folder that `save` wrote.

        Raises:
            DataError: nothing is there, or it is damaged or another kind of result.
        """
        with taken_apart(Path(path), cls.INDEX):
            head = read_index(Path(path), "PanopticMap", cls.INDEX, "segments")
            index = _read_labels(Path(path), head)
            return cls(index, [Segment(**segment) for segment in head["segments"]], photo=head["photo"], model=head["model"])

    @property
    def labels(self) -> list[str]:
        """The class of each segment, and so of each of ``masks``."""
        return [segment.label for segment in self.segments]

    def __repr__(self) -> str:
        return f"PanopticMap({self.size[1]}x{self.size[0]} pixels, {len(self.segments)} segments: {self.labels[:8]})"

    def _classes(self) -> tuple[tuple[str, ...], Sequence[int]]:
        return self.classes, [self.classes.index(self._names[index]) for index in self._shown]

    def _index_head(self, folder: Path) -> dict[str, Any]:
        return super()._index_head(folder) | {"segments": [_plain(segment) for segment in self.segments]}


def _plain(segment: Segment) -> dict[str, Any]:
    """For JSON, which knows none of NumPy's numbers."""
    return asdict(segment) | {"thing": bool(segment.thing), "score": float(segment.score)}


def _checked(index: NDArray[Any], count: int) -> NDArray[np.integer]:
    """The index in the smallest type that holds -1..count-1.

    Raises:
        ImageError: it is no array (H, W) of such integers.
    """
    array = np.asarray(index)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise ImageError(f"A label map is an array of integers (H, W), not {array.dtype} {array.shape}.")
    if int(array.min()) < -1 or int(array.max()) >= count:
        raise ImageError(f"The label map holds {array.min()}..{array.max()}; with {count} names its values are -1..{count - 1}.")
    return array.astype(np.int16 if count < 32768 else np.int32, copy=False)


def _areas(index: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count,) pixels of each value."""
    counts = np.zeros(count + 1, dtype=np.int64)
    for row in index:
        counts += np.bincount(row + 1, minlength=len(counts))
    return counts[1:]


def _without_empty(index: NDArray[np.integer], segments: Sequence[Segment]) -> tuple[NDArray[np.integer], list[Segment]]:
    """The segments that have pixels, and the index into them."""
    occurs = _areas(index, len(segments)) > 0
    kept = [segment for segment, there in zip(segments, occurs, strict=True) if there]
    if len(kept) == len(segments):
        return index, kept
    numbers = np.append(np.where(occurs, np.cumsum(occurs) - 1, -1), -1)  # its last entry, which -1 leads to, is -1 again
    return numbers.astype(index.dtype)[index], kept


def _read_labels(path: Path, head: dict[str, Any]) -> NDArray[np.int32]:
    file = (path if path.is_dir() else path.parent) / LABELS_PNG
    try:
        with pillow_limit(head["size"][0] * head["size"][1]), Image.open(file, formats=("PNG",)) as picture:
            values = np.asarray(picture)
    except Exception as error:
        raise DataError(f"{file} cannot be read: {error}. Save the result again.") from error
    if list(values.shape) != head["size"]:
        raise DataError(f"{file} is {values.shape} pixels, the index says {head['size']}. Save the result again.")
    return values.astype(np.int32) - 1

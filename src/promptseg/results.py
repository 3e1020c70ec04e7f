"""What the user gets: masks per prompt, instances, semantic and panoptic maps, all with the same exports (`Exports`).

Results stay small: masks are made at full size only while they are looked at or written (`sources`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from .contracts import Size
from .errors import ConfigError, ImageError, PromptError, nearest
from .exports import Exports
from .maps import GroupMap, PanopticMap, Segment, SemanticMap
from .masks import Mask
from .prompts import Prompt
from .sources import Canvas, LogitSource, Upsample
from .storage import index_entry, read_masks, taken_apart

if TYPE_CHECKING:
    from .prompts import ImageInput

__all__ = ["GroupMap", "Instances", "Mask", "Masks", "PanopticMap", "Segment", "SemanticMap"]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


class Masks(Sequence[Mask], Exports):
    """One mask per prompt, in prompt order.

    Indexing with a number or a name (the first mask so labelled) gives a `Mask`, with a slice, a list of numbers or N truth values `Masks`.
    """

    INDEX: ClassVar[str] = "masks.json"

    def __init__(self, masks: Sequence[Mask], size: Size, *, photo: ImageInput | None = None, model: str = "") -> None:
        """Masks of one photo of ``size`` (H, W).

        Raises:
            ImageError: a mask has another size.
        """
        self.size = _checked_size(size)
        self.photo, self.model = photo, model
        self._items = tuple(masks)
        for mask in self._items:
            if tuple(mask.size) != self.size:
                raise ImageError(f"The mask of {mask.label!r} is {mask.size} and the photo {self.size} pixels (H, W); they must be equal.")

    @classmethod
    def from_logits(
        cls,
        logits: Any,
        size: Size,
        prompts: Sequence[Prompt],
        *,
        threshold: float = 0.5,
        presence: Any = None,
        presence_threshold: float = 0.5,
        negative: Any = None,
        upsample: Upsample = "bilinear",
        photo: ImageInput | None = None,
        model: str = "",
    ) -> Masks:
        """From raw network output, kept at model resolution.

        A mask is exactly where the logits, enlarged to ``size`` (bilinear, align_corners False; or "guided" by the photo's edges) and
        squashed, exceed ``threshold``, and no negative prompt's enlarged logit is larger.

        Args:
            logits: (N, h, w) raw logits, torch or NumPy; float16 stays so, other types become float32.
            size: (H, W) of the upright photo.
            prompts: the N prompts.
            threshold: probability above which a pixel belongs to the mask.
            presence: (N,) probabilities that the thing is there at all; None: the mean probability inside the mask.
            presence_threshold: score from which a prompt counts as present.
            negative: (M, h', w') raw logits of what must not be in any mask.
            upsample: "bilinear" or "guided", which needs ``photo``.
            photo: as the user gave it; decoded when an overlay or guided enlargement wants it.
            model: name of the card.

        Raises:
            ConfigError: shapes or numbers do not fit together.
        """
        maps = _logit_maps(logits, "logits")
        if len(maps) != len(prompts):
            raise ConfigError(f"There are {len(maps)} logit maps for {len(prompts)} prompts.")
        canvas = Canvas(_checked_size(size), threshold, None if negative is None else _logit_maps(negative, "negative"), upsample, photo)
        scores = [None] * len(maps) if presence is None else _presence(presence, len(maps))
        masks = [
            Mask(LogitSource(one, canvas), prompt, presence=score, presence_threshold=presence_threshold)
            for one, prompt, score in zip(maps, prompts, scores, strict=True)
        ]
        return cls(masks, size, photo=photo, model=model)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read back what `save` wrote: a folder, its index file, or a ``.npz``.

        Masks, scores, soft edges and presence are as they were; a mask is kept as its pixels, so of a model's ``probabilities`` only the
        score comes back. Prompts that show a picture come back as their name only; from a ``.npz``, which has no room for more, all do.

        Raises:
            DataError: nothing is there, or it is damaged or another kind of result.
        """
        with taken_apart(Path(path), cls.INDEX):
            masks, head = read_masks(Path(path), "Masks", cls.INDEX)
            return cls(masks, (head["size"][0], head["size"][1]), photo=head.get("photo"), model=head.get("model", ""))

    # --- the sequence ---

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int | str) -> Mask: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | NDArray[Any]) -> Masks: ...
    def __getitem__(self, index: Any) -> Mask | Masks:
        if isinstance(index, (int, np.integer)):
            return self._items[index]
        if isinstance(index, str):
            labels = self.labels
            if index not in labels:
                raise PromptError(
                    f"There is no mask {index!r}.{nearest(index, labels)} There are: {', '.join(map(repr, labels[:20])) or 'none'}."
                )
            return self._items[labels.index(index)]
        chosen = np.arange(len(self))[index if isinstance(index, slice) else _selection(index)]
        return self._subset(chosen.tolist())

    def _subset(self, indices: list[int]) -> Masks:
        return Masks([self._items[index] for index in indices], self.size, photo=self.photo, model=self.model)

    def __iter__(self) -> Iterator[Mask]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {self.size[1]}x{self.size[0]} pixels: {[mask.label for mask in self._items[:5]]})"

    # --- columns ---

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts, in order."""
        return tuple(mask.prompt for mask in self._items)

    @property
    def labels(self) -> list[str]:
        """A short name per mask."""
        return [mask.label for mask in self._items]

    @property
    def scores(self) -> FloatArray:
        """(N,) float32, 0..1."""
        return np.array([mask.score for mask in self._items], dtype=np.float32)

    @property
    def present(self) -> BoolArray:
        """(N,) bool: the score reaches the presence threshold."""
        return np.array([mask.present for mask in self._items], dtype=np.bool_)

    @property
    def areas(self) -> NDArray[np.int64]:
        """(N,) pixels."""
        return np.array([mask.area for mask in self._items], dtype=np.int64)

    @property
    def boxes(self) -> FloatArray:
        """(N, 4) float32 x0, y0, x1, y1, half-open pixels; zeros for an empty mask."""
        return np.array([mask.box or (0, 0, 0, 0) for mask in self._items], dtype=np.float32).reshape(-1, 4)

    def split(self, *, min_area: int = 1) -> Instances:
        """Every mask's connected parts of at least ``min_area`` pixels, as instances labelled with their prompt."""
        parts = [part for mask in self._items for part in mask.split(min_area=min_area)]
        classes = list(dict.fromkeys(self.labels))
        return Instances(parts, self.size, labels=[part.label for part in parts], classes=classes, photo=self.photo, model=self.model)

    # --- for the exports ---

    def _masks(self) -> Sequence[Mask]:
        return self._items

    def _classes(self) -> tuple[tuple[str, ...], Sequence[int]]:
        return tuple(self.labels), range(len(self))

    def _index_entry(self, index: int, mask: Mask) -> dict[str, Any]:
        return self._properties(index, mask) | index_entry(mask)


class Instances(Masks):
    """Single things: a sequence of `Mask`, each with the name of its class.

    Attributes:
        classes: the names; exports number them in this order.
    """

    INDEX: ClassVar[str] = "instances.json"

    def __init__(
        self,
        masks: Sequence[Mask],
        size: Size,
        *,
        labels: Sequence[str],
        classes: Sequence[str] | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        photo: ImageInput | None = None,
        model: str = "",
    ) -> None:
        """``labels``: one class name per mask; ``classes``: all names, by default those that occur; ``boxes``: as a detector found them.

        Raises:
            ConfigError: a label or box too many or too few, or a label that is no class.
        """
        super().__init__(masks, size, photo=photo, model=model)
        self.classes = tuple(dict.fromkeys(labels if classes is None else classes))
        if len(labels) != len(self):
            raise ConfigError(f"There are {len(labels)} labels for {len(self)} instances.")
        if unknown := sorted(set(labels) - set(self.classes)):
            raise ConfigError(f"The labels {unknown} are not among the classes {list(self.classes)}.")
        if boxes is not None and len(boxes) != len(self):
            raise ConfigError(f"There are {len(boxes)} boxes for {len(self)} instances.")
        self._labels = list(labels)
        self._boxes = None if boxes is None else [tuple(map(float, box)) for box in boxes]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Instances:
        """Read back what `save` wrote: a folder or its index file.

        Raises:
            DataError: nothing is there, or it is damaged or another kind of result.
        """
        with taken_apart(Path(path), cls.INDEX):
            masks, head = read_masks(Path(path), "Instances", cls.INDEX, "classes")
            labels, classes = [head["classes"][index] for index in head["labels"]], head["classes"]
            boxes = None if None in head["boxes"] else head["boxes"]
            size, photo, model = (head["size"][0], head["size"][1]), head["photo"], head["model"]
            return cls(masks, size, labels=labels, classes=classes, boxes=boxes, photo=photo, model=model)

    @property
    def boxes(self) -> FloatArray:
        """(N, 4) float32 x0, y0, x1, y1 in pixels: the detector's own, fractions and all; without a detector those around the masks."""
        return super().boxes if self._boxes is None else np.array(self._boxes, dtype=np.float32).reshape(-1, 4)

    @property
    def labels(self) -> list[str]:
        """The class of each instance."""
        return list(self._labels)

    @property
    def masks(self) -> Masks:
        """The same regions as plain `Masks`."""
        return Masks(self._items, self.size, photo=self.photo, model=self.model)

    def _subset(self, indices: list[int]) -> Instances:
        chosen, labels = [self._items[index] for index in indices], [self._labels[index] for index in indices]
        boxes = None if self._boxes is None else [self._boxes[index] for index in indices]
        return Instances(chosen, self.size, labels=labels, classes=self.classes, boxes=boxes, photo=self.photo, model=self.model)

    def _classes(self) -> tuple[tuple[str, ...], Sequence[int]]:
        return self.classes, [self.classes.index(label) for label in self._labels]

    def _index_head(self, folder: Path) -> dict[str, Any]:
        return super()._index_head(folder) | {"classes": list(self.classes)}

    def _index_entry(self, index: int, mask: Mask) -> dict[str, Any]:
        entry = super()._index_entry(index, mask)
        return entry if self._boxes is None else entry | {"detected": list(self._boxes[index])}


def _checked_size(size: Size) -> Size:
    height, width = int(size[0]), int(size[1])
    if height < 1 or width < 1:
        raise ConfigError(f"size is (H, W) of the photo in pixels, both at least 1, not {size}.")
    return height, width


def _logit_maps(values: Any, what: str) -> NDArray[np.floating]:
    """(N, h, w) torch or NumPy -> NumPy float16 or float32."""
    if not isinstance(values, np.ndarray):
        tensor = values.detach().cpu()
        values = (tensor if str(tensor.dtype) == "torch.float16" else tensor.float()).numpy()
    if values.ndim != 3 or (len(values) and 0 in values.shape):
        raise ConfigError(f"{what} have the shape (N, h, w), not {values.shape}.")
    return np.asarray(values, dtype=np.float16 if values.dtype == np.float16 else np.float32)


def _presence(values: Any, count: int) -> list[float]:
    scores = [float(value) for value in values]
    if len(scores) != count or not all(0 <= score <= 1 for score in scores):
        raise ConfigError(f"presence holds one probability in 0..1 for each of the {count} prompts, not {scores[:8]}.")
    return scores


def _selection(index: Any) -> NDArray[Any]:
    chosen = np.asarray(index)
    return chosen if chosen.size else chosen.astype(np.int64)

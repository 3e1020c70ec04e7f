"""One mask of one photo, made at full size only while somebody looks at it.

Pixels are computed anew at every access (`sources` says from what); the facts about them (score, area, box) are remembered.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import regions
from .contracts import Size
from .errors import ImageError
from .prompts import Prompt, Text, describe
from .rle import Box, Rle
from .sources import ArraySource, LogitSource, RunSource, Source

if TYPE_CHECKING:
    from .results import Instances

__all__ = ["Mask", "png"]

BoolArray: TypeAlias = NDArray[np.bool_]
FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Facts:
    """``mean``: mean probability inside, 0 when empty; ``area`` in pixels; ``box`` (x0, y0, x1, y1), half-open, or None."""

    mean: float
    area: int
    box: Box | None


class Mask:
    """Where one prompt is in the photo.

    Attributes:
        prompt: what was asked.
        size: (H, W) of the upright photo, in pixels.
    """

    def __init__(self, source: Source, prompt: Prompt, *, presence: float | None = None, presence_threshold: float = 0.5) -> None:
        """``presence``: the score if known; None: the mean probability inside. ``presence_threshold``: the score of what is there."""
        self.prompt = prompt
        self.presence_threshold = presence_threshold
        self._source = source
        self._presence = presence
        self._facts: Facts | None = None

    @classmethod
    def from_array(cls, mask: BoolArray, prompt: Prompt | str, *, score: float = 1.0) -> Mask:
        """A mask of your own, (H, W) bool or zero / non-zero, kept as runs.

        Raises:
            ImageError: it is no array of two dimensions with pixels.
        """
        array = np.asarray(mask)
        if array.ndim != 2 or not array.size:
            raise ImageError(f"A mask is an array (H, W), not {array.shape}.")
        return cls(RunSource(Rle.encode(array.astype(np.bool_))), Text(prompt) if isinstance(prompt, str) else prompt, presence=score)

    # --- what it is ---

    @property
    def size(self) -> Size:
        """(H, W) in pixels."""
        return self._source.size

    @property
    def label(self) -> str:
        """A short name: the phrase, or what kind of prompt it was."""
        return describe(self.prompt)

    @property
    def mask(self) -> BoolArray:
        """(H, W) bool, made anew at every access: keep it in a variable while you work on it."""
        return self._source.mask()

    @property
    def probabilities(self) -> FloatArray:
        """(H, W) float32 in 0..1 before negative prompts are taken away; of a mask that is kept as runs 0 and 1, or its feathered edge."""
        return self._source.probabilities()

    @property
    def logits(self) -> NDArray[np.floating] | None:
        """The raw logits (h, w) at model resolution; None for a mask that is kept as runs."""
        return self._source.logits if isinstance(self._source, LogitSource) else None

    @property
    def score(self) -> float:
        """0..1, is it there at all: the model's presence output, else the mean probability inside the mask, 0 when it is empty."""
        return self._known().mean if self._presence is None else self._presence

    @property
    def present(self) -> bool:
        """Whether the score reaches the model's presence threshold; the mask may be empty all the same, where no pixel is sure enough."""
        return self.score >= self.presence_threshold

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return self._known().area

    @property
    def box(self) -> Box | None:
        """(x0, y0, x1, y1) around the mask, half-open pixels; None when it is empty."""
        return self._known().box

    @property
    def runs(self) -> Rle:
        """The mask run-length coded."""
        return self._origin.runs if isinstance(self._origin, RunSource) else Rle.encode(self.mask)

    @property
    def softness(self) -> float:
        """How many pixels on either side of its edge the mask was feathered by, 0 if it was not."""
        return self._origin.feather if isinstance(self._origin, RunSource) else 0.0

    def held(self) -> Mask:
        """The same mask with its pixels at hand, for several looks at it in a row; as large as the photo, so let it go soon."""
        held = self._with(ArraySource(self._render(), self._origin), self.prompt)
        held._facts = self._facts
        return held

    def to_png(self) -> bytes:
        """A PNG file, 8-bit grey: 255 in the mask, 0 elsewhere."""
        return png(Image.fromarray(self.mask.view(np.uint8) * np.uint8(255)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the PNG."""
        with open(path, "wb") as file:
            file.write(self.to_png())

    def _repr_png_(self) -> bytes:
        return png(Image.fromarray(self.mask.view(np.uint8) * np.uint8(255)).reduce(max(1, max(self.size) // 800)))

    def __repr__(self) -> str:
        return f"Mask({self.label!r}, score={self.score:.2f}, area={self.area}, box={self.box})"

    # --- soft edits: each gives a new mask, kept as runs, with this one's prompt and score ---

    def grow(self, px: float) -> Mask:
        """All pixels at most ``px`` pixels from the mask."""
        return self._edited(regions.grow(self.mask, px))

    def shrink(self, px: float) -> Mask:
        """The mask's pixels that are more than ``px`` pixels from its outside; the photo's border is no outside."""
        return self._edited(regions.shrink(self.mask, px))

    def feather(self, px: float) -> Mask:
        """The same mask, whose ``probabilities`` run from 0 to 1 between ``px`` pixels outside and inside its edge."""
        return self._with(RunSource(self.runs, regions.checked_radius(px)), self.prompt)

    def fill_holes(self) -> Mask:
        """The mask and everything that it encloses."""
        return self._edited(regions.fill_holes(self.mask))

    def largest(self) -> Mask:
        """The largest connected part; of equals the first."""
        found = regions.parts(self.mask)
        return self._edited(found.select(np.arange(len(found)) == (found.areas.argmax() if len(found) else 0)))

    def invert(self) -> Mask:
        """Everything but the mask; the score is how improbable the prompt is there on average."""
        array = ~self.mask
        score = 1.0 - float(self.probabilities[array].mean(dtype=np.float64)) if array.any() else 0.0
        return self._with(RunSource(Rle.encode(array)), Text(f"everything but {self.label}"), score)

    def split(self, *, min_area: int = 1) -> Instances:
        """Connected parts (touching corners connect) of ``min_area`` pixels or more, largest first: instances with this mask's score."""
        from .results import Instances

        found = regions.parts(self.mask)
        order = [part for part in np.argsort(-found.areas, kind="stable").tolist() if found.areas[part] >= min_area]
        runs = [Rle.encode(crop, self.size, corner) for crop, corner in found.crops(order)]
        return Instances([self._with(RunSource(part), self.prompt) for part in runs], self.size, labels=[self.label] * len(runs))

    def __or__(self, other: Mask) -> Mask:
        """Union, as present as the more present of the two."""
        return self._combined(other, np.logical_or, f"{self.label} or {other.label}", max(self.score, other.score))

    def __and__(self, other: Mask) -> Mask:
        """Intersection, as present as the less present of the two."""
        return self._combined(other, np.logical_and, f"{self.label} and {other.label}", min(self.score, other.score))

    def __sub__(self, other: Mask) -> Mask:
        """This without the other."""
        return self._combined(other, np.greater, f"{self.label} without {other.label}", self.score)

    def __invert__(self) -> Mask:
        return self.invert()

    @property
    def _origin(self) -> Source:
        """Where the pixels come from, were they at hand or not."""
        return self._source.origin if isinstance(self._source, ArraySource) else self._source

    def _combined(self, other: Mask, rule: Any, label: str, score: float) -> Mask:
        if self.size != other.size:
            raise ImageError(f"Masks of {self.size} and {other.size} pixels (H, W) are not of the same photo and cannot be combined.")
        array = rule(self.mask, other.mask)
        return self._with(RunSource(Rle.encode(array)), Text(label), score if array.any() else 0.0)

    def _edited(self, array: BoolArray) -> Mask:
        return self._with(RunSource(Rle.encode(array)), self.prompt, self.score if array.any() else 0.0)

    def _with(self, source: Source, prompt: Prompt, score: float | None = None) -> Mask:
        presence = self.score if score is None else score
        return Mask(source, prompt, presence=presence, presence_threshold=self.presence_threshold)

    def _render(self) -> BoolArray:
        array, mean = self._source.render()
        if self._facts is None:
            rows, columns = np.flatnonzero(array.any(axis=1)), np.flatnonzero(array.any(axis=0))
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else None
            self._facts = Facts(mean, int(np.count_nonzero(array)), box)
        return array

    def _known(self) -> Facts:
        if self._facts is None:
            self._render()
        assert self._facts is not None
        return self._facts


def png(picture: Image.Image) -> bytes:
    """A picture as PNG file content; fast, since masks are flat."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

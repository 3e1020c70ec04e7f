"""Where the pixels of a mask come from: a logit map, runs, a label map or an array. Each makes them when asked and keeps none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import regions
from .contracts import MAX_PIXELS, Size, probability
from .errors import ConfigError, ImageError
from .rle import Rle

if TYPE_CHECKING:
    from .prompts import ImageInput

__all__ = ["ArraySource", "Canvas", "LabelSource", "LogitSource", "RunSource", "Source", "Upsample", "photo_of"]

BoolArray: TypeAlias = NDArray[np.bool_]
FloatArray: TypeAlias = NDArray[np.float32]
Upsample: TypeAlias = Literal["bilinear", "guided"]


class Source(Protocol):
    """Where the pixels of a mask come from."""

    @property
    def size(self) -> Size: ...
    def mask(self) -> BoolArray: ...
    def probabilities(self) -> FloatArray: ...
    def render(self) -> tuple[BoolArray, float]:
        """The mask and the mean probability inside it, 0 when it is empty."""


@dataclass(eq=False)
class Canvas:
    """What all masks of one photo share: its ``size`` (H, W), the probability ``threshold``, how logits are enlarged, what must not be in.

    ``negative`` (M, h, w): logits of the negative prompts; where one of them exceeds a prompt's, the pixel is not in that prompt's mask.
    ``photo`` is the picture itself, as the user gave it; "guided" enlargement decodes it once.
    """

    size: Size
    threshold: float = 0.5
    negative: NDArray[np.floating] | None = None
    upsample: Upsample = "bilinear"
    photo: ImageInput | None = None

    def __post_init__(self) -> None:
        if self.upsample not in ("bilinear", "guided"):
            raise ConfigError(f"upsample is 'bilinear' or 'guided', not {self.upsample!r}.")
        if self.upsample == "guided" and self.photo is None:
            raise ConfigError("upsample='guided' needs the photo whose edges it follows.")
        probability("threshold", self.threshold)

    @cached_property
    def enlarge(self) -> Callable[[NDArray[np.floating]], FloatArray]:
        """Logits (h, w) -> (H, W) float32."""
        from . import guided, postprocess

        if self.upsample == "guided" and self.photo is not None:
            return guided.Guide(photo_of(self.photo, self.size)).enlarge
        return lambda logits: postprocess.enlarge(logits, self.size)

    @cached_property
    def cut(self) -> float:
        """The threshold as a logit."""
        from .postprocess import logit_cut

        return logit_cut(self.threshold)

    @cached_property
    def rivals(self) -> FloatArray | None:
        """(H, W) the largest negative logit of every pixel."""
        if self.negative is None or not len(self.negative):
            return None
        largest = self.enlarge(self.negative[0])
        for logits in self.negative[1:]:
            np.maximum(largest, self.enlarge(logits), out=largest)
        return largest


@dataclass(frozen=True, slots=True, eq=False)
class LogitSource:
    """A logit map (h, w) at model resolution."""

    logits: NDArray[np.floating]
    canvas: Canvas

    @property
    def size(self) -> Size:
        return self.canvas.size

    def mask(self) -> BoolArray:
        return self._cut(self.canvas.enlarge(self.logits))

    def probabilities(self) -> FloatArray:
        from .postprocess import sigmoid

        return sigmoid(self.canvas.enlarge(self.logits))

    def render(self) -> tuple[BoolArray, float]:
        from .postprocess import sigmoid

        values = self.canvas.enlarge(self.logits)
        mask = self._cut(values)
        return mask, _mean(sigmoid(values[mask]))

    def _cut(self, values: FloatArray) -> BoolArray:
        inside = values > self.canvas.cut
        if self.canvas.rivals is not None:
            inside &= values >= self.canvas.rivals
        return np.asarray(inside)


@dataclass(frozen=True, slots=True, eq=False)
class RunSource:
    """Runs, with soft edges ``feather`` pixels wide on either side where that is not 0."""

    runs: Rle
    feather: float = 0

    @property
    def size(self) -> Size:
        return self.runs.size

    def mask(self) -> BoolArray:
        return self.runs.decode()

    def probabilities(self) -> FloatArray:
        return regions.feather(self.mask(), self.feather)

    def render(self) -> tuple[BoolArray, float]:
        mask = self.mask()
        return mask, _mean(self.probabilities()[mask] if self.feather else mask[mask].astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class LabelSource:
    """The pixels of a label map (H, W) that hold ``value``."""

    labels: NDArray[np.integer]
    value: int

    @property
    def size(self) -> Size:
        return self.labels.shape[0], self.labels.shape[1]

    def mask(self) -> BoolArray:
        return np.asarray(self.labels == self.value)

    def probabilities(self) -> FloatArray:
        return self.mask().astype(np.float32)

    def render(self) -> tuple[BoolArray, float]:
        mask = self.mask()
        return mask, float(mask.any())


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """A mask of ``origin`` that is already at hand, while several exports look at it."""

    array: BoolArray
    origin: Source

    @property
    def size(self) -> Size:
        return self.array.shape[0], self.array.shape[1]

    def mask(self) -> BoolArray:
        return self.array

    def probabilities(self) -> FloatArray:
        return self.origin.probabilities()

    def render(self) -> tuple[BoolArray, float]:
        return self.array, float(self.array.any())


def photo_of(photo: ImageInput, size: Size) -> NDArray[np.uint8]:
    """The photo's pixels, checked to be of the size that the masks have.

    Raises:
        ImageError: it cannot be read, or is another photo by now.
    """
    from .images import load

    pixels = load(photo, max_pixels=max(MAX_PIXELS, size[0] * size[1]))
    if pixels.shape[:2] != tuple(size):
        raise ImageError(
            f"The photo is {pixels.shape[1]}x{pixels.shape[0]} pixels and the masks are {size[1]}x{size[0]} (width x height): "
            "it is not the photo that was segmented."
        )
    return pixels


def _mean(values: FloatArray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 0.0

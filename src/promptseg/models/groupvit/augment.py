"""Photos as the published runs show them in training: a random crop, RandAugment, random erasing (timm's options of DeiT).

All that is random comes from the example's own `Draws`; the operations are Pillow's, on 8-bit values, in timm's ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from ...errors import ConfigError

if TYPE_CHECKING:  # recipes hold these options, and are read without torch
    from torch import Tensor

    from ...data.randomness import Draws

Operation: TypeAlias = Callable[[Image.Image, float, float], Image.Image]

FILL = (124, 116, 104)  # the mean colour, where a photo does not reach
BILINEAR = Image.Resampling.BILINEAR
ATTEMPTS = 10  # at a window, and at a rectangle to erase


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionAugmentation:
    """``rand-m9-mstd0.5-inc1`` and what goes with it; the defaults are the published runs'.

    Attributes:
        scale: bounds of the crop's share of the photo's area [img_scale].
        ratio: bounds of its width over its height.
        flip: share of photos that are mirrored.
        operations: how many operations follow each other; 0: none, and nothing is erased either [deit_aug: false].
        magnitude: how strong they are, 0 to 10, on average.
        deviation: standard deviation of that.
        erase: share of photos in which a rectangle is replaced by noise.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    operations: int = 2
    magnitude: float = 9.0
    deviation: float = 0.5
    erase: float = 0.25

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "scale" and high > 1):
                raise ConfigError(f"{name} is a rising pair above 0, a share of the area at most 1; not {(low, high)}.")
        if not (0 <= self.flip <= 1 and 0 <= self.erase <= 1):
            raise ConfigError(f"flip and erase are shares, 0 to 1, not {self.flip} and {self.erase}.")
        if self.operations < 0 or not 0 <= self.magnitude <= 10 or self.deviation < 0:
            raise ConfigError("operations and deviation are at least 0, magnitude is 0 to 10.")

    def __call__(self, photo: NDArray[np.uint8], size: int, draws: Draws) -> Tensor:
        """(H, W, 3) uint8 RGB -> (3, size, size) float32, normalised; the same ``draws`` give the same result."""
        import torch

        from .photos import MEAN, STD

        picture = Image.fromarray(photo)
        left, top, width, height = self._window(picture.size, draws)
        picture = picture.crop((left, top, left + width, top + height)).resize((size, size), BILINEAR)
        if draws.unit() < self.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for _ in range(self.operations):
            operation = draws.choice(OPERATIONS)
            if draws.unit() < 0.5:  # each is left out as often as not
                level = self.magnitude + self.deviation * float(torch.randn((), generator=draws.generator))
                picture = operation(picture, min(10.0, max(0.0, level)) / 10, -1.0 if draws.unit() < 0.5 else 1.0)
        values = (np.asarray(picture, dtype=np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
        pixels = torch.from_numpy(values).permute(2, 0, 1).contiguous()
        return self._erased(pixels, draws) if self.operations else pixels

    def _window(self, size: tuple[int, int], draws: Draws) -> tuple[int, int, int, int]:
        """Left, top, width and height of the crop; in the middle and as large as the ratios allow where none fits."""
        whole_width, whole_height = size
        for _ in range(ATTEMPTS):
            area = draws.between(*self.scale) * whole_width * whole_height
            ratio = math.exp(draws.between(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= whole_width and 0 < height <= whole_height:
                return draws.integer(whole_width - width + 1), draws.integer(whole_height - height + 1), width, height
        ratio = min(max(whole_width / whole_height, self.ratio[0]), self.ratio[1])
        width, height = max(1, min(whole_width, round(whole_height * ratio))), max(1, min(whole_height, round(whole_width / ratio)))
        return (whole_width - width) // 2, (whole_height - height) // 2, width, height

    def _erased(self, pixels: Tensor, draws: Draws) -> Tensor:
        """With noise of its own for every pixel in one rectangle of 2 to 33 % of the area, at times."""
        import torch

        if draws.unit() >= self.erase:
            return pixels
        whole_height, whole_width = pixels.shape[1:]
        for _ in range(ATTEMPTS):
            area = draws.between(0.02, 1 / 3) * whole_height * whole_width
            ratio = math.exp(draws.between(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width < whole_width and 0 < height < whole_height:
                top, left = draws.integer(whole_height - height + 1), draws.integer(whole_width - width + 1)
                pixels[:, top : top + height, left : left + width] = torch.randn(3, height, width, generator=draws.generator)
                break
        return pixels


# --- operations: picture, level 0 to 1, sign -> picture; the higher the level, the stronger -----------------------------------------------


def _moved(matrix: Callable[[float, tuple[int, int]], tuple[float, ...]]) -> Operation:
    def operation(picture: Image.Image, level: float, sign: float) -> Image.Image:
        found = matrix(sign * level, picture.size)
        return picture.transform(picture.size, Image.Transform.AFFINE, found, resample=BILINEAR, fillcolor=FILL)

    return operation


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, level, sign: kind(picture).enhance(max(0.1, 1 + sign * 0.9 * level))


def _rotated(picture: Image.Image, level: float, sign: float) -> Image.Image:
    return picture.rotate(sign * 30 * level, resample=BILINEAR, fillcolor=FILL)


def _brightened_below_half(picture: Image.Image, level: float, sign: float) -> Image.Image:
    added = int(level * 110)
    return picture.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


OPERATIONS: tuple[Operation, ...] = (
    lambda picture, level, sign: ImageOps.autocontrast(picture),
    lambda picture, level, sign: ImageOps.equalize(picture),
    lambda picture, level, sign: ImageOps.invert(picture),
    _rotated,
    lambda picture, level, sign: ImageOps.posterize(picture, 4 - int(4 * level)),
    lambda picture, level, sign: ImageOps.solarize(picture, 256 - int(256 * level)),
    _brightened_below_half,
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Sharpness),
    _moved(lambda level, size: (1, 0.3 * level, 0, 0, 1, 0)),  # sheared along x and y
    _moved(lambda level, size: (1, 0, 0, 0.3 * level, 1, 0)),
    _moved(lambda level, size: (1, 0, 0.45 * level * size[0], 0, 1, 0)),  # moved along x and y
    _moved(lambda level, size: (1, 0, 0, 0, 1, 0.45 * level * size[1])),
)

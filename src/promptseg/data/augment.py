"""Augmentations of a photo together with its masks, seeded: what moves the photo moves the masks, colours change the photo alone.

Importing this imports no torch, so that recipes can hold an `Augmentation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from .randomness import Draws

__all__ = ["Augmentation", "Augmented"]

GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in brightness (Rec. 601)
FILL = (0.485, 0.456, 0.406)  # ImageNet's mean colour, where the photo does not reach


@dataclass(frozen=True, slots=True)
class Augmented:
    """``image`` (3, h, w) float 0..1; ``masks`` (N, h, w) bool; ``inside`` (h, w) bool, False where the photo does not reach."""

    image: Tensor
    masks: Tensor
    inside: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How much a photo is changed; the defaults change nothing.

    Attributes:
        size: (h, w) of the result, pixels; None: that of the photo.
        scale: bounds of the window's size, 1 being the largest that fits into the photo, above 1 with surroundings; even in the logarithm.
        stretch: the aspect changes by up to this factor.
        rotation: degrees to either side.
        flip: share of photos that are mirrored.
        brightness, contrast, saturation: factors within 1 - x .. 1 + x.
        grey: share of photos without colour.
    """

    size: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    stretch: float = 1.0
    rotation: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        shares = {"flip": self.flip, "grey": self.grey}
        shares |= {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        wrong = [name for name, value in shares.items() if not 0 <= value <= 1]
        if wrong:
            raise ConfigError(f"{wrong[0]}={shares[wrong[0]]} must lie in 0..1.")
        if not 0 < self.scale[0] <= self.scale[1] or self.stretch < 1 or min(self.size or (1,)) < 1:
            raise ConfigError(f"scale={self.scale} must be positive and rising, stretch={self.stretch} and size={self.size} at least 1.")

    def __call__(self, image: Tensor, masks: Tensor, draws: Draws) -> Augmented:
        """``image`` (3, H, W) uint8 or float 0..1, ``masks`` (N, H, W) bool or 0/1; the same ``draws`` give the same result."""
        import torch
        import torch.nn.functional as F

        pixels = image.float() / 255 if image.dtype == torch.uint8 else image.float()
        grid = self._grid(pixels.shape[1], pixels.shape[2], draws).to(pixels.device)
        inside = (grid.abs() <= 1).all(-1)[0]
        shown = F.grid_sample(pixels[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
        moved = F.grid_sample(masks[None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)[0] > 0.5
        coloured = self._colour(shown, draws)
        return Augmented(torch.where(inside, coloured, coloured.new_tensor(FILL)[:, None, None]), moved & inside, inside)

    def _grid(self, height: int, width: int, draws: Draws) -> Tensor:
        """Where each pixel of the result is read, (1, h, w, 2) in -1..1 of the photo; the window stays in the photo where it fits."""
        import torch
        import torch.nn.functional as F

        size = self.size or (height, width)
        scale = math.exp(draws.between(math.log(self.scale[0]), math.log(self.scale[1])))
        aspect = math.exp(draws.between(-math.log(self.stretch), math.log(self.stretch)) / 2)
        angle = math.radians(draws.between(-self.rotation, self.rotation))
        mirror = -1.0 if draws.unit() < self.flip else 1.0
        shorter = min(height / size[0], width / size[1]) * scale  # photo pixels per pixel of the result
        half = (size[1] * shorter * aspect / width, size[0] * shorter / aspect / height)  # of the window, as shares of the photo
        x, y = (draws.between(-1, 1) * max(0.0, 1 - side) for side in half)
        cos, sin, ratio = math.cos(angle), math.sin(angle), height / width
        matrix = [[half[0] * cos * mirror, -half[1] * sin * ratio, x], [half[0] * sin * mirror / ratio, half[1] * cos, y]]
        return F.affine_grid(torch.tensor([matrix], dtype=torch.float32), [1, 3, *size], align_corners=False)

    def _colour(self, image: Tensor, draws: Draws) -> Tensor:
        brightness, contrast, saturation = (
            draws.between(1 - share, 1 + share) for share in (self.brightness, self.contrast, self.saturation)
        )
        colourless = draws.unit() < self.grey
        image = image * brightness
        mean = image.mean()
        image = mean + (image - mean) * contrast
        grey = (image * image.new_tensor(GREY)[:, None, None]).sum(0, keepdim=True)
        return (grey + (image - grey) * (0.0 if colourless else saturation)).clamp(0, 1)

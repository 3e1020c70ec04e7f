"""SSD's colour changes of training photos, on 8-bit values after every step, hue and saturation as OpenCV has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]

UNIT = np.float32(1 / 255)
SHIFT = 12  # bits of OpenCV's fixed-point tables
_STEPS = np.arange(256)
_WEIGHT = np.array([0.0, *(1.0 / _STEPS[1:])])
HUE = np.rint(180 * 2**SHIFT / 6 * _WEIGHT).astype(np.int64)
SATURATION = np.rint(255 * 2**SHIFT * _WEIGHT).astype(np.int64)
# which of (v, p, q, t) the channels blue, green and red have in each sixth of the circle
SECTORS = np.array([(1, 3, 0), (1, 0, 2), (3, 0, 1), (0, 2, 1), (0, 1, 3), (2, 1, 0)])


def linear(photo: Photo, factor: float, add: float) -> Photo:
    """factor * value + add, cut to 0..255 and truncated."""
    return (photo.astype(np.float32) * np.float32(factor) + np.float32(add)).clip(0, 255).astype(np.uint8)


def saturated(photo: Photo, factor: float) -> Photo:
    """The saturation times ``factor``."""
    hue, saturation, value = hsv(photo)
    return rgb(hue, linear(saturation, factor, 0), value)


def turned(photo: Photo, degrees: int) -> Photo:
    """The hue turned by ``degrees`` of 180."""
    hue, saturation, value = hsv(photo)
    return rgb(((hue.astype(np.int64) + degrees) % 180).astype(np.uint8), saturation, value)


def hsv(photo: Photo) -> tuple[Photo, Photo, Photo]:
    """RGB (H, W, 3) -> hue 0..179, saturation and value 0..255, (H, W) each."""
    red, green, blue = (photo[..., channel].astype(np.int64) for channel in range(3))
    value = photo.max(-1).astype(np.int64)
    spread = value - photo.min(-1)
    angle = np.where(value == red, green - blue, np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread))
    hue = (angle * HUE[spread] + 2 ** (SHIFT - 1)) >> SHIFT
    saturation = (spread * SATURATION[value] + 2 ** (SHIFT - 1)) >> SHIFT
    return (hue + 180 * (hue < 0)).astype(np.uint8), saturation.astype(np.uint8), value.astype(np.uint8)


def rgb(hue: Photo, saturation: Photo, value: Photo) -> Photo:
    """The reverse of `hsv`, (H, W) each -> (H, W, 3).

    OpenCV truncates in blocks of 32 columns, its vector code, and rounds in those that are left over.
    """
    angle = hue.astype(np.float32) * np.float32(6 / 180)
    rest, s, v = angle - np.floor(angle), saturation * UNIT, value * UNIT
    parts = np.stack([v, v * (1 - s), v * (1 - s * rest), v * (1 - s + s * rest)], axis=-1)
    result = np.take_along_axis(parts, SECTORS[angle.astype(np.int64) % 6], axis=-1)[..., ::-1] * np.float32(255)
    result[:, result.shape[1] // 32 * 32 :] += np.float32(0.5)
    return np.ascontiguousarray(result.clip(0, 255).astype(np.uint8))

"""The rule that gives every weight of a reference case its value from its name and shape, and its test images.

It belongs to the form of the cases, so nothing in it may change. ``weight`` draws z, standard normal float32, from NumPy's Philox generator
keyed with the CRC-32 of the name; norm scales, biases, running statistics and matrices then scale it each in their way.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALES = ("weight", "gamma", "alpha")  # ends of the names of 1-d tensors that multiply


def weight(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """The float32 tensor called ``name``."""
    if name.endswith("logit_scale"):
        return np.full(shape, math.log(1 / 0.07), np.float32)
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    z = rng.standard_normal(tuple(shape), dtype=np.float32)
    value: NDArray[Any]
    if name.endswith("running_var"):
        value = 1 + 0.1 * np.abs(z)
    elif name.endswith("running_mean"):
        value = 0.1 * z
    elif len(shape) >= 2:
        value = z / math.sqrt(math.prod(shape[1:]))
    else:
        value = 1 + 0.1 * z if name.endswith(SCALES) else 0.02 * z
    return np.asarray(value, np.float32)


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture (height, width, 3) of smooth gradients and five ellipses."""
    rng = np.random.Generator(np.random.Philox(key=seed + 1))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    corners = rng.uniform(-1, 1, size=(3, 4))
    canvas = np.stack([a + b * x + c * y + d * x * y for a, b, c, d in corners], axis=-1)
    canvas = (canvas - canvas.min()) / (np.ptp(canvas) + 1e-9) * 255
    for _ in range(5):
        cy, cx, ry, rx = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), *rng.uniform(0.05, 0.3, 2)
        canvas[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = rng.uniform(0, 255, 3)
    pixels: NDArray[np.uint8] = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return pixels

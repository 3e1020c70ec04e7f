"""Enlarging coarse logits along the edges of the photo.

A network's map has some dozens of cells per side. Two facts say where inside a cell the edge runs:

- *the cell itself*: its probability is the share of it that the thing covers. Sharpened and enlarged, the map is corrected until its mean
  over every cell is that share again (iterative back-projection, Irani and Peleg 1991);
- *the photo*: around an edge both sides have their own colours. Each pixel is moved towards the side whose colour it has, by the
  log-likelihood ratio of two Gaussians fitted in a window of about a cell's size (localised regions, Lankton and Tannenbaum 2008).

A guided filter (He et al. 2013), which regresses the map on colours, was tried first: given exact shares it lost against plain bilinear
enlargement on every set of photographs. `benchmarks/guided.py` prints what this gains.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .contracts import Size

__all__ = ["Guide"]

FloatArray: TypeAlias = NDArray[np.float32]

# All tuned on half of the photographs of benchmarks/guided.py, which reports on the other half.
SIDE = 512  # longer side, in pixels, at which edges are sought
CELLS = 88  # finer maps are averaged down to this: a network's map is smoother than its grid
SHARPNESS = 3.0  # factor on the logits before they are corrected
NEWTON = 4.0  # logit per missing share: one over the slope of the sigmoid at one half
ROUNDS = 10
EVIDENCE = 1.0  # weight of the colours' log-likelihood ratio,
LARGEST = 3.0  # and how far it may move a logit
DEVIATION = 0.02  # least standard deviation of a colour, of 0..1: camera noise


class Guide:
    """A photo whose edges logits can follow; made once, used for many maps."""

    def __init__(self, photo: NDArray[np.uint8]) -> None:
        """``photo``: (H, W, 3) RGB."""
        self.size: Size = (photo.shape[0], photo.shape[1])
        scale = min(1.0, SIDE / max(self.size))
        self._work: Size = (max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale)))
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
        self._colours = F.interpolate(pixels, self._work, mode="area")[0]

    def enlarge(self, logits: NDArray[np.floating]) -> FloatArray:
        """Logits (h, w) of the whole photo -> (H, W) float32 logits."""
        coarse = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32))
        if max(coarse.shape) > SIDE:  # already finer than we look
            return _resize(coarse, self.size).numpy()
        cells = min(coarse.shape[0], CELLS), min(coarse.shape[1], CELLS)
        shares = _cells(coarse.sigmoid(), cells)
        said = _cells(coarse, cells)
        fine = SHARPNESS * _resize(said, self._work)
        fine += self._evidence(fine.sigmoid(), max(1, round(max(self._work) / max(cells))))
        for _ in range(ROUNDS):
            fine += NEWTON * _resize(shares - _cells(fine.sigmoid(), cells), self._work)
            fine = _mean(fine, 1)
        # nothing goes beyond what one of the neighbouring cells says: far from edges the logits, and so the scores, stay what they were
        low, high = (_resize(sign * F.max_pool2d(sign * said[None], 3, 1, 1)[0], self._work) for sign in (-1, 1))
        return _resize(fine.clamp(low, high), self.size).numpy()

    def _evidence(self, inside: Tensor, radius: int) -> Tensor:
        """By how much each pixel's colour speaks for the thing and against its surroundings, near edges: probabilities (h, w) -> logits."""
        outside = 1 - inside
        thing, rest = _mean(inside, radius) + 1e-3, _mean(outside, radius) + 1e-3
        thing_colour, thing_variance = self._colour(inside, thing, radius)
        rest_colour, rest_variance = self._colour(outside, rest, radius)
        variance = (thing_variance * thing + rest_variance * rest) / (thing + rest) + DEVIATION**2
        ratio = (((self._colours - rest_colour) ** 2 - (self._colours - thing_colour) ** 2) / (2 * variance)).sum(0)
        both_sides = 4 * thing * rest / (thing + rest) ** 2  # 1 on an edge, 0 where only one side is in the window
        return _mean((EVIDENCE * ratio).clamp(-LARGEST, LARGEST) * both_sides, 2)

    def _colour(self, weight: Tensor, total: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        """Weighted mean and variance of the colours around every pixel, (3, h, w) each."""
        mean = _mean(weight * self._colours, radius) / total
        square = _mean(weight * self._colours**2, radius) / total
        return mean, (square - mean**2).clamp(min=0)


def _resize(values: Tensor, size: Size) -> Tensor:
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _cells(values: Tensor, size: Size) -> Tensor:
    """Mean over each of the ``size`` cells."""
    return F.adaptive_avg_pool2d(values[None, None], size)[0, 0]


def _mean(values: Tensor, radius: int) -> Tensor:
    """Mean over a square window, of what lies in the picture; (..., h, w)."""
    stack = values.reshape(-1, 1, *values.shape[-2:])
    rows = F.avg_pool2d(stack, (2 * radius + 1, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius), count_include_pad=False).reshape(values.shape)

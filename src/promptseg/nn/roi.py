"""Features and masks of boxes: RoIAlign, the level of a pyramid that a box is read from, and masks put back into the photo."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(features: Tensor, rois: Tensor, out: int, scale: float) -> Tensor:
    """features (B, C, h, w), rois (N, 5) as image index, x0, y0, x1, y1 -> (N, C, out, out); coordinates times ``scale`` are cells.

    As mmcv's with ``aligned=True`` and ``sampling_ratio=0``: half a cell is taken off, and each of the out * out bins is the mean of
    ceil(height / out) * ceil(width / out) bilinear samples at the centres of equal parts. A sample more than a cell outside is 0, one
    nearer takes the border's value; a box without extent gives 0. Features of any type are read, and given back, in that of the rois.
    """
    result = rois.new_zeros(len(rois), features.shape[1], out, out)
    low, high = (rois[:, 1:3] * scale - 0.5), (rois[:, 3:5] * scale - 0.5)
    counts = ((high - low) / out).ceil().long().clamp(min=0)
    keys = torch.cat([rois[:, :1].long(), counts], 1)
    for image, across, down in torch.unique(keys, dim=0).tolist():
        if across and down:
            chosen = (keys == keys.new_tensor([image, across, down])).all(1).nonzero()[:, 0]
            x, fits_x = _places(low[chosen, 0], high[chosen, 0], out, across, features.shape[3])
            y, fits_y = _places(low[chosen, 1], high[chosen, 1], out, down, features.shape[2])
            samples = _samples(features[image].to(rois), x, y)
            inside = (fits_y[:, :, None] & fits_x[:, None]).flatten(0, 1)
            samples = samples if bool(inside.all()) else samples * inside
            pooled = F.avg_pool2d(samples, (down, across))  # (C, n * out, out)
            result[chosen] = torch.unflatten(pooled, 1, (len(chosen), out)).transpose(0, 1)
    return result


def _samples(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """features (C, h, w) at the columns x (n, q) and rows y (n, p) of n boxes -> (C, n * p, q)."""
    grid = _grid(x[:, None], y[:, :, None]).flatten(0, 1)
    return F.grid_sample(features[None], grid[None], padding_mode="border", align_corners=False)[0]


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """Columns (..., 1, q) and rows (..., p, 1) -> places (..., p, q, 2) as (x, y)."""
    shape = (*y.shape[:-1], x.shape[-1])
    return torch.stack([x.expand(shape), y.expand(shape)], -1)


def _places(low: Tensor, high: Tensor, bins: int, parts: int, size: int) -> tuple[Tensor, Tensor]:
    """Sample centres (n, bins * parts) of n spans, in `grid_sample`'s -1 .. 1, and which of them count.

    In mmcv's order of operations, since integer boxes have samples that lie exactly on the limits.
    """
    side = (high - low)[:, None, None] / bins
    start = torch.arange(bins, device=low.device, dtype=low.dtype)[:, None]
    step = torch.arange(parts, device=low.device, dtype=low.dtype) + 0.5
    places = (low[:, None, None] + start * side + step * side / parts).flatten(1)
    return (2 * places + 1) / size - 1, (places >= -1) & (places <= size)


def levels(rois: Tensor, count: int, finest: float = 56) -> Tensor:
    """rois (N, 5) -> the level, 0 .. count - 1, of a pyramid: boxes of twice ``finest`` pixels a side start level 1, and so on."""
    side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    return (side / finest + 1e-6).log2().floor().clamp(0, count - 1).long()


def pyramid_align(pyramid: Sequence[Tensor], strides: Sequence[int], rois: Tensor, out: int) -> Tensor:
    """`roi_align` of every box on the level of its size -> (N, C, out, out)."""
    result = rois.new_zeros(len(rois), pyramid[0].shape[1], out, out)
    where = levels(rois, len(pyramid))
    for level, (features, stride) in enumerate(zip(pyramid, strides, strict=True)):
        chosen = (where == level).nonzero()[:, 0]
        if len(chosen):
            result = result.index_put((chosen,), roi_align(features.to(rois), rois[chosen], out, 1 / stride))
    return result


def pasted(mask: Tensor, box: Sequence[float], size: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
    """A box's probabilities (m, m) in a photo of ``size`` (H, W): their part (h, w), and where its upper left pixel (y, x) lies.

    The part covers the box; outside it the value is 0. Pixel centres are sampled bilinearly, zero beyond the mask.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
    right, bottom = min(size[1], math.ceil(x1)), min(size[0], math.ceil(y1))
    if right <= left or bottom <= top:
        return mask.new_zeros(0, 0), (0, 0)
    x = 2 * (torch.arange(left, right, dtype=torch.float32) + 0.5 - x0) / (x1 - x0) - 1
    y = 2 * (torch.arange(top, bottom, dtype=torch.float32) + 0.5 - y0) / (y1 - y0) - 1
    grid = _grid(x[None], y[:, None])
    return F.grid_sample(mask[None, None].float(), grid[None], align_corners=False)[0, 0], (top, left)

"""Learned tables carried to sizes that they were not learned for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A class row and a square of position rows -> the class row and a grid of (h, w) rows, row-major.

    table (1 + g * g, C) -> (1 + h * w, C); bicubic, align_corners False, no antialiasing (CLIPSeg code), and unchanged where the grid is
    the table's own.
    """
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    rows = table[1:].T.reshape(1, -1, side, side)
    resized = F.interpolate(rows.float(), size=grid, mode="bicubic", align_corners=False).to(table.dtype)
    return torch.cat([table[:1], resized[0].flatten(1).T])


def resize_kernel(kernel: Tensor, size: int) -> Tensor:
    """Patch kernel (C, 3, p, p) -> (C, 3, size, size); bilinear, align_corners True, values not rescaled (CLIPSeg code, ``n_tokens``)."""
    if kernel.shape[-1] == size:
        return kernel
    return F.interpolate(kernel.float(), size=(size, size), mode="bilinear", align_corners=True).to(kernel.dtype)

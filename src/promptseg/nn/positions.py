"""Learned tables carried to sizes that they were not learned for."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError


def resize_table(table: Tensor, grid: tuple[int, int], mode: Literal["bicubic", "bilinear"] = "bicubic") -> Tensor:
    """A class row and a square of position rows -> the class row and a grid of (h, w) rows, row-major.

    table (1 + g * g, C) -> (1 + h * w, C); ``mode``, align_corners False, no antialiasing (CLIPSeg code; DenseCLIP's is bilinear), and
    unchanged where the grid is the table's own.
    """
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    rows = table[1:].T.reshape(1, -1, side, side)
    resized = F.interpolate(rows.float(), size=grid, mode=mode, align_corners=False).to(table.dtype)
    return torch.cat([table[:1], resized[0].flatten(1).T])


def crop_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A class row and a square of position rows -> the class row and the rows of the square's top left corner of (h, w), row-major.

    Raises:
        ImageError: the corner is larger than the square.
    """
    side = round((len(table) - 1) ** 0.5)
    if max(grid) > side:
        raise ImageError(f"The model has positions for a grid of {side}x{side}, the image needs {grid[0]}x{grid[1]}. Show it smaller.")
    rows = table[1:].view(side, side, -1)[: grid[0], : grid[1]]
    return torch.cat([table[:1], rows.flatten(0, 1)])


def resize_kernel(kernel: Tensor, size: int) -> Tensor:
    """Patch kernel (C, 3, p, p) -> (C, 3, size, size); bilinear, align_corners True, values not rescaled (CLIPSeg code, ``n_tokens``)."""
    if kernel.shape[-1] == size:
        return kernel
    return F.interpolate(kernel.float(), size=(size, size), mode="bilinear", align_corners=True).to(kernel.dtype)


def resize_grid(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A square of position rows without class row (1, g * g, C) -> (1, h * w, C), as `resize_table`."""
    side = round(table.shape[1] ** 0.5)
    if grid == (side, side):
        return table
    rows = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(rows.float(), size=grid, mode="bicubic", align_corners=False).to(table.dtype)
    return resized.flatten(2).transpose(1, 2)


def fourier_table(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed positions (1, h * w, C): a quarter each of sin and cos of the row, sin and cos of the column (MoCo v3)."""
    quarter = width // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float32) / quarter)
    rows, columns = (torch.arange(length, dtype=torch.float32)[:, None] * omega for length in grid)
    h, w = grid
    down, across = rows[:, None].expand(h, w, quarter), columns[None].expand(h, w, quarter)
    return torch.cat([down.sin(), down.cos(), across.sin(), across.cos()], -1).reshape(1, h * w, width)

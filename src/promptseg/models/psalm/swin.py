"""Swin transformer (Liu et al., ICCV 2021) as Mask2Former's backbone: windows of the whole padded map, one normed output per stage."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import SwinConfig

Maps = tuple[Tensor, Tensor, Tensor, Tensor]  # res2..res5, (B, C, H / 4, W / 4) to (B, 8 C, H / 32, W / 32)


class WindowAttention(nn.Module):
    """Self-attention inside square windows, with a learned bias per relative position."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B * windows, n, C); mask (windows, n, n), added to the logits -> like x."""
        rows, count, width = x.shape
        q, k, v = self.qkv(x).view(rows, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias[relative_index(self.window).to(x.device)].permute(2, 0, 1)[None]  # (1, heads, n, n)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(rows // len(mask), 1, 1, 1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        result: Tensor = self.out(attended.transpose(1, 2).reshape(rows, count, width))
        return result


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> the same."""
        result: Tensor = self.down(F.gelu(self.up(x)))
        return result


class Block(nn.Module):
    """Windows attend, those of every second block shifted by half a window; then the MLP. ``drop`` is the chance to skip either."""

    def __init__(self, width: int, heads: int, config: SwinConfig, shift: int, drop: float) -> None:
        super().__init__()
        self.window, self.shift, self.drop = config.window, shift, drop
        self.norm1, self.attn = nn.LayerNorm(width), WindowAttention(width, heads, config.window)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, int(width * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> the same."""
        x = x + self._dropped(self._attend(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """Zeros are appended to fill the windows, after the norm, and take part as keys like any token (published code)."""
        batch, height, width, channels = x.shape
        side, shift = self.window, self.shift
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side * side, channels)
        mask = shift_mask(rows, columns, side, shift).to(x.device, x.dtype) if shift else None
        windows = self.attn(windows, mask)
        x = windows.view(batch, rows, columns, side, side, channels).transpose(2, 3).reshape(batch, rows * side, columns * side, channels)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :height, :width]

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop:
            return x
        kept = torch.empty(len(x), *(1,) * (x.ndim - 1), device=x.device, dtype=x.dtype).bernoulli_(1 - self.drop)
        return x * kept / (1 - self.drop)


class Merging(nn.Module):
    """Four neighbouring tokens become one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = torch.cat([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
        result: Tensor = self.reduction(self.norm(x))
        return result


class Swin(nn.Module):
    """Normalised pixels (B, 3, H, W) of any size -> maps of four resolutions."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, config.width, 4, stride=4)
        self.norm = nn.LayerNorm(config.width)
        drops = [float(share) for share in torch.linspace(0, config.drop_path, sum(config.depths), device="cpu")]
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(width, heads, config, 0 if index % 2 == 0 else config.window // 2, drops[sum(config.depths[:stage]) + index])
                for index in range(depth)
            )
            for stage, (width, heads, depth) in enumerate(zip(config.widths, config.heads, config.depths, strict=True))
        )
        self.merging = nn.ModuleList(Merging(width) for width in config.widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.widths)

    def forward(self, pixels: Tensor) -> Maps:
        """pixels (B, 3, H, W) -> res2, res3, res4, res5 at a quarter to a thirty-second of the size, rounded up."""
        pixels = F.pad(pixels, (0, -pixels.shape[3] % 4, 0, -pixels.shape[2] % 4))
        x = self.norm(self.patches(pixels).permute(0, 2, 3, 1))
        maps = []
        for index, (blocks, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index:
                x = self.merging[index - 1](x)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x)
            maps.append(norm(x).permute(0, 3, 1, 2).contiguous())
        return maps[0], maps[1], maps[2], maps[3]


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept may be trained with later
def relative_index(window: int) -> Tensor:
    """(n, n) row of the bias table for every pair of a window's n = window ** 2 cells, row-major."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = rows.flatten(), columns.flatten()
    return (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept may be trained with later
def shift_mask(rows: int, columns: int, window: int, shift: int) -> Tensor:
    """(rows * columns, n, n): -100 where two cells of a window came together only by rolling the map."""

    def regions(count: int) -> Tensor:
        place = torch.arange(count * window)
        return (place >= (count - 1) * window).long() + (place >= count * window - shift).long()

    region = regions(rows)[:, None] * 3 + regions(columns)
    cells = region.view(rows, window, columns, window).transpose(1, 2).reshape(rows * columns, -1)
    return (cells[:, :, None] != cells[:, None]) * -100.0

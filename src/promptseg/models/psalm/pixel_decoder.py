"""Mask2Former's pixel decoder (Cheng et al., CVPR 2022): multi-scale deformable attention over three maps, then one step up to a quarter.

    res5, res4, res3 --projections, deformable encoder--> scales, coarsest first (B, C, S/32), (B, C, S/16), (B, C, S/8)
    res2, finest scale --convolutions--> mask features (B, C, S/4)

Plain PyTorch: the sampling core is one `grid_sample` per level, for all heads and points at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MaskConfig
from .swin import Maps

LEVELS = 3
TEMPERATURE = 10000.0  # of the sine positions


@dataclass(frozen=True, slots=True)
class Scales:
    """``scales``: three maps (B, C, h, w), coarsest first; ``features`` (B, C, H / 4, W / 4): what mask embeddings are multiplied with."""

    scales: tuple[Tensor, Tensor, Tensor]
    features: Tensor


class DeformableAttention(nn.Module):
    """Every query looks at a few points per head and level, which it chooses itself (Zhu et al., ICLR 2021)."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        self.heads, self.points = config.heads, config.points
        self.offsets = nn.Linear(config.width, config.heads * LEVELS * config.points * 2)  # rows (head, level, point, (x, y))
        self.weights = nn.Linear(config.width, config.heads * LEVELS * config.points)  # rows (head, level and point)
        self.value, self.out = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)
        self._start()

    def _start(self) -> None:
        """Each head looks in a direction of its own, each point one pixel further (published code)."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)[:, None]
        start = (directions[:, None, None] * steps).expand(-1, LEVELS, -1, -1)
        with torch.no_grad():
            self.offsets.bias.copy_(start.flatten())
        for tensor in (self.offsets.weight, self.weights.weight, self.weights.bias, self.value.bias, self.out.bias):
            nn.init.zeros_(tensor)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, queries: Tensor, places: Tensor, memory: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """queries (B, N, C) at ``places`` (N, 2), x and y in 0..1; memory (B, M, C), levels of ``shapes`` (h, w) in a row -> (B, N, C).

        Places are float32 whatever the network is: half precision does not tell the cells of a large map apart.
        """
        batch, count, _ = queries.shape
        value = self.value(memory).view(batch, memory.shape[1], self.heads, -1).float()
        offsets = self.offsets(queries).float().view(batch, count, self.heads, LEVELS, self.points, 2)
        weights = self.weights(queries).float().view(batch, count, self.heads, -1).softmax(-1)
        sizes = offsets.new_tensor([(width, height) for height, width in shapes])
        locations = places[:, None, None, None] + offsets / sizes[:, None]
        mixed = sample(value, shapes, locations, weights.view(batch, count, self.heads, LEVELS, self.points))
        result: Tensor = self.out(mixed.to(queries.dtype))
        return result


def sample(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """The core: value (B, M, heads, D), locations (B, N, heads, levels, points, 2) in 0..1, weights without the 2 -> (B, N, heads * D).

    The samples of all levels are weighed in one sum: the gradient of bilinear sampling jumps at the borders of cells, so that rounding
    must not depend on how levels are added up.
    """
    batch, _, heads, depth = value.shape
    count, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # (B * heads, levels, N, points, 2)
    samples = []
    for level, (part, (height, width)) in enumerate(zip(torch.split(value, [h * w for h, w in shapes], 1), shapes, strict=True)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, depth, height, width)
        samples.append(F.grid_sample(maps, grids[:, level], mode="bilinear", padding_mode="zeros", align_corners=False))
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, count, len(shapes) * points)
    mixed = (torch.cat(samples, -1) * shares).sum(-1)  # (B * heads, D, N)
    return mixed.view(batch, heads * depth, count).transpose(1, 2)


class EncoderLayer(nn.Module):
    """norm(x + attention), then norm(x + MLP)."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        self.attn = DeformableAttention(config)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.up, self.down = nn.Linear(config.width, config.encoder_hidden), nn.Linear(config.encoder_hidden, config.width)

    def forward(self, x: Tensor, positions: Tensor, places: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """x (B, N, C), positions (N, C) -> like x."""
        x = self.norm1(x + self.attn(x + positions, places, x, shapes))
        result: Tensor = self.norm2(x + self.down(F.relu(self.up(x))))
        return result


class PixelDecoder(nn.Module):
    """``widths``: channels of res2 to res5."""

    def __init__(self, widths: Sequence[int], config: MaskConfig) -> None:
        super().__init__()
        width, groups = config.width, config.groups
        self.inputs = nn.ModuleList(_normed(nn.Conv2d(channels, width, 1), groups) for channels in reversed(widths[1:]))
        self.level_embed = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.lateral = _normed(nn.Conv2d(widths[0], width, 1), groups)
        self.smooth = _normed(nn.Conv2d(width, width, 3, padding=1), groups)
        self.mask_features = nn.Conv2d(width, width, 1)

    def forward(self, maps: Maps) -> Scales:
        """res2..res5 -> three scales and mask features."""
        inputs = [project(one) for project, one in zip(self.inputs, reversed(maps[1:]), strict=True)]
        shapes = [(one.shape[2], one.shape[3]) for one in inputs]
        x = torch.cat([one.flatten(2).transpose(1, 2) for one in inputs], 1)
        positions = torch.cat([
            sine_positions(shape, x.shape[-1], x).flatten(1).T + level for shape, level in zip(shapes, self.level_embed, strict=True)
        ])  # fmt: skip
        places = torch.cat([_centres(shape, x) for shape in shapes])
        for layer in self.layers:
            x = layer(x, positions, places, shapes)
        parts = torch.split(x, [height * width for height, width in shapes], 1)
        coarse, middle, fine = (torch.unflatten(part.transpose(1, 2), -1, shape) for part, shape in zip(parts, shapes, strict=True))
        lateral = F.relu(self.lateral(maps[0]))
        x = lateral + F.interpolate(fine, lateral.shape[-2:], mode="bilinear", align_corners=False)
        return Scales((coarse, middle, fine), self.mask_features(F.relu(self.smooth(x))))


def _normed(convolution: nn.Conv2d, groups: int) -> nn.Sequential:
    nn.init.xavier_uniform_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(groups, convolution.out_channels))


def _centres(shape: tuple[int, int], like: Tensor) -> Tensor:
    """(h * w, 2): x and y of the cells' centres in 0..1, row by row."""
    y, x = ((torch.arange(length, device=like.device, dtype=torch.float32) + 0.5) / length for length in shape)
    return torch.stack([x.expand(shape), y[:, None].expand(shape)], -1).flatten(0, 1)


def sine_positions(shape: tuple[int, int], width: int, like: Tensor) -> Tensor:
    """(width, h, w): half of the channels says the row, half the column, sines and cosines in turn (DETR, normalised to a whole turn)."""
    half = width // 2
    steps = TEMPERATURE ** (2 * torch.arange(half, device=like.device).div(2, rounding_mode="floor") / half)
    angles = [
        (torch.arange(1, length + 1, device=like.device, dtype=torch.float32) / (length + 1e-6) * (2 * math.pi))[:, None] / steps
        for length in shape
    ]
    y, x = (torch.stack([one[:, ::2].sin(), one[:, 1::2].cos()], 2).flatten(1).T for one in angles)  # (half, length)
    return torch.cat([y[:, :, None].expand(-1, *shape), x[:, None].expand(-1, *shape)]).to(like.dtype)

"""CLIP's residual network (Radford et al. 2021, section 2.4), whose attention pool may be asked for every cell (DenseCLIP, section 3.2).

    pixels (B, 3, H, W) --stem, four stages--> maps at strides 4, 8, 16, 32 --attention pool--> embedding (B, E), local (B, E, h, w)

Parameters have the names of CLIP's published files.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ImageError
from .clip_config import AttentionPoolConfig, ClipResNetConfig
from .positions import crop_table, resize_table
from .shared_norm import SharedBatchNorm2d

LEAST = 31  # pixels on a side, of which five halvings leave a cell; the first rounds up


@dataclass(frozen=True, slots=True)
class ImageMaps:
    """``maps``: four levels (B, C_i, h_i, w_i), the finest first. ``embedding`` (B, E) of the whole image and ``local`` (B, E, h, w) of its
    cells, not normalised; None for a network that embeds nothing."""

    maps: tuple[Tensor, ...]
    embedding: Tensor | None
    local: Tensor | None


class Bottleneck(nn.Module):
    """Residual block of expansion 4; every convolution has stride 1, average pools halve the map."""

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = SharedBatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = SharedBatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = SharedBatchNorm2d(4 * planes)
        self.downsample = None
        if stride > 1 or inputs != 4 * planes:
            parts = [
                ("-1", nn.AvgPool2d(stride)),
                ("0", nn.Conv2d(inputs, 4 * planes, 1, bias=False)),
                ("1", SharedBatchNorm2d(4 * planes)),
            ]
            self.downsample = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, H, W) -> (B, 4 planes, H / stride, W / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        if self.stride > 1:
            inner = F.avg_pool2d(inner, self.stride)
        inner = self.bn3(self.conv3(inner))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(inner + shortcut, inplace=True)


class AttentionPool(nn.Module):
    """Self-attention of a map's mean and its cells: the mean's answer embeds the image, the cells' answers embed them."""

    def __init__(self, width: int, config: AttentionPoolConfig) -> None:
        super().__init__()
        self.config = config
        self.positional_embedding = nn.Parameter(torch.randn(config.grid**2 + 1, width) * width**-0.5)
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, config.embed)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, h, w) -> embedding (B, E) of the whole, embeddings (B, E, h, w) of the cells.

        Raises:
            ImageError: positions are cropped and the map is larger than their table.
        """
        grid = (x.shape[-2], x.shape[-1])
        tokens = x.flatten(2).transpose(1, 2)  # (B, h*w, C)
        table = self.positional_embedding
        positions = resize_table(table, grid, "bilinear") if self.config.resize else crop_table(table, grid)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + positions
        q, k, v = (
            torch.unflatten(project(tokens), -1, (self.config.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        answers = self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # (B, 1 + h*w, E)
        return answers[:, 0], torch.unflatten(answers[:, 1:].transpose(1, 2), -1, grid)


class ClipResNet(nn.Module):
    """The network of RN50, RN101 and their like for images of any size, with or without the attention pool."""

    def __init__(self, config: ClipResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = SharedBatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = SharedBatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = SharedBatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        inputs = (width, *config.channels[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(before, after // 4, blocks, stride)
            for before, after, blocks, stride in zip(inputs, config.channels, config.layers, (1, 2, 2, 2), strict=True)
        )
        self.attnpool = None if config.pool is None else AttentionPool(config.channels[-1], config.pool)

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised.

        Raises:
            ImageError: the image is so narrow that the coarsest map has no cell.
        """
        require_sides(pixels, LEAST)
        x = pixels
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)), inplace=True)
        x = self.avgpool(x)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        embedding, local = (None, None) if self.attnpool is None else self.attnpool(x)
        return ImageMaps(tuple(maps), embedding, local)


def require_sides(pixels: Tensor, least: int) -> None:
    """Nothing, if both sides of pixels (B, 3, H, W) are at least so long.

    Raises:
        ImageError: the image is too small or too narrow for its coarsest map to have a cell.
    """
    if min(pixels.shape[-2:]) < least:
        raise ImageError(
            f"The image is {tuple(pixels.shape[-2:])} pixels; the model reads {least} and more on a side. "
            "Show it larger, or a narrow photo stretched: Options(fit='stretch')."
        )


def _stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Bottleneck(inputs, planes, stride), *(Bottleneck(4 * planes, planes) for _ in range(blocks - 1)))

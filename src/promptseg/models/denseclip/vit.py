"""CLIP's vision transformer as DenseCLIP shows it to a feature pyramid (code, ``CLIPVisionTransformer``)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import PreNormBlock
from ...nn.clip_resnet import ImageMaps, require_sides
from ...nn.positions import resize_table
from ...nn.shared_norm import SharedBatchNorm2d
from .config import VitBackbone


class DenseVit(nn.Module):
    """The transformer, its tapped activations made into levels, and the embedding of every token.

    The class token takes part with its embedding counted twice, once of its own and once through its position, as in the published code.
    """

    def __init__(self, config: VitBackbone) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embedding = nn.Conv2d(3, width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.position_embedding = nn.Parameter(torch.randn(1 + config.grid**2, width) * width**-0.5)
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(PreNormBlock(width, config.heads) for _ in range(config.layers))
        self.norm_post = nn.LayerNorm(width) if config.embed else None
        self.projection = nn.Parameter(torch.randn(width, config.embed) * width**-0.5) if config.embed else None
        self.levels = nn.ModuleList(levels(width, config.patch))

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised -> four levels, at patch 16 of strides 4, 8, 16 and 32, and embeddings at the patches' stride.

        Raises:
            ImageError: the image is smaller than two patches, of which the coarsest level makes one cell.
        """
        x, grid = self.tokens(pixels)
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = self._through(cast(PreNormBlock, block), x, index)
            if index in self.config.taps:
                maps.append(self.levels[len(maps)](_cells(x, grid)))
            if self.projection is None and index == self.config.taps[-1]:
                break
        if self.norm_post is None or self.projection is None:
            return ImageMaps(tuple(maps), None, None)
        embedded = self.norm_post(x) @ self.projection
        return ImageMaps(tuple(maps), embedded[:, 0], _cells(embedded, grid))

    def tokens(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The first block's input (B, 1 + h * w, C) and the grid (h, w)."""
        require_sides(pixels, 2 * self.config.patch)
        patches = self.patch_embedding(pixels)
        grid = (patches.shape[-2], patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2)  # (B, h*w, C)
        tokens = torch.cat([self.class_embedding.expand(len(tokens), 1, -1), tokens], dim=1)
        positions = resize_table(self.position_embedding, grid, "bilinear")
        twice = torch.cat([(positions[0] + self.class_embedding)[None], positions[1:]])
        return self.norm_pre(tokens + twice), grid

    def _through(self, block: PreNormBlock, x: Tensor, index: int) -> Tensor:
        share = self.config.drop_path * index / max(1, self.config.layers - 1) if self.training else 0.0
        if not share:
            result: Tensor = block(x)
            return result
        x = x + drop_path(block.attn(block.norm1(x)), share)
        return x + drop_path(block.mlp(block.norm2(x)), share)


def levels(width: int, patch: int) -> list[nn.Module]:
    """What makes a level of each tapped activation: norm, then upsampling by transposed convolutions or downsampling by a pool."""

    def norm() -> nn.Module:
        return nn.GroupNorm(1, width)

    def double() -> nn.Module:
        return nn.ConvTranspose2d(width, width, 2, stride=2)

    if patch == 16:
        fine = nn.Sequential(norm(), double(), SharedBatchNorm2d(width), nn.GELU(), double())
        return [fine, nn.Sequential(norm(), double()), norm(), nn.Sequential(norm(), nn.MaxPool2d(2))]
    pools = [nn.Sequential(norm(), nn.MaxPool2d(factor)) for factor in (2, 4)]
    return [nn.Sequential(norm(), double()), norm(), *pools]


def drop_path(x: Tensor, share: float) -> Tensor:
    """A branch x (B, ...) left out for a ``share`` of the examples, the rest scaled up (Huang et al., ECCV 2016)."""
    shape = (len(x), *(1 for _ in x.shape[1:]))
    kept = F.dropout(x.new_ones(shape), share)
    return x * kept


def _cells(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1 + h*w, C) without the class token -> (B, C, h, w)."""
    return torch.unflatten(tokens[:, 1:].transpose(1, 2), -1, grid)

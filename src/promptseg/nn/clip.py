"""OpenAI CLIP's two towers (Radford et al. 2021, section 2.4), as its published code computes them.

    pixels (B, 3, H, W) --ImageTower--> embedding (B, E), activations of chosen blocks (B, 1 + h*w, C)
    ids (N, L)          --TextTower---> embedding (N, E)

Both stop where nobody reads on: the image tower after the last block that is asked for, the text tower at the longest phrase's last token.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import isqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ImageError
from .attention import AttentionMask, PreNormBlock, StreamNorm
from .clip_config import ClipTextConfig, ClipVisionConfig
from .positions import resize_kernel, resize_table

TEXT_TOKENS_AT_ONCE = 4096  # of a batch of phrases; bounds the memory that a thousand of them take
TOKENS_PACKED = 256  # of phrases in one sequence; beyond that attention, which grows with the square, costs more than is saved
PADDING_AT_MOST = 64  # tokens in a batch; about where padding costs a CPU as much as reading the weights once more


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """What the image tower saw.

    ``embedding`` (B, E), not normalised; None unless asked for. ``activations`` block -> the residual stream after it, (B, 1 + h * w, C),
    class token first, no norm. ``weights`` block -> attention weights (B * heads, T, T). ``grid`` (h, w) in patches.
    """

    embedding: Tensor | None
    grid: tuple[int, int]
    activations: dict[int, Tensor]
    weights: dict[int, Tensor]


class ImageTower(nn.Module):
    """CLIP's vision transformer for images of any size: positions are interpolated, a remainder smaller than a patch is not seen."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.position_embedding = nn.Parameter(torch.randn(1 + config.grid**2, config.width) * config.width**-0.5)
        self.norm_pre = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(PreNormBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm_post = StreamNorm(config.width)
        self.projection = nn.Parameter(torch.randn(config.width, config.embed) * config.width**-0.5)

    def forward(
        self,
        pixels: Tensor,
        *,
        taps: Collection[int] = (),
        embed: bool = True,
        mask: AttentionMask | None = None,
        weights: Collection[int] = (),
        stride: int | None = None,
        square: bool = False,
    ) -> ImageTokens:
        """pixels (B, 3, H, W), normalised -> what was asked for.

        Args:
            taps: blocks, 0-based, whose activations are wanted.
            embed: whether the image embedding is wanted; it needs every block.
            mask: what the attention logits are multiplied with.
            weights: blocks whose attention weights are wanted.
            stride: patch size other than the learned one; the kernel is resized (CLIPSeg's ``n_tokens``).
            square: read the row-major patches as a square grid whatever the image's shape, as CLIPSeg's published code does.

        Raises:
            ImageError: the image is smaller than one patch, or ``square`` and the number of patches is no square number.
        """
        x, grid = self.embed_patches(pixels, stride, square)
        dtype, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))
        factors = mask.factors(grid, self.config.heads) if mask else None
        seen: dict[int, Tensor] = {}
        attended: dict[int, Tensor] = {}
        last = len(self.blocks) - 1 if embed else max((*taps, *weights), default=-1)
        for index, block in enumerate(self._first(last + 1)):
            masked = mask is not None and (mask.blocks is None or index in mask.blocks)
            if masked or index in weights:
                x, attention = block.with_weights(x, factors if masked else None)
                attended |= {index: attention} if index in weights else {}
            else:
                x = block(x)
            seen |= {index: x.to(dtype)} if index in taps else {}
        embedding = self.norm_post(x[:, 0]) @ self.projection if embed else None
        return ImageTokens(embedding, grid, seen, attended)

    def _first(self, count: int) -> list[PreNormBlock]:
        return [cast(PreNormBlock, block) for block in self.blocks[:count]]

    def embed_patches(self, pixels: Tensor, stride: int | None = None, square: bool = False) -> tuple[Tensor, tuple[int, int]]:
        """pixels (B, 3, H, W) -> the first block's input (B, 1 + h * w, C) and the grid (h, w)."""
        size = stride or self.config.patch
        if min(pixels.shape[-2:]) < size:
            raise ImageError(f"The image is {tuple(pixels.shape[-2:])} pixels; the model reads patches of {size}x{size}. Show it larger.")
        if stride is None:
            patches: Tensor = self.patch_embedding(pixels)
        else:
            patches = F.conv2d(pixels, resize_kernel(self.patch_embedding.weight, size), stride=size)
        grid = (patches.shape[-2], patches.shape[-1])
        if square:
            grid = _as_square(grid)
        tokens = patches.flatten(2).transpose(1, 2)  # (B, h*w, C)
        tokens = torch.cat([self.class_embedding.expand(len(tokens), 1, -1), tokens], dim=1)
        return self.norm_pre(tokens + resize_table(self.position_embedding, grid)), grid


class TextTower(nn.Module):
    """CLIP's causal text transformer; a phrase's embedding is read at its end token, the largest id.

    ``packs``: without gradients phrases stand one after another in one sequence, and what all begin with, such as "a photo of a", is read
    once. That is quickest, and rounds otherwise in the seventh digit, which decides between classes that are equally likely.
    """

    packs = False

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Parameter(torch.randn(config.context, config.width) * 0.01)
        self.blocks = nn.ModuleList(PreNormBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm_final = nn.LayerNorm(config.width)
        self.projection = nn.Parameter(torch.randn(config.width, config.embed) * config.width**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (N, L) int64, L at most the context, padded with anything after the end token -> embeddings (N, E), not normalised.

        Phrases of like length go together, so little of the work is padding. Attention is causal, so this does not change the result.
        """
        if not len(ids):
            return self.token_embedding.weight.new_zeros(0, self.config.embed)
        ends = ids.argmax(-1)
        if self.packs and len(ids) > 1 and not torch.is_grad_enabled():
            return self._packed(ids, ends)
        order = ends.argsort()
        embeddings = torch.cat([self._encode(ids[part], ends[part]) for part in _batches(order, ends)])
        return embeddings[order.argsort()]

    def tokens(self, ids: Tensor) -> Tensor:
        """ids (N, L) -> the residual stream after the last block (N, L, W), no norm."""
        x: Tensor = self.token_embedding(ids) + self.position_embedding[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, causal=True)
        return x

    def _encode(self, ids: Tensor, ends: Tensor) -> Tensor:
        x = self.tokens(ids[:, : int(ends.max()) + 1])
        at_end = x[torch.arange(len(x), device=x.device), ends]
        return self.project(self.norm_final(at_end))

    def _packed(self, ids: Tensor, ends: Tensor) -> Tensor:
        start = int((ids == ids[:1]).all(0).cumprod(0).sum().clamp(max=ends.min()))  # tokens that all begin with
        counts = ((ends + 1 - start).cumsum(0) // TOKENS_PACKED).bincount()
        packs = counts[counts > 0].tolist()
        return torch.cat([self._pack(*pack, start) for pack in zip(torch.split(ids, packs), torch.split(ends, packs), strict=True)])

    def _pack(self, ids: Tensor, ends: Tensor, start: int) -> Tensor:
        """Phrases in one sequence: their common beginning, then the rest of one after another, which sees the beginning and itself."""
        places = torch.arange(ids.shape[1], device=ids.device)
        phrases, rest = ((places >= start) & (places <= ends[:, None])).nonzero(as_tuple=True)
        phrases, at = torch.cat([torch.full_like(places[:start], -1), phrases]), torch.cat([places[:start], rest])
        seen = ((phrases == phrases[:, None]) | (phrases < 0)).tril()
        x: Tensor = (self.token_embedding(ids[phrases.clamp(min=0), at]) + self.position_embedding[at])[None]
        for block in self.blocks:
            x = block(x, seen=seen)
        at_end = x[0, start - 1 + (ends + 1 - start).cumsum(0)]
        return self.project(self.norm_final(at_end))

    def project(self, x: Tensor) -> Tensor:
        """What the end token says (N, W) -> embeddings (N, E)."""
        result: Tensor = x @ self.projection
        return result


class Clip(nn.Module):
    """Both towers and the scale of their similarity: `image`, `text`, `logit_scale`.

    ``image``: sizes of CLIP's own tower, or another tower that is asked and answers as `ImageTower`.
    """

    def __init__(self, image: ClipVisionConfig | nn.Module, text: ClipTextConfig) -> None:
        super().__init__()
        self.image = ImageTower(image) if isinstance(image, ClipVisionConfig) else cast(ImageTower, image)
        self.text = TextTower(text)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())  # CLIP paper, section 2.5; a loaded checkpoint brings its own

    def similarity(self, image: Tensor, text: Tensor) -> Tensor:
        """Embeddings (B, E) and (N, E) -> logits (B, N): scaled cosines."""
        logits: Tensor = self.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        return logits


def _batches(order: Tensor, ends: Tensor) -> list[Tensor]:
    """Positions of phrases, sorted by length, cut so that a batch has neither too many tokens nor too much padding."""
    lengths = (ends[order] + 1).tolist()
    parts: list[Tensor] = []
    stop = len(lengths)
    while stop:  # from the longest
        start, padding = stop - 1, 0
        while start and (stop - start + 1) * lengths[stop - 1] <= TEXT_TOKENS_AT_ONCE:
            padding += lengths[stop - 1] - lengths[start - 1]
            if padding > PADDING_AT_MOST:
                break
            start -= 1
        parts.append(order[start:stop])
        stop = start
    return parts[::-1]


def _as_square(grid: tuple[int, int]) -> tuple[int, int]:
    side = isqrt(grid[0] * grid[1])
    if side * side != grid[0] * grid[1]:
        raise ImageError(f"A grid of {grid[0]}x{grid[1]} patches cannot be read as a square one. Stretch the photo to a square.")
    return side, side

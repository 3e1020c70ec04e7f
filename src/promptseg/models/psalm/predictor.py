"""Mask2Former's transformer decoder with PSALM's heads: queries become masks, and scores for whatever condition was asked.

There is no learned classifier: a query's score for a class, a sentence or a region is the product of its projected state with that
condition's embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MaskConfig
from .pixel_decoder import LEVELS, Scales, sine_positions


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is asked, as embeddings of the decoder's width: ``classes`` (B, K + 1, C), the last "background"; ``sentence`` (B, 1, C);

    ``regions`` one (K_b, C) per image. None: not asked.
    """

    classes: Tensor | None = None
    sentence: Tensor | None = None
    regions: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """One round of predictions: ``masks`` (B, Q, h, w) logits; ``classes`` (B, Q, K + 1); ``sentence`` (B, Q, 1); ``regions`` (K_b, Q)."""

    masks: Tensor
    classes: Tensor | None = None
    sentence: Tensor | None = None
    regions: tuple[Tensor, ...] | None = None


class Mlp(nn.Module):
    """Linear layers of one width with ReLU between them."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> the same."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(F.relu(x))
        return x


class Attention(nn.Module):
    """Multi-head attention with fused projections: rows of ``qkv`` are queries, keys, values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """queries (B, N, C), keys and values (B, M, C); mask (B, 1, N, M) bool, True where a query may look -> (B, N, C)."""
        parts = zip((queries, keys, values), self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (torch.unflatten(F.linear(x, weight, bias), -1, (self.heads, -1)).transpose(1, 2) for x, weight, bias in parts)
        result: Tensor = self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        return result


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, MLP, each normed after it is added."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        width = config.width
        self.cross, self.norm_cross = Attention(width, config.heads), nn.LayerNorm(width)
        self.attn, self.norm_attn = Attention(width, config.heads), nn.LayerNorm(width)
        self.up, self.down, self.norm = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width), nn.LayerNorm(width)

    def forward(self, x: Tensor, places: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """x (B, Q, C) with places (Q, C); keys and values (B, M, C); mask (B, 1, Q, M) -> like x."""
        x = self.norm_cross(x + self.cross(x + places, keys, values, mask))
        placed = x + places
        x = self.norm_attn(x + self.attn(placed, placed, x))
        result: Tensor = self.norm(x + self.down(F.relu(self.up(x))))
        return result


class Predictor(nn.Module):
    """Queries and scales -> as many rounds of predictions as there are layers, and one before the first.

    ``classes``: of a learned classifier, which then scores classes in place of their conditions; 0: there is none.
    """

    def __init__(self, config: MaskConfig, classes: int = 0) -> None:
        super().__init__()
        width = config.width
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.query_places = nn.Embedding(config.queries, width)
        self.query_features = nn.Embedding(config.queries, width)  # Mask2Former's own queries
        self.sentence_places = nn.Embedding(config.queries + 1, width)  # in the published weights, though nothing reads it
        self.level_embed = nn.Embedding(LEVELS, width)
        self.mask_embed = Mlp(width, 3)
        self.of_sentence, self.of_class, self.of_region = Mlp(width, 2), Mlp(width, 2), Mlp(width, 2)
        self.classifier = nn.Linear(width, classes + 1) if classes else None

    def forward(self, seen: Scales, queries: Tensor, conditions: Conditions, *, every: bool = True) -> list[Head]:
        """queries (B, Q, C) -> a `Head` per round, the last of which counts; ``every`` False gives that one alone."""
        keys, values = [], []
        for scale, level in zip(seen.scales, self.level_embed.weight, strict=True):
            values.append(scale.flatten(2).transpose(1, 2) + level)
            positions = sine_positions((scale.shape[2], scale.shape[3]), scale.shape[1], scale)
            keys.append(values[-1] + positions.flatten(1).T)
        x, heads = queries, []
        for index, layer in enumerate(self.layers):
            state = self.norm(x)
            masks = self._masks(state, seen.features)
            if every:
                heads.append(self._head(state, masks, conditions))
            level = index % LEVELS
            mask = visible(masks, (seen.scales[level].shape[2], seen.scales[level].shape[3]))
            x = layer(x, self.query_places.weight, keys[level], values[level], mask)
        state = self.norm(x)
        return [*heads, self._head(state, self._masks(state, seen.features), conditions)]

    def _masks(self, state: Tensor, features: Tensor) -> Tensor:
        return torch.einsum("bqc,bchw->bqhw", self.mask_embed(state), features)

    def _head(self, state: Tensor, masks: Tensor, asked: Conditions) -> Head:
        regions = None
        if asked.regions is not None:
            projected = self.of_region(state)
            regions = tuple(region @ one.T for region, one in zip(asked.regions, projected, strict=True))
        scores = None
        if asked.classes is not None:
            scores = self.of_class(state) @ asked.classes.transpose(1, 2) if self.classifier is None else self.classifier(state)
        return Head(
            masks,
            scores,
            None if asked.sentence is None else self.of_sentence(state) @ asked.sentence.transpose(1, 2),
            regions,
        )


def visible(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mask logits (B, Q, h, w) -> (B, 1, Q, h' * w') bool: where a query may look next, which is everywhere if it would be nowhere.

    No gradient passes.
    """
    resized = F.interpolate(masks.detach(), shape, mode="bilinear", align_corners=False).flatten(2)
    seen = resized.sigmoid() >= 0.5
    return (seen | ~seen.any(-1, keepdim=True))[:, None]

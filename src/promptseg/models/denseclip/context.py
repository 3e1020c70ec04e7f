"""Language meets image: the context decoder and the pixel-text score map (DenseCLIP, sections 3.2 and 3.3).

texts (B, K, C), image (B, 1 + h*w, C) --context decoder--> corrections (B, K, C)
local (B, C, h, w), texts (B, K, C) --cosines--> score map (B, K, h, w)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import DecoderConfig


class CrossAttention(nn.Module):
    """Attention with separate projections, those of queries, keys and values without bias."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """queries (B, K, C), memory (B, M, C) -> (B, K, C)."""
        q, k, v = (
            torch.unflatten(project(x), -1, (self.heads, -1)).transpose(1, 2)
            for project, x in ((self.q_proj, queries), (self.k_proj, memory), (self.v_proj, memory))
        )
        result: Tensor = self.proj_drop(self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return result


class DecoderLayer(nn.Module):
    """Pre-norm: the queries look at each other, then at the memory, which is not normalised again, then an MLP."""

    def __init__(self, width: int, heads: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = CrossAttention(width, heads, dropout)
        self.cross_attn = CrossAttention(width, heads, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x (B, K, C), memory (B, M, C) -> (B, K, C)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed)
        x = x + self.cross_attn(self.norm2(x), memory)
        result: Tensor = x + self.dropout(self.mlp(self.norm3(x)))
        return result


class ContextDecoder(nn.Module):
    """Texts (or learned queries) that look at an image; ``embed`` is the width of both, the layers work at ``config.width``.

    ``out``: width of what it gives; None: ``embed``.
    """

    def __init__(self, embed: int, config: DecoderConfig, out: int | None = None) -> None:
        super().__init__()
        width = config.width
        self.memory_proj = nn.Sequential(nn.LayerNorm(embed), nn.Linear(embed, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(embed), nn.Linear(embed, width))
        self.decoder = nn.ModuleList(DecoderLayer(width, config.heads, config.dropout) for _ in range(config.layers))
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out or embed))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, texts: Tensor, visual: Tensor) -> Tensor:
        """texts (B, K, C), visual (B, M, C), neither normalised -> (B, K, out)."""
        memory = self.memory_proj(visual)
        x = self.text_proj(texts)
        for layer in self.decoder:
            x = layer(x, memory)
        result: Tensor = self.out_proj(x)
        return result


def visual_context(embedding: Tensor, local: Tensor) -> Tensor:
    """The image's embedding (B, C) and its cells' (B, C, h, w) -> what the decoder looks at, (B, 1 + h*w, C)."""
    return torch.cat([embedding[:, None], local.flatten(2).transpose(1, 2)], dim=1)


def score_map(local: Tensor, texts: Tensor) -> Tensor:
    """Cosines of cells (B, C, h, w) and texts (B, K, C): (B, K, h, w), -1 to 1, not divided by the temperature."""
    return torch.einsum("bchw,bkc->bkhw", F.normalize(local, dim=1), F.normalize(texts, dim=-1))

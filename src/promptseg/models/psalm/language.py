"""Phi-1.5 (Li et al., 2023, arXiv 2309.05463): a causal transformer whose attention and MLP run side by side behind one norm.

`Prefix` holds what the first tokens of a prompt leave behind in every layer. A causal model computes the rest of the prompt from it
exactly, so prompts that begin alike share their beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LanguageConfig

EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Prefix:
    """Rotated keys and values of the first P positions, one pair (B, heads, P, D) per layer, and their states after the last norm."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    states: Tensor

    def __len__(self) -> int:
        return self.states.shape[1]


class Attention(nn.Module):
    """Causal self-attention; rows of ``qkv`` are ordered (head, {q, k, v}, dimension), as published."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.heads, self.rotated = config.heads, config.rotated
        self.qkv, self.out = nn.Linear(config.width, 3 * config.width), nn.Linear(config.width, config.width)

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, L, C) behind P earlier positions -> the same, and keys and values of all P + L.

        ``turns``: cosines and sines (L, rotated) of the positions; ``mask`` (B or 1, 1, L, P + L) bool, True where a query may look; None:
        plainly causal.
        """
        q, k, v = self._split(x)
        q, k = rotate(q, turns), rotate(k, turns)
        if before is not None:
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out, (k, v)

    def weights(self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attention weights (B, heads, L, L) of x, without a prefix."""
        q, k, _ = self._split(x)
        logits = (rotate(q, turns) @ rotate(k, turns).transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        shares: Tensor = logits.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1)
        return shares

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).view(*x.shape[:2], self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        return q, k, v


class Mlp(nn.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> the same."""
        result: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return result


class Block(nn.Module):
    """x + attention(norm x) + mlp(norm x)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.norm, self.attn, self.mlp = nn.LayerNorm(config.width, EPS), Attention(config), Mlp(config)

    def forward(
        self, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `Attention`."""
        normed = self.norm(x)
        attended, held = self.attn(normed, turns, mask, before)
        return x + attended + self.mlp(normed), held


class Phi(nn.Module):
    """Embeddings in, states after the last norm out."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, EPS)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, x: Tensor, valid: Tensor | None = None, prefix: Prefix | None = None) -> Tensor:
        """x (B, L, C), behind the positions of ``prefix`` -> states (B, L, C) after the last norm.

        ``valid`` (B, P + L) bool, False on padding, which follows the text; None where there is none. Positions count padding, too.
        """
        turns, mask = self._places(x, valid, prefix)
        for index, block in enumerate(self.blocks):
            x, _ = block(x, turns, mask, None if prefix is None else prefix.layers[index])
        result: Tensor = self.norm(x)
        return result

    def prefix(self, x: Tensor) -> Prefix:
        """What the positions x (B, P, C) leave for those behind them."""
        turns, mask = self._places(x, None, None)
        layers = []
        for block in self.blocks:
            x, held = block(x, turns, mask, None)
            layers.append(held)
        return Prefix(tuple(layers), self.norm(x))

    def trace(self, x: Tensor, valid: Tensor) -> tuple[list[Tensor], Tensor]:
        """The input of every block and, last, the states after the norm; and the first block's attention weights (B, heads, L, L)."""
        turns, _ = self._places(x, valid, None)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        mask = causal & valid[:, None, None]
        seen: list[Tensor] = []
        weights = x.new_empty(0)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if index == 0:
                weights = block.attn.weights(block.norm(x), turns, mask)
            seen.append(x)
            x, _ = block(x, turns, mask, None)
        return [*seen, self.norm(x)], weights

    def _places(self, x: Tensor, valid: Tensor | None, prefix: Prefix | None) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        earlier, length = 0 if prefix is None else len(prefix), x.shape[1]
        turns = rotation(earlier, length, self.config, x)
        if valid is None and not earlier:
            return turns, None
        mask = torch.ones(length, earlier + length, dtype=torch.bool, device=x.device).tril(earlier)[None, None]
        return turns, mask if valid is None else mask & valid[:, None, None]


def rotation(start: int, length: int, config: LanguageConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, rotated) of positions from ``start`` on."""
    half = torch.arange(0, config.rotated, 2, device=like.device, dtype=torch.float32) / config.rotated
    angles = torch.arange(start, start + length, device=like.device, dtype=torch.float32)[:, None] * config.rotary_base**-half
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """The first dimensions of every head (B, heads, L, D) turned by position; pairs are (i, i + rotated / 2)."""
    cosine, sine = turns
    turned, rest = torch.split(x, [cosine.shape[-1], x.shape[-1] - cosine.shape[-1]], -1)
    first, second = turned.chunk(2, -1)
    turned = turned * cosine + torch.cat([-second, first], -1) * sine
    return torch.cat([turned, rest], -1)

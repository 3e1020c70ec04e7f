"""GroupViT's own parts: tokens that gather into segments (paper, section 3.1.1 and equations 3 to 7).

x (B, S, C) image or segment tokens, g (B, N, C) group tokens
g --mixed along the token axis--> q (B, G, C) --looks at x--> q
every token of x goes to one of the G groups: A (B, 1, G, S) --> segments (B, G, C')
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import Attention, Mlp

ASSIGN_EPS = 1.0  # added to a group's weight before its tokens are averaged (GroupViT code)


class GeluLayers(Mlp):
    """width -> hidden -> out through exact GELU."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__(width, hidden)
        self.down = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> (..., out)."""
        result: Tensor = self.down(F.gelu(self.up(x)))
        return result


class TokenMlp(GeluLayers):
    """The same along the token axis: (B, width, C) -> (B, out, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, width, C) -> (B, out, C)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    """The pre-norm block of vision transformers; ``drop_path`` is the share of samples that skip a branch in training."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = True, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        if not qkv_bias:
            self.attn.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GeluLayers(width, int(width * mlp_ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = x + self._kept(self.attn(self.norm1(x)))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return branch
        keep = 1 - self.drop_path
        return branch * (branch.new_empty(len(branch), 1, 1).bernoulli_(keep) / keep)


class CrossAttention(nn.Module):
    """Queries look at other tokens; separate projections, all with bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        """q (B, G, C), x (B, S, C) -> (B, G, C)."""
        parts = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (self.q(q), self.k(x), self.v(x)))
        result: Tensor = self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        return result


class CrossBlock(nn.Module):
    """q + attention, + MLP, norm: no norm before the attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GeluLayers(width, 4 * width, width)
        self.norm_post = nn.LayerNorm(width)

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        """q (B, G, C), x (B, S, C) -> (B, G, C)."""
        q = q + self.attn(q, x)
        result: Tensor = self.norm_post(q + self.mlp(self.norm2(q)))
        return result


class Assigned(NamedTuple):
    """``used`` (B, 1, G, S): the assignment that formed the segments, before its division; ``soft``: shares without noise."""

    used: Tensor
    soft: Tensor


class Assign(nn.Module):
    """Every token to the groups (equations 4 to 6): one head, the softmax runs over the groups.

    ``hard``: to one group, straight through; ``gumbel``: with noise in training, at temperature ``tau``. ``sum_assign``: a segment is the
    sum of its tokens instead of their average over (weight + ``eps``).
    """

    def __init__(
        self, width: int, *, hard: bool, gumbel: bool, tau: float = 1.0, sum_assign: bool = False, eps: float = ASSIGN_EPS
    ) -> None:
        super().__init__()
        self.hard, self.gumbel, self.tau, self.sum_assign, self.eps = hard, gumbel, tau, sum_assign, eps
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, q: Tensor, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Assigned]:
        """q (B, G, C), x (B, S, C) -> (B, G, C) and the assignment; ``noise`` (B, 1, G, S) in place of what training draws."""
        raw = ((self.q(q) * q.shape[-1] ** -0.5) @ self.k(x).transpose(1, 2))[:, None].float()
        soft = raw.softmax(-2)
        if self.training and self.gumbel:
            used = gumbel_softmax(raw, gumbel_noise(raw) if noise is None else noise, self.tau, hard=self.hard)
        else:
            used = straight_through(soft) if self.hard else soft
        weights = used if self.sum_assign else used / (used.sum(-1, keepdim=True) + self.eps)
        result: Tensor = self.out(weights[:, 0].to(x.dtype) @ self.v(x))
        return result, Assigned(used, soft)


def straight_through(soft: Tensor, dim: int = -2) -> Tensor:
    """1 for the first of the largest along ``dim`` and 0 elsewhere, with the gradient of ``soft`` (equation 5)."""
    winner = torch.zeros_like(soft).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0)
    return winner - soft.detach() + soft if soft.requires_grad else winner


def gumbel_softmax(raw: Tensor, noise: Tensor, tau: float = 1.0, *, hard: bool, dim: int = -2) -> Tensor:
    """Softmax of disturbed logits (equation 4), hard by `straight_through` or soft."""
    soft = ((raw + noise) / tau).softmax(dim)
    return straight_through(soft, dim) if hard else soft


def gumbel_noise(like: Tensor) -> Tensor:
    """Gumbel(0, 1) noise of this shape."""
    return -torch.empty_like(like).exponential_().log()


class GroupingBlock(nn.Module):
    """Image or segment tokens -> fewer, larger segments (figure 2, right)."""

    def __init__(self, width: int, out: int, heads: int, tokens: int, groups: int, assign: Assign) -> None:
        super().__init__()
        self.norm_tokens = nn.LayerNorm(width)
        self.mlp_tokens = TokenMlp(tokens, width // 2, groups)
        self.norm_post_tokens = nn.LayerNorm(width)
        self.norm_x = nn.LayerNorm(width)
        self.pre = CrossBlock(width, heads)
        self.assign = assign
        self.norm_new_x = nn.LayerNorm(width)
        self.mlp_channels = GeluLayers(width, 4 * width, out)
        self.reduction = nn.Identity() if out == width else nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out, bias=False))

    def forward(self, x: Tensor, g: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Assigned]:
        """x (B, S, C), g (B, N, C) -> segments (B, G, C') and who went where."""
        x = self.norm_x(x)
        q = self.pre(self.norm_post_tokens(self.mlp_tokens(self.norm_tokens(g))), x)
        y, assigned = self.assign(q, x, noise)
        y = y + q
        return self.reduction(y) + self.mlp_channels(self.norm_new_x(y)), assigned


def group_projector(width_before: int, width: int, tokens_before: int, tokens: int) -> nn.Sequential:
    """What brings the group tokens of one stage into the next: (B, tokens_before, C_before) -> (B, tokens, C); indices as published."""
    mixer = nn.Sequential(nn.LayerNorm(width_before), TokenMlp(tokens_before, width_before // 2, tokens))
    if width == width_before:
        return mixer
    return nn.Sequential(mixer, nn.LayerNorm(width_before), nn.Linear(width_before, width, bias=False))

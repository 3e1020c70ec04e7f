"""Transformer blocks: CLIP's pre-norm block with quick-GELU (timm's has GELU) and torch's classic post-norm block with ReLU.

Sequences are (B, T, C). Attention is fused unless somebody asks for its weights or scales its logits by a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNFUSED_BYTES = 12 * 2**20  # of attention weights held at once where fusing them is slower: what stays in a processor's cache
QUICK_GELU = 1.702  # x * sigmoid(1.702 x) approximates GELU (CLIP code, model.py)


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Attention logits times a mask before the softmax (CLIPSeg code): a masked place gets the logit 0, not minus infinity.

    ``mask`` (B, h, w) at any resolution. ``kind`` "cls_token": acts where the class token looks at patches; "all": where patches look at
    patches. ``blocks``, 0-based, in which it acts; None: in all.
    """

    mask: Tensor
    kind: Literal["cls_token", "all"]
    blocks: tuple[int, ...] | None = None

    def factors(self, grid: tuple[int, int], heads: int) -> Tensor:
        """What to multiply logits with: (B * heads, T, T), T = 1 + h * w of the grid, to which the mask is resized (nearest).

        Logits lie as b0h0, b0h1, ...; the published code lays the masks out as b0, b1, ..., b0, b1, ... So with more than one image, heads
        use the masks of other images. Kept, for the published figures: encode images one by one where each must have its own mask.
        """
        mask = F.interpolate(self.mask[:, None].float(), size=grid, mode="nearest").flatten(1).repeat(heads, 1)
        factors = mask.new_ones(len(mask), mask.shape[1] + 1, mask.shape[1] + 1)
        rows = slice(0, 1) if self.kind == "cls_token" else slice(1, None)
        factors[:, rows, 1:] = mask[:, None]
        return factors


class Attention(nn.Module):
    """Multi-head self-attention with fused projections: rows of ``qkv`` are queries, keys, values.

    It starts as torch's `MultiheadAttention` does.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, *, causal: bool = False, dropout: float = 0.0, seen: Tensor | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C); ``dropout`` is the share of attention weights that are left out, ``seen`` bool (T, T) what each token
        looks at.
        """
        q, k, v = self._split(x)
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and not causal and not dropout and seen is None:
            return self._join(_apart(q, k, v))
        return self._join(F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, dropout_p=dropout))

    def with_weights(self, x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same without fusion, the logits times ``factors`` (B * heads, T, T); also the weights, (B * heads, T, T), b0h0, b0h1, ..."""
        q, k, v = self._split(x)
        logits = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).float()
        if factors is not None:
            logits = logits * factors.view(logits.shape)
        weights = logits.softmax(-1)
        return self._join(weights.to(v.dtype) @ v), weights.flatten(0, 1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, T, C / heads)
        return q, k, v

    def _join(self, values: Tensor) -> Tensor:
        joined: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return joined


def _apart(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in three steps, a few sequences at a time: for bfloat16 on CPUs torch's fused kernel takes up to 1.6 times as long."""
    q, k = q * q.shape[-1] ** -0.5, k.transpose(-1, -2)
    one = q.shape[1] * q.shape[2] ** 2 * q.element_size()  # the weights of one sequence
    at_once = max(1, UNFUSED_BYTES // one)
    result = torch.empty_like(v)
    for part in (slice(start, start + at_once) for start in range(0, len(q), at_once)):
        result[part] = (q[part] @ k[part]).softmax(-1) @ v[part]
    return result


class Mlp(nn.Module):
    """Two linear layers; what lies between them is the block's affair."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)


class QuickGeluMlp(Mlp):
    """width -> 4 width -> width through x * sigmoid(1.702 x)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        # 1.702 x * sigmoid(1.702 x) = silu(1.702 x): both factors ride along in the products, so the activation is one pass over memory
        hidden = torch.addmm(self.up.bias, x.flatten(0, -2), self.up.weight.T, beta=QUICK_GELU, alpha=QUICK_GELU)
        hidden = F.silu(hidden, inplace=True)
        return torch.addmm(self.down.bias, hidden, self.down.weight.T, alpha=1 / QUICK_GELU).view(x.shape)


class GeluMlp(Mlp):
    """width -> 4 width -> width through GELU."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width) -> the same."""
        result: Tensor = self.down(F.gelu(self.up(x)))
        return result


class ReluMlp(Mlp):
    """width -> hidden -> width through ReLU."""

    def forward(self, x: Tensor, *, dropout: float = 0.0) -> Tensor:
        """x (..., width) -> the same; ``dropout`` is the share of hidden values that are left out."""
        result: Tensor = self.down(_drop(F.relu(self.up(x), inplace=True), dropout))
        return result


class StreamNorm(nn.LayerNorm):
    """Layer norm of a residual stream that may be kept in float32: it counts in the stream's dtype and answers in that of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps).to(self.weight.dtype)


class PreNormBlock(nn.Module):
    """The residual block of CLIP, and with plain GELU that of timm's transformers: x + attn(norm1 x), then x + mlp(norm2 x).

    A stream in float32 stays in float32, whatever the dtype of the weights: in bfloat16 every sum would be rounded to 8 bits.
    """

    def __init__(self, width: int, heads: int, mlp: Callable[[int], Mlp] = QuickGeluMlp, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = StreamNorm(width, eps)
        self.attn = Attention(width, heads)
        self.norm2 = StreamNorm(width, eps)
        self.mlp = mlp(width)

    def forward(self, x: Tensor, *, causal: bool = False, seen: Tensor | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C); ``seen`` as in `Attention`."""
        x = x + self.attn(self.norm1(x), causal=causal, seen=seen)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result

    def with_weights(self, x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same, with attention weights (B * heads, T, T) and attention logits times ``factors``."""
        attended, weights = self.attn.with_weights(self.norm1(x), factors)
        x = x + attended
        return x + self.mlp(self.norm2(x)), weights


class PostNormBlock(nn.Module):
    """torch's `TransformerEncoderLayer` with its defaults: norm1(x + attn x), then norm2(x + mlp x).

    In training mode ``dropout`` acts where torch's does: on attention weights, on hidden values, and on both branches' ends.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.attn = Attention(width, heads)
        self.mlp = ReluMlp(width, hidden)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        share = self.dropout if self.training else 0.0
        x = self.norm1(x + _drop(self.attn(x, dropout=share), share))
        result: Tensor = self.norm2(x + _drop(self.mlp(x, dropout=share), share))
        return result


def _drop(x: Tensor, share: float) -> Tensor:
    return F.dropout(x, share) if share else x

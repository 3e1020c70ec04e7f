"""CAT-Seg's attention: guided windows over the pixels of one class, and over the classes of one pixel (paper, section 3.2).

The guidance of queries and keys is the same for every class (of the image) or every pixel (of the text). The published layers join it to
each token before the projection; here the projection is cut in two, and the guidance's part is computed once.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import GeluMlp, ReluMlp

CLASS_TOKENS = 8192  # pixels x classes that class aggregation holds at once
MASKED = -100.0  # attention logit between regions that only the shift has brought together


class Projections(nn.Module):
    """Queries and keys of tokens joined with guidance, values of the tokens alone; ``out`` where the layer has an output projection."""

    def __init__(self, width: int, guidance: int, *, out: bool) -> None:
        super().__init__()
        self.width = width
        self.q = nn.Linear(width + guidance, width)
        self.k = nn.Linear(width + guidance, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width) if out else None

    def forward(self, x: Tensor) -> Tensor:
        """The tokens' part: x (..., C) -> queries, keys and values side by side (..., 3 C), biases included."""
        weight = torch.cat([self.q.weight[:, : self.width], self.k.weight[:, : self.width], self.v.weight])
        return F.linear(x, weight, torch.cat([self.q.bias, self.k.bias, self.v.bias]))

    def guide(self, guidance: Tensor) -> Tensor:
        """The guidance's part: (..., G) -> queries and keys side by side (..., 2 C)."""
        return F.linear(guidance, torch.cat([self.q.weight[:, self.width :], self.k.weight[:, self.width :]]))


class SpatialBlock(nn.Module):
    """A Swin block without relative positions, whose queries and keys are guided by the image's own embedding."""

    def __init__(self, width: int, guidance: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = Projections(width, guidance, out=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GeluMlp(width)

    def forward(self, x: Tensor, guidance: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """x (N, h*w, C), one row of tokens per class; guidance (h*w, G), already normalised, of their one image -> (N, h*w, C)."""
        side, shift = fitted(grid, self.window, self.shift)
        order, back = (index.to(x.device) for index in window_order(grid, side, shift))
        x = x + self._attend(self.norm1(x)[:, order], None if guidance is None else guidance[order], side**2, grid, shift)[:, back]
        result: Tensor = x + self.mlp(self.norm2(x))
        return result

    def _attend(self, x: Tensor, guidance: Tensor | None, length: int, grid: tuple[int, int], shift: int) -> Tensor:
        """Tokens in the order of the windows, ``length`` in each."""
        count, tokens, width = x.shape
        qkv = self.attn(x)
        if guidance is not None:
            qkv = _add_to_front(qkv, self.attn.guide(guidance))
        q, k, v = qkv.view(-1, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mask = None
        if shift:
            regions = shift_mask(grid, round(length**0.5), shift).to(x)
            mask = regions[None, :, None].expand(count, -1, -1, -1, -1).flatten(0, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        assert self.attn.out is not None
        result: Tensor = self.attn.out(mixed.transpose(1, 2).reshape(count, tokens, width))
        return result


class SpatialPair(nn.Module):
    """Two blocks, the second shifted by half a window, guided by the same embedding under a norm of this pair's own."""

    def __init__(self, width: int, guidance: int, heads: int, window: int) -> None:
        super().__init__()
        self.norm_guidance = nn.LayerNorm(guidance) if guidance else None
        self.blocks = nn.ModuleList(SpatialBlock(width, guidance, heads, window, shift) for shift in (0, window // 2))

    def forward(self, x: Tensor, guidance: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """As `SpatialBlock.forward`; guidance not normalised."""
        normed = None if self.norm_guidance is None or guidance is None else self.norm_guidance(guidance)
        for block in self.blocks:
            x = block(x, normed, grid)
        return x


class ClassLayer(nn.Module):
    """Attention over the classes at every pixel: no positions, so the order of the classes does not matter.

    Fewer than ``pad`` classes are filled up with copies of a learned one that are attended to like the others. The copies are equal, at
    every pixel, so they are counted instead of made.
    """

    def __init__(self, width: int, guidance: int, heads: int, pad: int, pooling: int, kind: Literal["linear", "full"]) -> None:
        super().__init__()
        self.heads, self.pad, self.pooling, self.kind = heads, pad, pooling, kind
        self.padding = nn.Parameter(torch.zeros(1, 1, width)) if pad else None
        self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance)) if pad and guidance else None
        self.norm1 = nn.LayerNorm(width)
        self.attn = Projections(width, guidance, out=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = ReluMlp(width, 4 * width)

    def forward(self, x: Tensor, guidance: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """x (T, h*w, C), guidance (T, G) of the classes' texts -> (T, h*w, C).

        Without gradients x is overwritten. With pooling 1 the result is 2 x + updates, as published: the pooled stream is added to x.
        """
        guided = None if guidance is None or not self.attn.q.in_features > self.attn.width else self.attn.guide(guidance)
        if self.pooling > 1:
            return x + _unpooled(self._mixed(_pooled(x, grid, self.pooling), guided), grid, self.pooling)
        if torch.is_grad_enabled():
            return x + self._mixed(x, guided)
        step = max(1, CLASS_TOKENS // len(x))
        for start in range(0, x.shape[1], step):
            part = x[:, start : start + step]
            part += self._mixed(part, guided)
        return x

    def _mixed(self, x: Tensor, guided: Tensor | None) -> Tensor:
        """x (T, S, C) -> x + attention, + MLP: the layer without its last residual."""
        p = x.transpose(0, 1).contiguous()  # (S, T, C)
        qkv = self.attn(self.norm1(p))
        if guided is not None:
            qkv = _add_to_front(qkv, guided)
        q, k, v = qkv.chunk(3, -1)
        key, value = self._padded()
        missing = max(0, self.pad - p.shape[1])
        attend = _linear if self.kind == "linear" else _full
        p = p + attend(q, k, v, key, value, missing, self.heads)
        result: Tensor = p + self.mlp(self.norm2(p))
        return result.transpose(0, 1)

    def _padded(self) -> tuple[Tensor, Tensor]:
        """Key and value (C,) of a class that fills up."""
        if self.padding is None:
            nothing = self.attn.v.weight.new_zeros(self.attn.width)
            return nothing, nothing
        padding = self.padding if torch.is_grad_enabled() else self.padding.detach()  # torch's counter of operations trips over it else
        _, key, value = self.attn(self.norm1(padding[0, 0])).chunk(3)
        if self.padding_guidance is not None:
            key = key + self.attn.guide(self.padding_guidance[0, 0]).chunk(2)[1]
        return key, value


def _linear(q: Tensor, k: Tensor, v: Tensor, key: Tensor, value: Tensor, missing: int, heads: int) -> Tensor:
    """Linear attention (Katharopoulos et al. 2020) with elu + 1, over (S, T, C) and ``missing`` further copies of one key and value."""
    q, k, key = (F.elu(part) + 1 for part in (q, k, key))
    width = q.shape[-1]
    own = _same_head(width, heads, q.device, q.dtype)
    # all heads in one product: pairs of channels of different heads are zeroed, which is cheaper than taking heads apart
    context = (k.transpose(1, 2) @ v + missing * key[:, None] * value) * own  # (S, C, C)
    total = (k.sum(1) + missing * key)[:, None]  # (S, 1, C)
    norm = torch.unflatten((q * total), -1, (heads, -1)).sum(-1, keepdim=True) + 1e-6
    return (torch.unflatten((q @ context), -1, (heads, -1)) / norm).flatten(-2)


def _full(q: Tensor, k: Tensor, v: Tensor, key: Tensor, value: Tensor, missing: int, heads: int) -> Tensor:
    """Softmax attention with the same meaning: n equal keys are one whose logit is larger by log n."""
    bias = None
    if missing:
        k, v = (torch.cat([part, extra.expand(len(q), 1, -1)], dim=1) for part, extra in ((k, key), (v, value)))
        bias = q.new_zeros(1, k.shape[1])
        bias[:, -1] = torch.tensor(float(missing)).log()
    q, k, v = (torch.unflatten(part, -1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(-2)


def _add_to_front(x: Tensor, part: Tensor) -> Tensor:
    """``part`` added to the first channels of x."""
    if torch.is_grad_enabled():
        return x + F.pad(part, (0, x.shape[-1] - part.shape[-1]))
    x[..., : part.shape[-1]] += part
    return x


@cache
@torch.inference_mode(False)  # what is kept may be trained with later
def _same_head(width: int, heads: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(C, C): 1 where two channels belong to one head, else 0."""
    head = torch.arange(width, device=device) // (width // heads)
    return (head[:, None] == head).to(dtype)


def _pooled(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """(T, h*w, C) averaged over squares; what is left over at the right and bottom is dropped."""
    return F.avg_pool2d(torch.unflatten(x.transpose(1, 2), -1, grid), side).flatten(2).transpose(1, 2)


def _unpooled(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Back to (T, h*w, C), bilinear with align_corners True (published; every other resizing has False)."""
    small = torch.unflatten(x.transpose(1, 2), -1, (grid[0] // side, grid[1] // side))
    return F.interpolate(small, grid, mode="bilinear", align_corners=True).flatten(2).transpose(1, 2)


# --- windows ----------------------------------------------------------------------------------------------------------------------------


def fitted(grid: tuple[int, int], window: int, shift: int) -> tuple[int, int]:
    """Window and shift on a grid: a window that covers it shrinks to it and is not shifted."""
    return (window, shift) if window < min(grid) else (min(grid), 0)


@cache
@torch.inference_mode(False)  # what is kept may be trained with later
def window_order(grid: tuple[int, int], window: int, shift: int) -> tuple[Tensor, Tensor]:
    """(h*w,) row-major tokens in the order of the windows of the grid rolled by -shift, and the way back."""
    rows = torch.arange(grid[0] * grid[1]).view(grid).roll((-shift, -shift), (0, 1))
    order = rows.unfold(0, window, window).unfold(1, window, window).flatten()
    return order, order.argsort()


@cache
@torch.inference_mode(False)  # what is kept may be trained with later
def shift_mask(grid: tuple[int, int], window: int, shift: int) -> Tensor:
    """(windows, L, L): -100 between tokens that lie in different parts of the unrolled grid, else 0 (Swin code)."""
    parts = [torch.arange(length).sub(length - window).ge(0).long() + torch.arange(length).ge(length - shift) for length in grid]
    regions = (parts[0][:, None] * 3 + parts[1]).unfold(0, window, window).unfold(1, window, window).reshape(-1, window * window)
    return torch.where(regions[:, :, None] == regions[:, None], 0.0, MASKED)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The published kernel on q (N, L, heads, d), k and v (N, S, heads, d) -> (N, L, heads, d)."""
    return _kernel(_linear, q, k, v)


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, arranged like `linear_attention`."""
    return _kernel(_full, q, k, v)


def _kernel(kind: object, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    attend = _linear if kind is _linear else _full
    nothing = q.new_zeros(q.shape[2] * q.shape[3])
    mixed = attend(q.flatten(2), k.flatten(2), v.flatten(2), nothing, nothing, 0, q.shape[2])
    return torch.unflatten(mixed, -1, (q.shape[2], -1))

"""CLIPSeg's decoder (paper, section 3.2 and figure 2): a small transformer over a few of CLIP's activations, conditioned once by FiLM.

What does not depend on the prompt happens once per image: the reductions of all taps, and every block in front of FiLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import PostNormBlock
from .config import ClipSegConfig

HIDDEN_BYTES = {"cpu": 8 * 2**20}  # of the widest temporary, so that it stays in the cache; other devices want large products
HIDDEN_BYTES_ELSEWHERE = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ClipSegImage:
    """Encoded images: ``reduced`` (B, 1 + h * w, reduce_dim) per tap, in the decoder's order; ``grid`` (h, w) patches; ``size`` (H, W)."""

    reduced: tuple[Tensor, ...]
    grid: tuple[int, int]
    size: tuple[int, int]


class Decoder(nn.Module):
    """Reduced activations and conditions -> one logit map per condition."""

    def __init__(self, config: ClipSegConfig) -> None:
        super().__init__()
        self.config = config
        width, condition = config.reduce_dim, config.condition_dim
        if config.reduce_cond is not None:
            self.reduce_cond = nn.Linear(config.image.embed, condition).requires_grad_(False)
        if config.fix_shift:
            self.shift_vector = nn.Parameter(torch.zeros(config.image.embed), requires_grad=False)
        self.film_mul = nn.Linear(condition, width)
        self.film_add = nn.Linear(condition, width)
        self.reduces = nn.ModuleList(nn.Linear(config.image.width, width) for _ in config.taps)
        self.blocks = nn.ModuleList(_block(config) for _ in config.taps)
        self.extra_blocks = nn.ModuleList(_block(config) for _ in range(config.extra_blocks))
        self.head = RefinedHead(width, config.kernel) if config.refined else PlainHead(width, config.kernel)

    def reduce(self, activations: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """Activations of the tapped blocks (B, T, C) -> (B, T, reduce_dim) each, deepest first unless ``reverse_taps``."""
        order = sorted(activations, reverse=not self.config.reverse_taps)
        return tuple(reduce(activations[tap]) for reduce, tap in zip(self.reduces, order, strict=True))

    def condition(self, raw: Tensor) -> Tensor:
        """Conditions (N, E) as the towers give them -> what FiLM reads."""
        return self.reduce_cond(raw) if self.config.reduce_cond is not None else raw

    def forward(self, image: ClipSegImage, condition: Tensor) -> Tensor:
        """Raw conditions (N, E), or each image's own (B, N, E) -> logits (B, N, h, w), float32."""
        c = self.condition(condition if condition.dim() == 3 else condition[None])  # (1 or B, N, .)
        mul, add = self.film_mul(c)[:, :, None], self.film_add(c)[:, :, None]  # (1 or B, N, 1, D)
        shared = self._before_film(image.reduced)
        B, T, _ = shared.shape
        logits = shared.new_empty(B, c.shape[1], *self.head.size(image.grid), dtype=torch.float32)
        step = self._prompts_at_once(B * T, shared)
        for start in range(0, c.shape[1], step):
            part = slice(start, start + step)
            conditioned = shared[:, None] * mul[:, part] + add[:, part]  # (B, n, T, D)
            x = self._after_film(conditioned.flatten(0, 1), image.reduced, B)
            self.head(x[:, 1:], image.grid, logits[:, part])
        return self._to_input(logits, image.size)

    def _before_film(self, reduced: Sequence[Tensor]) -> Tensor:
        x = reduced[0]
        for index in range(self.config.cond_layer):
            x = self.blocks[index](x) + reduced[index + 1]
        return x

    def _after_film(self, x: Tensor, reduced: Sequence[Tensor], images: int) -> Tensor:
        """x (B * n, T, D), just conditioned -> the last block's output."""
        first = self.config.cond_layer
        x = self.blocks[first](x)
        for index in range(first + 1, len(reduced)):
            x = (x.view(images, -1, *x.shape[1:]) + reduced[index][:, None]).flatten(0, 1)
            x = self.blocks[index](x)
        for block in self.extra_blocks:
            x = x + block(x)
        return x

    def _prompts_at_once(self, tokens: int, like: Tensor) -> int:
        room = HIDDEN_BYTES.get(like.device.type, HIDDEN_BYTES_ELSEWHERE)
        return max(1, room // (tokens * self.config.hidden * like.element_size()))

    def _to_input(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        if self.config.n_tokens is None or not logits.shape[1]:
            return logits
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def _block(config: ClipSegConfig) -> PostNormBlock:
    return PostNormBlock(config.reduce_dim, config.heads, config.hidden, config.dropout)


class Expand(nn.Module):
    """A transposed convolution whose stride is its kernel, so that every token becomes its own patch: one matrix product."""

    def __init__(self, width: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(width, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def patches(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., kernel, kernel, channels)."""
        width, channels, k, _ = self.weight.shape
        rows = self.weight.permute(2, 3, 1, 0).reshape(-1, width)
        return F.linear(x, rows, self.bias.repeat(k * k)).view(*x.shape[:-1], k, k, channels)


class PlainHead(Expand):
    """Every token becomes a patch of logits."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__(width, 1, kernel)

    def size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the logits of a grid of tokens."""
        return grid[0] * self.kernel, grid[1] * self.kernel

    def forward(self, x: Tensor, grid: tuple[int, int], out: Tensor) -> None:
        """Tokens (B * n, h * w, D) -> logits, written into ``out`` (B, n, H, W)."""
        (h, w), k = grid, self.kernel
        patches = self.patches(x).view(*out.shape[:2], h, w, k, k)
        out.view(*out.shape[:2], h, k, w, k).copy_(patches.transpose(3, 4))


class RefinedHead(nn.ModuleDict):
    """3x3 convolution, then two transposed convolutions of a quarter of the kernel, ReLU between; the indices are the published ones."""

    def __init__(self, width: int, kernel: int) -> None:
        part = kernel // 4
        conv, coarse, fine = nn.Conv2d(width, width, 3, padding=1), Expand(width, width // 2, part), Expand(width // 2, 1, part)
        super().__init__({"0": conv, "2": coarse, "4": fine})
        self.part = part

    def size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the logits of a grid of tokens."""
        return grid[0] * self.part**2, grid[1] * self.part**2

    def forward(self, x: Tensor, grid: tuple[int, int], out: Tensor) -> None:
        """Tokens (B * n, h * w, D) -> logits, written into ``out`` (B, n, H, W)."""
        (h, w), k = grid, self.part
        image = x.transpose(1, 2).reshape(len(x), -1, h, w)
        tokens = F.relu(self["0"](image)).permute(0, 2, 3, 1)  # (B * n, h, w, D)
        coarse, fine = cast(Expand, self["2"]), cast(Expand, self["4"])
        patches = fine.patches(F.relu(coarse.patches(tokens)))  # (B * n, h, w, k, k, k, k, 1): coarse y, x, then fine y, x
        target = out.view(*out.shape[:2], h, k, k, w, k, k)
        target.copy_(patches.view(*out.shape[:2], h, w, k, k, k, k).permute(0, 1, 2, 4, 6, 3, 5, 7))

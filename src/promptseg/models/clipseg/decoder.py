"""CLIPSeg's decoder (paper, section 3.2 and figure 2): a small transformer over a few of CLIP's activations, conditioned once by FiLM.

What does not depend on the prompt happens once per image: the reductions of all taps, and every block in front of FiLM.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contracts import Size
from ...nn.attention import PostNormBlock
from .config import ClipDeconvConfig, ClipSegConfig, VitConfig

HIDDEN_BYTES = {"cpu": 8 * 2**20}  # of the widest temporary, so that it stays in the cache; other devices want large products
HIDDEN_BYTES_ELSEWHERE = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ClipSegImage:
    """Encoded images: ``reduced`` (B, 1 + h * w, reduce_dim) per tap, in the decoder's order; ``grid`` (h, w) patches; ``size`` (H, W)."""

    reduced: tuple[Tensor, ...]
    grid: tuple[int, int]
    size: Size


class FilmDecoder(nn.Module, ABC):
    """Reduced activations and conditions -> one logit map per condition; how, is said by the four methods below `forward`.

    Args:
        widest: values per token of the widest temporary, which decides how many prompts lie in memory together.
    """

    head: PlainHead | RefinedHead

    def __init__(self, config: ClipSegConfig | ClipDeconvConfig, widest: int) -> None:
        super().__init__()
        self.widest = widest
        self.reduce_cond: nn.Linear | None = None
        self.shift_vector: nn.Parameter | None = None  # added to texts
        condition = config.image.embed
        if config.reduce_cond is not None:
            self.reduce_cond = nn.Linear(condition, config.reduce_cond).requires_grad_(False)
            condition = config.reduce_cond
        self.film_mul = nn.Linear(condition, config.reduce_dim)
        self.film_add = nn.Linear(condition, config.reduce_dim)

    def condition(self, raw: Tensor) -> Tensor:
        """Conditions (N, E) as the towers give them -> what FiLM reads."""
        return raw if self.reduce_cond is None else self.reduce_cond(raw)

    def forward(self, image: ClipSegImage, condition: Tensor) -> Tensor:
        """Raw conditions (N, E), or each image's own (B, N, E) -> logits (B, N, h, w), float32."""
        c = self.condition(condition if condition.dim() == 3 else condition[None])  # (1 or B, N, .)
        mul, add = self.film_mul(c)[:, :, None], self.film_add(c)[:, :, None]  # (1 or B, N, 1, D)
        shared = self.before_film(image.reduced)
        B, T, _ = shared.shape
        logits = shared.new_empty(B, c.shape[1], *self.head.size(image.grid), dtype=torch.float32)
        step = self._prompts_at_once(B * T, shared)
        for start in range(0, c.shape[1], step):
            part = slice(start, start + step)
            conditioned = shared[:, None] * mul[:, part] + add[:, part]  # (B, n, T, D)
            x = self.after_film(conditioned.flatten(0, 1), image.reduced, B)
            self.head(x[:, 1:], image.grid, logits[:, part])
        return self.to_input(logits, image.size)

    @abstractmethod
    def reduce(self, activations: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """Activations of the tapped blocks (B, T, C) -> (B, T, reduce_dim) each, in the decoder's order."""

    def before_film(self, reduced: Sequence[Tensor]) -> Tensor:
        """What FiLM acts on, the same for every prompt (B, T, reduce_dim)."""
        return reduced[0]

    @abstractmethod
    def after_film(self, x: Tensor, reduced: Sequence[Tensor], images: int) -> Tensor:
        """Conditioned tokens (B * n, T, reduce_dim) -> what the head reads, of the same shape."""

    def to_input(self, logits: Tensor, size: Size) -> Tensor:
        """Logits (B, N, h, w) at the head's resolution -> as they are given back for an input of ``size``."""
        return logits

    def _prompts_at_once(self, tokens: int, like: Tensor) -> int:
        room = HIDDEN_BYTES.get(like.device.type, HIDDEN_BYTES_ELSEWHERE)
        return max(1, room // (tokens * self.widest * like.element_size()))


class Decoder(FilmDecoder):
    """CLIPSeg's: a transformer block per tap, with FiLM in front of one of them."""

    def __init__(self, config: ClipSegConfig) -> None:
        super().__init__(config, widest=config.hidden)
        self.config = config
        width = config.reduce_dim
        if config.fix_shift:
            self.shift_vector = nn.Parameter(torch.zeros(config.image.embed), requires_grad=False)
        self.reduces = nn.ModuleList(nn.Linear(config.image.width, width) for _ in config.taps)
        self.blocks = nn.ModuleList(_block(config) for _ in config.taps)
        self.extra_blocks = nn.ModuleList(_block(config) for _ in range(config.extra_blocks))
        self.head = RefinedHead(width, config.kernel) if config.refined else PlainHead(width, config.kernel)

    def reduce(self, activations: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """Deepest tap first unless ``reverse_taps``."""
        order = sorted(activations, reverse=not self.config.reverse_taps)
        return tuple(reduce(activations[tap]) for reduce, tap in zip(self.reduces, order, strict=True))

    def before_film(self, reduced: Sequence[Tensor]) -> Tensor:
        """The blocks in front of ``cond_layer``."""
        x = reduced[0]
        for index in range(self.config.cond_layer):
            x = self.blocks[index](x) + reduced[index + 1]
        return x

    def after_film(self, x: Tensor, reduced: Sequence[Tensor], images: int) -> Tensor:
        """The other blocks, each after the first with its tap added."""
        first = self.config.cond_layer
        x = self.blocks[first](x)
        for index in range(first + 1, len(reduced)):
            x = (x.view(images, -1, *x.shape[1:]) + reduced[index][:, None]).flatten(0, 1)
            x = self.blocks[index](x)
        for block in self.extra_blocks:
            x = x + block(x)
        return x

    def to_input(self, logits: Tensor, size: Size) -> Tensor:
        """Resized to the input by ``n_tokens``, and in ViTSeg, whose tower has seen the image at a size of its own."""
        if isinstance(self.config.image, VitConfig):
            how: dict[str, Any] = {"mode": "nearest"}
        elif self.config.n_tokens is not None:
            how = {"mode": "bilinear", "align_corners": True}
        else:
            return logits
        return F.interpolate(logits, size=size, **how) if logits.shape[1] else logits.new_empty(len(logits), 0, *size)


def _block(config: ClipSegConfig) -> PostNormBlock:
    return PostNormBlock(config.reduce_dim, config.heads, config.hidden, config.dropout)


class Expand(nn.Module):
    """A transposed convolution whose stride is its kernel, so that every token becomes its own patch: one matrix product.

    It starts as torch's `ConvTranspose2d` does.
    """

    def __init__(self, width: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(width, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(channels))
        bound = (channels * kernel**2) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

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

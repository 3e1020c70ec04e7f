"""The image encoder: a vision transformer whose tokens are merged, stage by stage, into a few segments (paper, section 3.1).

pixels (B, 3, H, W) -> patch tokens (B, h*w, C) --stage 0--> segments (B, 64, C) --stage 1--> (B, 8, C) --stage 2, norm--> (B, 8, C)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import ImageError
from ...nn.positions import fourier_table, resize_grid
from .config import GroupVitImageConfig
from .grouping import Assign, Assigned, Block, GroupingBlock, group_projector


@dataclass(frozen=True, slots=True)
class Segments:
    """``tokens`` (B, G, C) of the last stage, normed; ``assigned`` of every grouping; ``grid`` (h, w) in patches."""

    tokens: Tensor
    assigned: tuple[Assigned, ...]
    grid: tuple[int, int]


class Stage(nn.Module):
    """Blocks over image or segment tokens and group tokens together, then, but for the last stage, a grouping."""

    def __init__(self, config: GroupVitImageConfig, index: int, drop_path: Sequence[float]) -> None:
        super().__init__()
        width, heads, tokens = config.widths[index], config.heads[index], config.group_tokens[index]
        self.group_tokens = nn.Parameter(torch.zeros(1, tokens, width)) if tokens else None
        self.group_projector = None
        if tokens and index:
            self.group_projector = group_projector(config.widths[index - 1], width, config.group_tokens[index - 1], tokens)
        elif self.group_tokens is not None:
            nn.init.trunc_normal_(self.group_tokens, std=0.02)  # with a projector they start as what it says, so 0
        self.blocks = nn.ModuleList(Block(width, heads, config.mlp_ratio, config.qkv_bias, share) for share in drop_path)
        self.grouping = None
        if index < config.stages - 1:
            assign = Assign(width, hard=config.hard, gumbel=config.hard)
            self.grouping = GroupingBlock(width, config.widths[index + 1], heads, tokens, config.output_groups[index], assign)

    def forward(self, x: Tensor, g: Tensor | None, noise: Tensor | None) -> tuple[Tensor, Tensor | None, Assigned | None]:
        """x (B, S, C), the former stage's group tokens -> tokens, group tokens as they leave the blocks, and who went where."""
        count, own = x.shape[1], None
        if self.group_tokens is not None:
            own = self.group_tokens.expand(len(x), -1, -1)
            if self.group_projector is not None:
                own = own + self.group_projector(g)
            x = torch.cat([x, own.to(x.dtype)], 1)
        for block in self.blocks:
            x = block(x)
        x, own = x[:, :count], x[:, count:]
        if self.grouping is None:
            return x, own, None
        x, assigned = self.grouping(x, own, noise)
        return x, own, assigned


class ImageEncoder(nn.Module):
    """See the file. Photos of any size; a remainder smaller than a patch at the right and bottom is not seen."""

    def __init__(self, config: GroupVitImageConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.patch_norm = nn.LayerNorm(config.width) if config.patch_norm else nn.Identity()
        fixed = config.positions == "fourier"
        table = fourier_table((config.grid, config.grid), config.width) if fixed else torch.empty(1, config.grid**2, config.width)
        self.positions = nn.Parameter(table, requires_grad=not fixed)
        shares = torch.split(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu"), list(config.depths))
        self.stages = nn.ModuleList(Stage(config, index, share.tolist()) for index, share in enumerate(shares))
        self.norm = nn.LayerNorm(config.widths[-1])
        if not fixed:
            nn.init.trunc_normal_(self.positions, std=0.02)
        self.apply(_start)

    def forward(self, pixels: Tensor, noise: Sequence[Tensor | None] = ()) -> Segments:
        """pixels (B, 3, H, W), normalised; ``noise`` per grouping, (B, 1, G, S), in place of what training draws.

        Raises:
            ImageError: the photo is smaller than a patch.
        """
        patch = self.config.patch
        if min(pixels.shape[-2:]) < patch:
            raise ImageError(f"The image is {tuple(pixels.shape[-2:])} pixels; the model reads patches of {patch}x{patch}. Show it larger.")
        patches = self.patches(pixels)
        grid = (patches.shape[-2], patches.shape[-1])
        x = self.patch_norm(patches.flatten(2).transpose(1, 2))
        x = x + resize_grid(self.positions, grid)
        g, assigned = None, []
        for index, stage in enumerate(self.stages):
            x, g, found = stage(x, g, noise[index] if index < len(noise) else None)
            assigned += [found] if found is not None else []
        return Segments(self.norm(x), tuple(assigned), grid)


def _start(module: nn.Module) -> None:
    """As the published code starts: small truncated normals, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

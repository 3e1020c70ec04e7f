"""The vision transformer as timm and transformers have it, which ImageNet, DeiT, DINO and MoCo trained; CLIP's own is in `nn.clip`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ImageError
from .attention import GeluMlp, PreNormBlock
from .positions import resize_table

EPS = 1e-6  # of timm's layer norms


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., ICLR 2021, without a head: blocks of ``layers``, and the ``norm`` behind them.

    ``grid``: side, in patches, of the square of learned positions.
    """

    def __init__(self, *, width: int, layers: int, heads: int, patch: int, grid: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_table = nn.Parameter(torch.randn(1, 1 + grid**2, width) * 0.02)
        self.layers = nn.ModuleList(PreNormBlock(width, heads, GeluMlp, EPS) for _ in range(layers))
        self.norm = nn.LayerNorm(width, EPS)

    def tokens(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels (B, 3, H, W), normalised -> the first block's input (B, 1 + h * w, C), the class token first, and the grid (h, w).

        Positions are resized bicubically to grids that are not theirs.

        Raises:
            ImageError: the image is smaller than a patch.
        """
        patch = self.patches.stride[0]
        if min(pixels.shape[-2:]) < patch:
            raise ImageError(
                f"The image is {tuple(pixels.shape[-2:])} pixels; the model reads patches of {patch}x{patch}. "
                "Show a narrow photo stretched: Options(fit='stretch')."
            )
        seen = self.patches(pixels)
        grid = (seen.shape[-2], seen.shape[-1])
        x = torch.cat([self.class_token.expand(len(seen), -1, -1), seen.flatten(2).transpose(1, 2)], dim=1)
        return x + resize_table(self.position_table[0], grid), grid

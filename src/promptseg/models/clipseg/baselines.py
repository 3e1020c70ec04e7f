"""The two baselines of the CLIPSeg paper (section 4): what is left of CLIPSeg without its transformer, and without CLIP's image tower.

    CLIP-Deconv   ImageTower's one tap --DeconvDecoder--> logits       `ClipDeconvConfig`
    ViTSeg        VitTower's taps      --Decoder-->       logits       `ClipSegConfig` with a `VitConfig`

`network.Model` puts either together as its configuration says; prompts, layouts and everything around them are CLIPSeg's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import PromptError
from ...nn.attention import AttentionMask, GeluMlp, PreNormBlock, ReluMlp
from ...nn.clip import ImageTokens
from .config import ClipDeconvConfig, VitConfig
from .decoder import FilmDecoder, PlainHead

VIT_EPS = 1e-6  # of timm's layer norms


class DeconvDecoder(FilmDecoder):
    """FiLM on one reduced activation, two linear layers on every token, and the mask head."""

    def __init__(self, config: ClipDeconvConfig) -> None:
        super().__init__(config, widest=config.hidden)
        self.reduction = nn.Linear(config.image.width, config.reduce_dim)
        self.mlp = ReluMlp(config.reduce_dim, config.hidden)
        self.head = PlainHead(config.reduce_dim, config.image.patch)

    def reduce(self, activations: dict[int, Tensor]) -> tuple[Tensor, ...]:
        """The one tap, (B, T, reduce_dim)."""
        (activation,) = activations.values()
        return (self.reduction(activation),)

    def after_film(self, x: Tensor, reduced: Sequence[Tensor], images: int) -> Tensor:
        """Token by token."""
        result: Tensor = self.mlp(x)
        return result


class VitTower(nn.Module):
    """timm's vision transformer (Dosovitskiy et al. 2021), asked as CLIP's `ImageTower` is; images of any size are seen at its own.

    Its head is a random projection into the space of conditions that is never trained, so an image condition means what a checkpoint's
    own head makes of it.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position_table = nn.Parameter(torch.randn(1, 1 + side**2, config.width) * 0.02)
        self.layers = nn.ModuleList(PreNormBlock(config.width, config.heads, GeluMlp, VIT_EPS) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, VIT_EPS)
        self.head = nn.Linear(config.width, config.embed)

    def forward(
        self,
        pixels: Tensor,
        *,
        taps: Collection[int] = (),
        embed: bool = True,
        mask: AttentionMask | None = None,
        weights: Collection[int] = (),
        stride: int | None = None,
        square: bool = True,
    ) -> ImageTokens:
        """pixels (B, 3, H, W), normalised, stretched to the tower's size by taking nearest pixels, as published.

        Arguments as in `ImageTower.forward`; there is one ``stride`` and every grid is square.

        Raises:
            PromptError: a ``mask`` is given; attention ``weights`` are not kept.
        """
        if mask is not None or weights:
            raise PromptError("ViTSeg restricts no attention and keeps none of it. Use a technique that draws, such as outline.")
        side = self.config.size
        x = self.patches(F.interpolate(pixels, (side, side), mode="nearest")).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.position_table
        seen: dict[int, Tensor] = {}
        last = len(self.layers) - 1 if embed else max(taps, default=-1)
        for index, layer in enumerate(self.layers[: last + 1]):
            x = layer(x)
            seen |= {index: x} if index in taps else {}
        embedding = self.head(self.norm(x[:, 0])) if embed else None
        return ImageTokens(embedding, (side // self.config.patch,) * 2, seen, {})

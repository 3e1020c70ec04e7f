"""The two baselines of the CLIPSeg paper (section 4): what is left of CLIPSeg without its transformer, and without CLIP's image tower.

    CLIP-Deconv   ImageTower's one tap --DeconvDecoder--> logits       `ClipDeconvConfig`
    ViTSeg        VitTower's taps      --Decoder-->       logits       `ClipSegConfig` with a `VitConfig`

`network.Model` puts either together as its configuration says; prompts, layouts and everything around them are CLIPSeg's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import PromptError
from ...nn.attention import AttentionMask, ReluMlp
from ...nn.clip import ImageTokens
from ...nn.vit import VisionTransformer
from .config import ClipDeconvConfig, VitConfig
from .decoder import FilmDecoder, PlainHead


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


class VitTower(VisionTransformer):
    """timm's vision transformer (Dosovitskiy et al. 2021), asked as CLIP's `ImageTower` is; images of any size are seen at its own.

    Its head is a random projection into the space of conditions that is never trained, so an image condition means what a checkpoint's
    own head makes of it.
    """

    def __init__(self, config: VitConfig) -> None:
        side = config.size // config.patch
        super().__init__(width=config.width, layers=config.layers, heads=config.heads, patch=config.patch, grid=side)
        self.config = config
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
        x, grid = self.tokens(F.interpolate(pixels, (side, side), mode="nearest"))
        seen: dict[int, Tensor] = {}
        last = len(self.layers) - 1 if embed else max(taps, default=-1)
        for index, layer in enumerate(self.layers[: last + 1]):
            x = layer(x)
            seen |= {index: x} if index in taps else {}
        embedding = self.head(self.norm(x[:, 0])) if embed else None
        return ImageTokens(embedding, grid, seen, {})

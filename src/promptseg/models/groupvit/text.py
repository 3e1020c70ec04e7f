"""The text encoder: CLIP's text transformer without its projection (paper, section 3.2; published code)."""

from __future__ import annotations

from torch import Tensor, nn

from ...nn.attention import PreNormBlock
from ...nn.clip import TextTower
from ...nn.clip_config import ClipTextConfig


class TextEncoder(TextTower):
    """ids (N, L) -> the end token after the last norm (N, W)."""

    packs = True

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__(config)
        del self.projection
        width, layers = config.width, config.layers
        for block in self.blocks:  # as CLIP starts (CLIP code, initialize_parameters)
            assert isinstance(block, PreNormBlock)
            nn.init.normal_(block.attn.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.attn.out.weight, std=width**-0.5 * (2 * layers) ** -0.5)
            nn.init.normal_(block.mlp.down.weight, std=width**-0.5 * (2 * layers) ** -0.5)
            nn.init.normal_(block.mlp.up.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def project(self, x: Tensor) -> Tensor:
        """x itself: the projector comes after the encoder."""
        return x

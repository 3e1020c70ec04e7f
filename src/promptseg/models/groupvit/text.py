"""The text encoder: CLIP's text transformer without its projection (paper, section 3.2; published code)."""

from __future__ import annotations

from torch import Tensor

from ...nn.clip import TextTower
from ...nn.clip_config import ClipTextConfig


class TextEncoder(TextTower):
    """ids (N, L) -> the end token after the last norm (N, W)."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__(config)
        del self.projection
        width, layers = config.width, config.layers
        for block in self.blocks:  # as CLIP starts (CLIP code, initialize_parameters)
            block.attn.qkv.weight.data.normal_(std=width**-0.5)
            block.attn.out.weight.data.normal_(std=width**-0.5 * (2 * layers) ** -0.5)
            block.mlp.down.weight.data.normal_(std=width**-0.5 * (2 * layers) ** -0.5)
            block.mlp.up.weight.data.normal_(std=(2 * width) ** -0.5)
        self.token_embedding.weight.data.normal_(std=0.02)

    def project(self, x: Tensor) -> Tensor:
        """x itself: the projector comes after the encoder."""
        return x

"""The network that the GroupViT paper fine-tunes with masks: a plain vision transformer and a 1x1 convolution behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn, unflatten

from ...contracts import Drop, Rule
from ...nn.clip_resnet import ImageMaps
from ...nn.conversion import load_official
from ...nn.vit import VisionTransformer
from ...nn.vit_keys import hf_vit, timm_vit
from .config import PlainVitBackbone

PRETRAINED: Mapping[str, tuple[Rule, ...]] = {
    "timm": (*timm_vit(), Drop("head.{rest}", "tells the classes of ImageNet, or makes pairs for MoCo")),
    "hf": (*hf_vit(), Drop("pooler.{rest}", "reads the class token"), Drop("classifier.{rest}", "tells the classes of ImageNet")),
}


class PlainVitEncoder(VisionTransformer):
    """The transformer's last patches, normed, as one map."""

    def __init__(self, config: PlainVitBackbone) -> None:
        super().__init__(width=config.width, layers=config.layers, heads=config.heads, patch=config.patch, grid=config.grid)

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised -> a map at the patches' stride.

        Raises:
            ImageError: the image is smaller than a patch.
        """
        x, grid = self.tokens(pixels)
        for layer in self.layers:
            x = layer(x)
        return ImageMaps((unflatten(self.norm(x[:, 1:]).transpose(1, 2), -1, grid),), None, None)


class PlainHead(nn.Module):
    """The map classified cell by cell."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(inputs, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """One map (B, inputs, h, w) -> logits (B, classes, h, w)."""
        logits: Tensor = self.classify(levels[0])
        return logits


def start_from_vit(encoder: PlainVitEncoder, weights: Mapping[str, Tensor]) -> None:
    """Fill the transformer from its authors' file (DeiT, DINO, MoCo v3) or transformers' (`facebook/dino-vits16`); heads are left behind.

    Raises:
        WeightsError: another network's file: a tensor is missing, unknown or of another shape.
    """
    learned = {name: tensor for name, tensor in weights.items() if not name.startswith(("momentum_encoder.", "predictor."))}  # MoCo's
    load_official(encoder, PRETRAINED, {name.removeprefix("base_encoder.").removeprefix("vit."): one for name, one in learned.items()})

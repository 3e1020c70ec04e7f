"""Backbones that CLIP did not train.

`ImageNetEncoder` is transformers' ResNet or Swin (section 4.3, "any backbone"), `LiteEncoder` the small tower that `pocket` uses, too,
`PlainVitEncoder` the transformer that the GroupViT paper fine-tunes with masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...contracts import Drop, Rule
from ...errors import WeightsError
from ...nn.clip_resnet import ImageMaps
from ...nn.conversion import load_official
from ...nn.efficientnet import EfficientNetLite
from ...nn.efficientnet_config import HEAD
from ...nn.vit import VisionTransformer
from ...nn.vit_keys import hf_vit, timm_vit
from .config import ImageNetBackbone, LiteBackbone, PlainVitBackbone

STAGES = ["stage1", "stage2", "stage3", "stage4"]
PRETRAINED: Mapping[str, tuple[Rule, ...]] = {  # what people have of a plain transformer
    "timm": (*timm_vit(), Drop("head.{rest}", "tells the classes of ImageNet, or makes pairs for MoCo")),
    "hf": (
        *hf_vit(),
        Drop("pooler.{rest}", "reads the class token"),
        Drop("classifier.{rest}", "tells the classes of ImageNet"),
    ),
}


class ImageNetEncoder(nn.Module):
    """The backbone, and a projection of its last map's cells to the text space; the image's embedding is their mean.

    Raises:
        ImportError: transformers is not installed; the message names the extra.
    """

    def __init__(self, config: ImageNetBackbone) -> None:
        super().__init__()
        self.body = _body(config)
        self.project = nn.Conv2d(config.widths[-1], config.embed, 1) if config.embed else None

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised -> maps at strides 4, 8, 16 and 32."""
        maps = tuple(self.body(pixels).feature_maps)
        if self.project is None:
            return ImageMaps(maps, None, None)
        local = self.project(maps[-1])
        return ImageMaps(maps, local.mean((-2, -1)), local)


class LiteEncoder(nn.Module):
    """EfficientNet-Lite, and a projection of the 1,280 channels in front of its classifier to the text space.

    Its batch statistics stay those of pretraining: batches of small machines are too small for new ones.
    """

    def __init__(self, config: LiteBackbone) -> None:
        super().__init__()
        self.variant = config.variant
        self.body = EfficientNetLite(config.variant)
        self.project = nn.Conv2d(HEAD, config.embed, 1) if config.embed else None

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised, H and W multiples of 32 -> maps at strides 4, 8, 16 and 32."""
        *maps, last = self.body(pixels.contiguous(memory_format=torch.channels_last))
        if self.project is None:
            return ImageMaps(tuple(maps), None, None)
        local = self.project(last)
        return ImageMaps(tuple(maps), local.mean((-2, -1)), local)


class PlainVitEncoder(VisionTransformer):
    """The transformer's last patches, normed, as one map."""

    def __init__(self, config: PlainVitBackbone) -> None:
        super().__init__(width=config.width, layers=config.layers, heads=config.heads, patch=config.patch, grid=config.grid)

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised -> a map at the patches' stride."""
        x, grid = self.tokens(pixels)
        for layer in self.layers:
            x = layer(x)
        return ImageMaps((torch.unflatten(self.norm(x[:, 1:]).transpose(1, 2), -1, grid),), None, None)


def start_from_vit(encoder: PlainVitEncoder, weights: Mapping[str, Tensor]) -> None:
    """Fill the transformer from its authors' file (DeiT, DINO, MoCo v3) or transformers' (`facebook/dino-vits16`); heads are left behind.

    Raises:
        WeightsError: another network's file: a tensor is missing, unknown or of another shape.
    """
    learned = {name: tensor for name, tensor in weights.items() if not name.startswith(("momentum_encoder.", "predictor."))}  # MoCo's
    load_official(encoder, PRETRAINED, {name.removeprefix("base_encoder.").removeprefix("vit."): one for name, one in learned.items()})


def start_from_imagenet(encoder: ImageNetEncoder, weights: Mapping[str, Tensor]) -> None:
    """Fill the backbone from transformers' file of its classifier (`microsoft/resnet-50`, `microsoft/swin-tiny-patch4-window7-224`).

    Raises:
        WeightsError: another network's file: a tensor is missing or of another shape.
    """
    given = {name.removeprefix("resnet."): tensor for name, tensor in weights.items()}
    ours = encoder.body.state_dict()
    new = ("hidden_states_norms.", "swin.layernorm.")  # the backbone's own norms of its outputs, and one that it does not use
    needed = [name for name in ours if not name.startswith(new) and not name.endswith(("relative_position_index", "num_batches_tracked"))]
    missing = [name for name in needed if name not in given]
    misshaped = [name for name in needed if name in given and given[name].shape != ours[name].shape]
    if missing or misshaped:
        wrong = ", ".join((missing + misshaped)[:6])
        raise WeightsError(
            f"This is not the file of this backbone: {wrong}. Give the one of its own size.", missing=missing, misshaped=misshaped
        )
    with torch.no_grad():
        for name in needed:
            ours[name].copy_(given[name])


def _body(config: ImageNetBackbone) -> nn.Module:
    try:
        from transformers import ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig
    except ImportError:
        raise ImportError("Backbones of ImageNet come from transformers: pip install 'promptseg[train]'.") from None
    common: dict[str, Any] = {"depths": list(config.depths), "out_features": STAGES}
    if config.architecture == "swin":
        sizes: dict[str, Any] = {"embed_dim": config.widths[0], "num_heads": list(config.heads), "window_size": config.window}
        swin: nn.Module = SwinBackbone(SwinConfig(**common, **sizes))
        return swin
    resnet: nn.Module = ResNetBackbone(ResNetConfig(**common, hidden_sizes=list(config.widths), embedding_size=config.widths[0] // 4))
    return resnet

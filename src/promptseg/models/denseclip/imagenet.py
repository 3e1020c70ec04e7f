"""DenseCLIP on a backbone that CLIP did not train (the paper's "any visual backbone"): with ImageNet's weights.

`ImageNetEncoder` is transformers' ResNet or Swin, `LiteEncoder` the small tower that `pocket` uses, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...errors import WeightsError
from ...nn.clip_resnet import AttentionPool, ImageMaps, require_sides
from ...nn.efficientnet import EfficientNetLite
from ...nn.efficientnet_config import HEAD
from .config import ImageNetBackbone, LiteBackbone

STRIDE = 32  # of the coarsest map
STAGES = ["stage1", "stage2", "stage3", "stage4"]


class ImageNetEncoder(nn.Module):
    """The backbone, and CLIP's attention pool on its last map, which starts at random (the authors in issues 7 and 47 of their repository).

    Raises:
        ImportError: transformers is not installed; the message names the extra.
    """

    def __init__(self, config: ImageNetBackbone) -> None:
        super().__init__()
        self.body = _body(config)
        self.pool = None if config.pool is None else AttentionPool(config.widths[-1], config.pool)

    def forward(self, pixels: Tensor) -> ImageMaps:
        """pixels (B, 3, H, W), normalised -> maps at strides 4, 8, 16 and 32.

        Raises:
            ImageError: the pool crops its positions and the last map is larger than their table.
        """
        maps = tuple(self.body(pixels).feature_maps)
        return ImageMaps(maps, *((None, None) if self.pool is None else self.pool(maps[-1])))


class LiteEncoder(nn.Module):
    """EfficientNet-Lite, and a projection of the 1,280 channels in front of its classifier to the text space: cheaper than the pool (ours).

    The image's embedding is the mean of the cells'. Batch statistics stay those of pretraining: batches of small machines are too small for
    new ones.
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
        """pixels (B, 3, H, W), normalised -> maps at strides 4, 8, 16 and 32; where H or W is no multiple of 32 the last ones are cut.

        Raises:
            ImageError: the image is so narrow that the coarsest map has no cell.
        """
        require_sides(pixels, STRIDE)
        *maps, last = self.body(pixels.contiguous(memory_format=torch.channels_last))
        if self.project is None:
            return ImageMaps(tuple(maps), None, None)
        local = self.project(last)
        return ImageMaps(tuple(maps), local.mean((-2, -1)), local)


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
    stem = config.widths[0] // 4 if config.layer == "bottleneck" else config.widths[0]
    resnet: nn.Module = ResNetBackbone(
        ResNetConfig(**common, hidden_sizes=list(config.widths), embedding_size=stem, layer_type=config.layer)
    )
    return resnet

"""What CLIPSeg's training starts from: published towers and a decoder of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ConfigError, UnknownModel, WeightsNotFound
from ...zoo import load, read_weights, to_official
from ...zoo.checkpoints import is_folder
from .config import ClipSegConfig, VitConfig
from .network import Model
from .recipes import ClipSegOptions

VIT = "timm's vit_base_patch16_384, on the Hub as timm/vit_base_patch16_384.augreg_in21k_ft_in1k"


def starting_network(options: ClipSegOptions, seed: int) -> Model:
    """The network before its first step, in training mode; everything random in it depends on ``seed``.

    Raises:
        WeightsNotFound: CLIP is not where the options say; the message says how to get it.
        ConfigError: ViTSeg's tower is not named, or the network's answers have another size than its photos.
        UnsafeFile, WeightsError: a file cannot be used.
    """
    torch.manual_seed(seed)
    model = Model(options.config) if options.clip is None else Model.from_clip(options.config, *_towers(options, options.clip))
    _check_size(model, options.size)
    return model.train()


def _towers(options: ClipSegOptions, clip: str) -> list[Mapping[str, Tensor]]:
    """State dicts for `Model.from_clip`."""
    if not isinstance(options.config.image, VitConfig):
        return [_clip(clip)]
    if options.vit is None:
        raise ConfigError(f"ViTSeg sees with a tower that was trained on ImageNet, {VIT}. Get its file and name it: options.vit=FILE.")
    return [_clip(clip), read_weights(options.vit)]


def _clip(place: str) -> Mapping[str, Tensor]:
    """CLIP's weights from its own file or folder, or out of a CLIPSeg, which holds them unchanged."""
    path = Path(place)
    if path.exists() and not is_folder(path):
        return read_weights(path)
    try:
        return to_official(load(place)[0], "clip")
    except (WeightsNotFound, UnknownModel) as error:
        hint = "CLIP's own file will do as well: options.clip=ViT-B-16.pt, or a folder of transformers' openai/clip-vit-base-patch16."
        raise WeightsNotFound(f"Training starts from CLIP. {error} {hint}") from None


def _check_size(model: Model, size: int) -> None:
    """Targets have the size of the photos; so must answers."""
    config = model.config
    if isinstance(config, ClipSegConfig) and (isinstance(config.image, VitConfig) or config.n_tokens is not None):
        return  # resizes its answers to its photos
    side = size // config.image.patch
    height, width = model.decoder.head.size((side, side))
    if (height, width) != (size, size):
        raise ConfigError(f"The network answers {size}x{size} photos by {width}x{height} maps. Change config.head_kernel or n_tokens.")

"""DenseCLIP in miniature, both image encoders, and its training. As a script it trains until it kills itself:

python small_denseclip.py DATA OUTPUT STEP
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import replicas
from promptseg import training
from promptseg.contracts import Preprocess, Recipe
from promptseg.models.denseclip import DenseClipConfig, Model
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import (
    DecoderConfig,
    ImageNetBackbone,
    LanguageConfig,
    PyramidConfig,
    ResNetBackbone,
    SemanticHead,
    VitBackbone,
)
from promptseg.nn.clip_config import AttentionPoolConfig, ClipTextConfig

CLASSES = ("cat", "traffic light", "sky")
RESNET = DenseClipConfig(
    classes=CLASSES,
    backbone=ResNetBackbone(layers=(1, 1, 1, 1), width=8, pool=AttentionPoolConfig(embed=16, grid=2, heads=4)),
    language=LanguageConfig(
        text=ClipTextConfig(width=16, layers=1, heads=2, embed=16, context=7), contexts=2,
        decoder=DecoderConfig(width=16, layers=1, heads=2),
    ),
    neck=PyramidConfig(channels=8),
    head=SemanticHead(channels=8, crop=64, stride=42, limits=(256, 64)),
    preprocess=Preprocess(size=64, fit="native", rounded=True),
)  # fmt: skip
assert RESNET.language is not None
VIT = replace(
    RESNET,
    backbone=VitBackbone(width=16, layers=4, heads=2, grid=4, taps=(0, 1, 2, 3), embed=16),
    language=replace(RESNET.language, level=2),
)
CONFIGS = {"resnet": RESNET, "vit": VIT, "resnet-baseline": baseline(RESNET), "vit-baseline": baseline(VIT)}
IMAGENET: dict[str, Any] = {"widths": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 4), "window": 4}


def build(config: DenseClipConfig = RESNET, **changes: Any) -> Model:
    """A network whose weights are not near zero, so that every part matters."""
    torch.manual_seed(0)
    model = Model(replace(config, **changes))
    with torch.no_grad():
        if model.gamma is not None:
            model.gamma.fill_(1.0)
    return model.eval()


def shrunk(config: DenseClipConfig, like: DenseClipConfig = RESNET) -> DenseClipConfig:
    """A published network with the sizes of a tiny one: its classes, kind of backbone and prompting stay."""
    backbone, pool = config.backbone, config.backbone.embed and like.backbone.pool
    if isinstance(backbone, VitBackbone):
        backbone = replace(VIT.backbone, embed=config.backbone.embed and 16, drop_path=backbone.drop_path)
    else:
        backbone = replace(backbone, pool=pool, **IMAGENET) if isinstance(backbone, ImageNetBackbone) else replace(like.backbone, pool=pool)
    language = config.language
    if language is not None:
        language = replace(like.language, prompting=language.prompting, level=language.level, divided=language.divided)
    return replace(like, classes=config.classes, backbone=backbone, language=language)


def classifier(backbone: ImageNetBackbone) -> Any:
    """transformers' own model of the same sizes."""
    from transformers import ResNetConfig, ResNetForImageClassification, SwinConfig, SwinForImageClassification

    torch.manual_seed(1)
    common: dict[str, Any] = {"depths": list(backbone.depths), "num_labels": 5}
    if backbone.architecture == "swin":
        sizes = {"embed_dim": backbone.widths[0], "num_heads": list(backbone.heads), "window_size": backbone.window}
        return SwinForImageClassification(SwinConfig(**common, **sizes)).eval()
    sizes = {"hidden_sizes": list(backbone.widths), "embedding_size": 16 if backbone.layer == "basic" else 4, "layer_type": backbone.layer}
    return ResNetForImageClassification(ResNetConfig(**common, **sizes)).eval()


def photos(root: Path) -> Path:
    """`replicas.ade150` with a training split of two photos."""
    replicas.ade150(root)
    for part, suffix in (("images", ".jpg"), ("annotations", ".png")):
        folder = root / "ADEChallengeData2016" / part
        (folder / "training").mkdir()
        for number in (1, 2):
            shutil.copy(folder / "validation" / f"ADE_val_00000001{suffix}", folder / "training" / f"ADE_train_0000000{number}{suffix}")
    return root


def recipe(root: Path, output: Path, *, name: str = "denseclip/fpn-r50", **changes: Any) -> Recipe:
    """A published recipe with a tiny network of the 150 classes on random towers, and few steps."""
    base = training.recipe(name)
    small = replace(base.options, config=shrunk(base.options.config), clip=None, imagenet=None, validation=2)
    values = {"steps": 4, "batch_size": 2, "lr": 3e-3, "workers": 0, "save_every_s": 0.0, "validate_every": 4, **changes}
    schedule = replace(base.schedule, steps=1)
    return replace(base, data=str(root), output=str(output), options=small, schedule=schedule, **values)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)

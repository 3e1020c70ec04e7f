"""DenseCLIP in miniature, both image encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from promptseg.contracts import Preprocess
from promptseg.models.denseclip import DenseClipConfig, Model
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import DecoderConfig, LanguageConfig, PyramidConfig, ResNetBackbone, SemanticHead, VitBackbone
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


def build(config: DenseClipConfig = RESNET, **changes: Any) -> Model:
    """A network whose weights are not near zero, so that every part matters."""
    torch.manual_seed(0)
    model = Model(replace(config, **changes))
    with torch.no_grad():
        if model.gamma is not None:
            model.gamma.fill_(1.0)
    return model.eval()

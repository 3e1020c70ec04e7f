"""DenseCLIP's detectors in miniature."""

from __future__ import annotations

from dataclasses import replace

import torch

from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import (
    DenseClipConfig,
    ImageNetBackbone,
    LiteBackbone,
    MaskHead,
    PyramidConfig,
    ResNetBackbone,
    RetinaHead,
)
from promptseg.models.denseclip.detection.network import Detector
from promptseg.nn.clip_config import AttentionPoolConfig
from small_denseclip import IMAGENET, RESNET

assert RESNET.language is not None
RETINA = replace(
    RESNET,
    backbone=ResNetBackbone(layers=(1, 1, 1, 1), width=8, pool=AttentionPoolConfig(embed=16, grid=42, heads=4, resize=False)),
    language=replace(RESNET.language, divided=True),
    neck=PyramidConfig(channels=8, start=1, outputs=5, extra="convs_on_input"),
    head=RetinaHead(channels=8, convs=1),
)
MASK = replace(
    RETINA,
    neck=PyramidConfig(channels=8, outputs=5, extra="max_pool"),
    head=MaskHead(rpn_channels=8, fc_channels=16, mask_convs=1, mask_channels=8),
)
assert MASK.language is not None
PRE = replace(MASK, language=replace(MASK.language, prompting="pre"))
PUBLISHED = {
    "retinanet": RETINA,
    "mask_rcnn": MASK,
    "retinanet-baseline": baseline(RETINA),
    "mask_rcnn-baseline": baseline(MASK),
}
CONFIGS = PUBLISHED | {
    "mask_rcnn-pre": PRE,
    "mask_rcnn-imagenet": replace(MASK, backbone=ImageNetBackbone(layer="basic", pool=RETINA.backbone.pool, **IMAGENET)),
    "mask_rcnn-lite": replace(MASK, backbone=LiteBackbone(variant="lite0", embed=16)),
}
CARDS = {
    "retinanet": "denseclip-retinanet-r50",
    "mask_rcnn": "denseclip-maskrcnn-r50",
    "mask_rcnn-pre": "denseclip-maskrcnn-r50",
    "mask_rcnn-imagenet": "denseclip-maskrcnn-r50",
    "mask_rcnn-lite": "denseclip-maskrcnn-r50",
    "retinanet-baseline": "denseclip-baseline-retinanet-r50",
    "mask_rcnn-baseline": "denseclip-baseline-maskrcnn-r50",
}


def build(config: DenseClipConfig = MASK) -> Detector:
    """A network whose weights are not near zero, so that every part matters."""
    torch.manual_seed(0)
    model = Detector(config)
    with torch.no_grad():
        if model.gamma is not None:
            model.gamma.fill_(1.0)
    return model.eval()

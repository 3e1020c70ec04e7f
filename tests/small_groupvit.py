"""GroupViT at a size that tests can build in no time: two stages of few groups, narrow towers, one hidden layer of 4096."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from promptseg import zoo
from promptseg.contracts import Card, Preprocess
from promptseg.models.groupvit import GroupVitConfig, GroupVitImageConfig
from promptseg.models.groupvit.network import Model
from promptseg.nn.clip_config import ClipTextConfig
from promptseg.segmenter import Segmenter

IMAGE = GroupVitImageConfig(
    size=64, patch=16, width=32, depths=(1, 1, 1), heads=(2, 2, 2), group_tokens=(6, 4, 0), output_groups=(6, 4), drop_path=0.0
)
CONFIG = GroupVitConfig(
    image=IMAGE,
    text=ClipTextConfig(width=32, layers=1, heads=2, embed=32),
    embed=16,
    multi_label=2,
    preprocess=Preprocess(size=64, fit="native", rounded=True),
)


def build(**changes: Any) -> Model:
    """Random and in evaluation mode; segments differ, which those of a network before its first step hardly do."""
    torch.manual_seed(0)
    model = Model(replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for stage in model.image.stages:
            if stage.grouping is not None:
                stage.grouping.assign.q.weight.mul_(200)
                stage.grouping.assign.k.weight.mul_(20)
        for projector in (model.image_projector, model.text_projector):
            for linear in (part for part in projector.modules() if isinstance(part, torch.nn.Linear)):
                torch.nn.init.xavier_normal_(linear.weight)
    return model


@cache
def model() -> Model:
    """The same; not to be changed."""
    return build()


def card() -> Card:
    """The card of the small one."""
    return replace(zoo.card("groupvit-gcc-yfcc"), config=CONFIG, preprocess=CONFIG.preprocess)


@cache
def segmenter() -> Segmenter:
    """It, ready."""
    return Segmenter(model(), card(), device="cpu", precision="float32")

"""The published GroupViT models (repository NVlabs/GroupViT; nvidia on the Hugging Face Hub)."""

from __future__ import annotations

from collections.abc import Mapping

from ...contracts import Card, Published
from ...data.vocabularies import templates
from .config import GroupVitConfig

_RELEASES = "https://github.com/NVlabs/GroupViT (Benchmark Results in its README)"
LICENSE = "NVIDIA Source Code License for GroupViT: non-commercial, research or evaluation only"


def _card(name: str, data: str, file: str, hub: str, config: GroupVitConfig, parameters: int, metrics: Mapping[str, float]) -> Card:
    return Card(
        name=name,
        family="groupvit",
        config=config,
        summary=f"segments that emerge from captions alone ({data}); names them zero-shot",
        source="Xu et al., GroupViT: Semantic Segmentation Emerges from Text Supervision, CVPR 2022; https://github.com/NVlabs/GroupViT",
        code_license=LICENSE,
        weights_license=LICENSE,
        tasks=("masks", "semantic", "groups"),
        prompts=("text",),
        parameters=parameters,
        preprocess=config.preprocess,
        threshold=0.5,  # against the words of everyday scenes: more probable than all of them together
        background=0.95,  # bg_thresh of PASCAL VOC and COCO (published configurations); PASCAL Context has 0.35
        templates=templates("photo"),
        published=(
            Published(layout="hf", files=("model.safetensors",), hub=hub),
            Published(layout="hf", files=("pytorch_model.bin",), hub=hub),
            Published(layout="official", files=(file,), url=_RELEASES),
        ),
        metrics=metrics,
    )


CARDS: tuple[Card, ...] = (
    _card(
        "groupvit-gcc-yfcc",
        "CC3M, CC12M and YFCC14M",
        "group_vit_gcc_yfcc_30e-879422e0.pth",
        "nvidia/groupvit-gcc-yfcc",
        GroupVitConfig(),
        parameters=55_726_610,
        metrics={"voc/mIoU": 0.523, "context/mIoU": 0.224, "coco-object/mIoU": 0.243, "imagenet/top1": 0.437},  # README of the repository
    ),
    _card(
        "groupvit-gcc-redcap",
        "CC3M, CC12M and RedCaps12M",
        "group_vit_gcc_redcap_30e-3dd09a76.pth",
        "nvidia/groupvit-gcc-redcaps",
        GroupVitConfig(multi_label=0),
        parameters=55_726_609,
        metrics={"voc/mIoU": 0.508, "context/mIoU": 0.237, "coco-object/mIoU": 0.275, "imagenet/top1": 0.516},
    ),
)

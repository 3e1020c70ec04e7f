"""DenseCLIP's segmenters (repository raoyongming/DenseCLIP) and the baselines of its table, of which no weights are published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...contracts import Card, Preprocess, Published
from ...data.vocabularies import names
from ...nn.clip_config import AttentionPoolConfig, ClipTextConfig
from .config import DenseClipConfig, ImageNetBackbone, LanguageConfig, LiteBackbone, ResNetBackbone, SemanticHead, VitBackbone

SOURCE = (
    "Rao et al., DenseCLIP: Language-Guided Dense Prediction with Context-Aware Prompting, CVPR 2022; "
    "https://github.com/raoyongming/DenseCLIP"
)
CONTEXT = 13  # positions of the text tower: 5 ids and 8 learned vectors


def language(embed: int, level: int = 3, *, divided: bool = False) -> LanguageConfig:
    """The published text tower and context decoder."""
    return LanguageConfig(text=ClipTextConfig(width=512, layers=12, heads=8, embed=embed, context=CONTEXT), level=level, divided=divided)


def fpn_r50() -> DenseClipConfig:
    """CLIP ResNet-50 at 512 pixels [denseclip_fpn_res50_512x512_80k]."""
    pool = AttentionPoolConfig(embed=1024, grid=16)
    return DenseClipConfig(
        classes=tuple(name.strip() for name in names("ade150")),
        backbone=ResNetBackbone(layers=(3, 4, 6, 3), pool=pool),
        language=language(1024),
    )


def fpn_r101() -> DenseClipConfig:
    """CLIP ResNet-101 [denseclip_fpn_res101_512x512_80k]."""
    backbone = ResNetBackbone(layers=(3, 4, 23, 3), pool=AttentionPoolConfig(embed=512, grid=16))
    return replace(fpn_r50(), backbone=backbone, language=language(512))


def fpn_vitb() -> DenseClipConfig:
    """CLIP ViT-B/16 at 640 pixels [denseclip_fpn_vit-b_640x640_80k]."""
    head = SemanticHead(crop=640, stride=426, limits=(2048, 640))
    preprocess = replace(fpn_r50().preprocess, size=640)
    return replace(fpn_r50(), backbone=VitBackbone(drop_path=0.1), language=language(512, level=2), head=head, preprocess=preprocess)


def baseline(config: DenseClipConfig) -> DenseClipConfig:
    """The same without language: no text tower, no embeddings, no drop path [fpn_clipres50, fpn_clipres101, fpn_clipvit-b]."""
    if isinstance(config.backbone, ResNetBackbone | ImageNetBackbone):
        return replace(config, backbone=replace(config.backbone, pool=None), language=None)
    if isinstance(config.backbone, LiteBackbone):
        return replace(config, backbone=replace(config.backbone, embed=None), language=None)
    assert isinstance(config.backbone, VitBackbone)
    return replace(config, backbone=replace(config.backbone, embed=None, drop_path=0.0), language=None)


def on_imagenet(config: DenseClipConfig, backbone: ImageNetBackbone) -> DenseClipConfig:
    """What is there on CLIP's residual network, on ``backbone``: with the same pool, and photos normalised as ImageNet's."""
    assert isinstance(config.backbone, ResNetBackbone)
    look = replace(config.preprocess, mean=Preprocess(size=1).mean, std=Preprocess(size=1).std)
    return replace(config, backbone=replace(backbone, pool=config.backbone.pool), preprocess=look)


def _card(name: str, summary: str, config: DenseClipConfig, parameters: int, figures: tuple[float, float], file: str | None) -> Card:
    metrics: Mapping[str, float] = {"ade150/mIoU": figures[0], "ade150/mIoU-multiscale": figures[1]}
    where = f"the link of https://github.com/raoyongming/DenseCLIP#segmentation, saved as {file}"
    return Card(
        name=name,
        family="denseclip",
        config=config,
        summary=summary if file else f"{summary}; weights not published",
        source=SOURCE,
        code_license="MIT",
        weights_license="unstated",  # nothing is said of the weights beside the code's licence
        tasks=("semantic",),
        prompts=("text",),
        parameters=parameters,
        preprocess=config.preprocess,
        published=(Published(layout="official", files=(file,), url=where),) if file else (),
        metrics=metrics,  # table of the repository
    )


CARDS: tuple[Card, ...] = (
    _card(
        "denseclip-fpn-r50", "150 classes of ADE20K guided by their names, CLIP ResNet-50", fpn_r50(), 113_905_910, (0.435, 0.447),
        "denseclip_fpn_res50_512x512_80k.pth",
    ),
    _card(
        "denseclip-fpn-r101", "the same on CLIP ResNet-101", fpn_r101(), 131_190_518, (0.451, 0.465),
        "denseclip_fpn_res101_512x512_80k.pth",
    ),
    _card(
        "denseclip-fpn-vitb", "the same on CLIP ViT-B/16: the most exact", fpn_vitb(), 168_668_822, (0.506, 0.513),
        "denseclip_fpn_vit-b_640x640_80k.pth",
    ),
    _card("denseclip-baseline-fpn-r50", "CLIP ResNet-50 without language", baseline(fpn_r50()), 31_042_550, (0.396, 0.416), None),
    _card("denseclip-baseline-fpn-r101", "CLIP ResNet-101 without language", baseline(fpn_r101()), 50_034_678, (0.427, 0.443), None),
    _card("denseclip-baseline-fpn-vitb", "CLIP ViT-B/16 without language", baseline(fpn_vitb()), 101_282_710, (0.494, 0.503), None),
)  # fmt: skip

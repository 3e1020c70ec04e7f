"""The published CAT-Seg models (repository cvlab-kaist/CAT-Seg, checkpoints of the CVPR 2024 version)."""

from __future__ import annotations

from collections.abc import Mapping

from ...contracts import Card, Published
from ...nn.clip_config import ClipTextConfig, ClipVisionConfig
from .config import CatSegConfig

_SETS = ("ade847", "context459", "ade150", "context59", "voc20", "voc20b")
_WHERE = "the table of https://github.com/cvlab-kaist/CAT-Seg"


def vitb_384() -> CatSegConfig:
    """CLIP ViT-B/16 at 384 pixels [configs/vitb_384.yaml]."""
    return CatSegConfig()


def vitl_336() -> CatSegConfig:
    """CLIP ViT-L/14@336px [configs/vitl_336.yaml]."""
    return CatSegConfig(
        image=ClipVisionConfig(width=1024, layers=24, heads=16, patch=14, grid=24, embed=768),
        text=ClipTextConfig(width=768, layers=12, heads=12, embed=768),
        side=336,
        taps=(7, 15),
    )


def _card(name: str, summary: str, file: str, config: CatSegConfig, parameters: int, figures: tuple[float, ...]) -> Card:
    metrics: Mapping[str, float] = {f"{data}/mIoU": value for data, value in zip(_SETS, figures, strict=True)}
    return Card(
        name=name,
        family="catseg",
        config=config,
        summary=summary,
        source="Cho et al., CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation, CVPR 2024; "
        "https://github.com/cvlab-kaist/CAT-Seg",
        code_license="MIT",
        weights_license="unstated",  # nothing is said of the weights beside the code's licence
        tasks=("semantic",),
        prompts=("text",),
        parameters=parameters,
        preprocess=config.preprocess,
        published=(Published(layout="official", files=(file,), url=f"{file} is linked from {_WHERE}"),),
        metrics=metrics,  # table of the repository, sliding windows
    )


CARDS: tuple[Card, ...] = (
    _card(
        "catseg-base",
        "a class for every pixel from any list of names; CLIP ViT-B/16",
        "model_base.pth",
        vitb_384(),
        parameters=154_289_378,
        figures=(0.120, 0.190, 0.318, 0.575, 0.946, 0.773),
    ),
    _card(
        "catseg-large",
        "the same on CLIP ViT-L/14: more exact, three times the size",
        "model_large.pth",
        vitl_336(),
        parameters=433_726_946,
        figures=(0.160, 0.238, 0.379, 0.633, 0.970, 0.825),
    ),
)

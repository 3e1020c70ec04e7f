"""The published CLIPSeg models (repository timojl/clipseg, `weights.zip`; CIDAS on the Hugging Face Hub) and the paper's two baselines.

Nobody has published weights of the baselines: their cards are for training them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...contracts import Card, Published
from .config import VIT_B16_384, ClipDeconvConfig, ClipSegConfig

_ARCHIVE = "https://owncloud.gwdg.de/index.php/s/ioHbRzFx6th32hn/download"
_CLIP = "https://github.com/openai/CLIP (ViT-B/16, the file of clip/clip.py)"
_CLIP_SHA256 = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"  # part of the address in clip/clip.py


def _published(decoder: str, hub: str) -> tuple[Published, ...]:
    return (
        Published(layout="hf", files=("model.safetensors",), hub=hub),
        Published(layout="hf", files=("pytorch_model.bin",), hub=hub),
        Published(
            layout="official",
            files=(decoder, "ViT-B-16.pt"),
            url=f"{decoder} is in the archive at {_ARCHIVE}; ViT-B-16.pt comes from {_CLIP}",
            sha256={"ViT-B-16.pt": _CLIP_SHA256},
        ),
    )


def _card(name: str, summary: str, decoder: str, hub: str, config: ClipSegConfig, parameters: int, metrics: Mapping[str, float]) -> Card:
    return Card(
        name=name,
        family="clipseg",
        config=config,
        summary=summary,
        source="Lüddecke & Ecker, Image Segmentation Using Text and Image Prompts, CVPR 2022; https://github.com/timojl/clipseg",
        code_license="MIT",
        weights_license="unstated"
        if config.reduce_dim == 16
        else "unstated; Hub page: Apache-2.0",  # the authors' MIT excludes the weights
        tasks=("masks", "semantic"),
        prompts=("text", "exemplar", "blend"),
        parameters=parameters,
        preprocess=config.preprocess,
        threshold=0.3,  # t of "CLIPSeg (PC+)" in table 1 of the paper, for text; its one-shot table uses the same
        published=_published(decoder, hub),
        metrics=metrics,
    )


def _baseline(
    name: str, summary: str, config: ClipSegConfig | ClipDeconvConfig, parameters: int, threshold: float, metrics: Mapping[str, float]
) -> Card:
    card = _card(name, f"{summary}; its weights are not published", "", "", ClipSegConfig(), parameters, metrics)
    return replace(card, config=config, weights_license="none published", threshold=threshold, published=())


CARDS: tuple[Card, ...] = (
    _card(
        "clipseg-rd64",
        "one mask per phrase or example; decoder width 64",
        "rd64-uni.pth",
        "CIDAS/clipseg-rd64",
        ClipSegConfig(),
        parameters=150_693_890,
        metrics={  # paper: table 1 (PhraseCut, t = 0.3); ablation table (best t), visual prompts
            "phrasecut/text/mIoU": 0.434,
            "phrasecut/text/IoU_FG": 0.547,
            "phrasecut/text/AP": 0.767,
            "phrasecut/visual/mIoU": 0.254,
            "phrasecut/visual/AP": 0.556,
        },
    ),
    _card(
        "clipseg-rd16",
        "the same with a decoder of width 16: smaller and less exact",
        "rd16-uni.pth",
        "CIDAS/clipseg-rd16",
        ClipSegConfig(reduce_dim=16),
        parameters=149_884_418,
        metrics={  # paper: ablation table (best t)
            "phrasecut/text/mIoU": 0.374,
            "phrasecut/text/AP": 0.715,
            "phrasecut/visual/mIoU": 0.247,
            "phrasecut/visual/AP": 0.512,
        },
    ),
    _card(
        "clipseg-rd64-refined",
        "decoder width 64 with a finer mask head; no published figures",
        "rd64-uni-refined.pth",
        "CIDAS/clipseg-rd64-refined",
        ClipSegConfig(refined=True),
        parameters=150_747_746,
        metrics={},
    ),
    _baseline(
        "clip-deconv",
        "CLIPSeg's baseline without a transformer in its decoder",
        ClipDeconvConfig(),
        parameters=149_760_322,
        threshold=0.3,  # t of table 1
        metrics={  # paper: "CLIP-Deconv" of table 1 (PhraseCut); its Pascal-5i and zero-shot rows were trained on PhraseCut+
            "phrasecut/text/mIoU": 0.377,
            "phrasecut/text/IoU_FG": 0.495,
            "phrasecut/text/AP": 0.712,
        },
    ),
    _baseline(
        "vitseg",
        "CLIPSeg's baseline with an image tower that has only seen ImageNet",
        ClipSegConfig(image=VIT_B16_384, taps=(3, 7, 9)),
        parameters=150_985_474,
        threshold=0.1,  # t of "ViTSeg (PC+)" in table 1
        metrics={  # paper: "ViTSeg (PC+)" of table 1
            "phrasecut/text/mIoU": 0.284,
            "phrasecut/text/IoU_FG": 0.354,
            "phrasecut/text/AP": 0.583,
        },
    ),
)

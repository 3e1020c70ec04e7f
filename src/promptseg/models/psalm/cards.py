"""The published PSALM (repository zamling/PSALM; EnmingZhang/PSALM on the Hugging Face Hub)."""

from __future__ import annotations

from ...contracts import Card, Published
from .config import PREPROCESS, PsalmConfig

_HUB = "EnmingZhang/PSALM"
_FOLDER = f"https://huggingface.co/{_HUB}, with the shards that it names and the tokenizer beside it"
_TOKENIZER = ("tokenizer.json", "merges.txt")

CARDS: tuple[Card, ...] = (
    Card(
        name="psalm",
        family="psalm",
        config=PsalmConfig(),
        summary="one language model for panoptic, instance, semantic, referring, clicking and video questions",
        source="Zhang et al., PSALM: Pixelwise SegmentAtion with Large Multi-Modal Model, ECCV 2024; https://github.com/zamling/PSALM",
        code_license="see the repository zamling/PSALM",
        weights_license="see EnmingZhang/PSALM on the Hugging Face Hub; they start from Phi-1.5 and Mask2Former",
        tasks=("masks", "semantic", "panoptic", "instances", "refer", "track"),
        prompts=("text", "points", "box", "scribble", "mask"),
        parameters=1_587_057_208,
        preprocess=PREPROCESS,
        published=(
            Published(layout="official", files=("pytorch_model.bin.index.json",), beside=_TOKENIZER, hub=_HUB, url=_FOLDER),
            Published(layout="official", files=("model.safetensors.index.json",), beside=_TOKENIZER, hub=_HUB, url=_FOLDER),
        ),
        metrics={"refcoco/cIoU": 0.836, "refcoco+/cIoU": 0.729, "refcocog/cIoU": 0.738, "coco-panoptic/PQ": 0.559},  # the paper's val sets
    ),
)

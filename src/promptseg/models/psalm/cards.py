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
        code_license="Apache-2.0 (ours; the repository zamling/PSALM states none)",
        weights_license="none stated that we know of, ask the authors; those of Phi-1.5 and Mask2Former, from which they start, hold, too",
        tasks=("masks", "semantic", "panoptic", "instances", "refer", "track"),
        prompts=("text", "points", "box", "scribble", "mask"),
        parameters=1_587_057_208,
        preprocess=PREPROCESS,
        published=(
            Published(layout="official", files=("pytorch_model.bin.index.json",), beside=_TOKENIZER, hub=_HUB, url=_FOLDER),
            Published(layout="official", files=("model.safetensors.index.json",), beside=_TOKENIZER, hub=_HUB, url=_FOLDER),
        ),
        metrics={  # of the paper
            "refcoco/val/cIoU": 0.836,
            "refcoco/testA/cIoU": 0.847,
            "refcoco/testB/cIoU": 0.816,
            "refcoco+/val/cIoU": 0.729,
            "refcoco+/testA/cIoU": 0.755,
            "refcoco+/testB/cIoU": 0.701,
            "refcocog/val/cIoU": 0.738,
            "refcocog/test/cIoU": 0.744,
            "coco-panoptic/PQ": 0.559,
            "coco-panoptic/AP": 0.457,
            "coco-panoptic/mIoU": 0.666,
        },
    ),
)

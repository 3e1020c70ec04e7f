"""How the tensors of the published checkpoints (mmcv's, which the reader unwraps) map to ours."""

from __future__ import annotations

from collections.abc import Mapping

from ...contracts import Rename, Rule
from ...nn.clip_keys import hf_image, hf_text, openai_image, openai_resnet, openai_text
from .detection.keys import DETECTOR_HEADS


def backbone(theirs: str, ours: str = "image.") -> tuple[Rule, ...]:
    """Either image encoder, found under the prefix ``theirs``; the transformer's patch embedding and the stem share a name."""
    return (
        *(Rename(f"{theirs}fpn{index + 1}.{{rest}}", f"{ours}levels.{index}.{{rest}}") for index in range(4)),
        *openai_image(theirs, ours),
        *openai_resnet(theirs, ours),
    )


def pyramid(theirs: str = "neck.", ours: str = "neck.") -> tuple[Rule, ...]:
    """The feature pyramid."""
    return (
        Rename(f"{theirs}lateral_convs.{{i}}.conv.{{rest}}", f"{ours}laterals.{{i}}.{{rest}}"),
        Rename(f"{theirs}fpn_convs.{{i}}.conv.{{rest}}", f"{ours}convs.{{i}}.{{rest}}"),
    )


def context_decoder(theirs: str = "context_decoder.", ours: str = "context_decoder.") -> tuple[Rule, ...]:
    """The context decoder, whose names are ours."""
    return (Rename(f"{theirs}{{rest}}", f"{ours}{{rest}}"),)


def semantic_head(theirs: str = "decode_head.", ours: str = "head.") -> tuple[Rule, ...]:
    """Semantic FPN's head."""
    return (
        Rename(f"{theirs}conv_seg.{{rest}}", f"{ours}classify.{{rest}}"),
        Rename(f"{theirs}scale_heads.{{i}}.{{j}}.{{rest}}", f"{ours}scales.{{i}}.{{j}}.{{rest}}"),
    )


# all but the heads
SHARED: tuple[Rule, ...] = (
    Rename("contexts", "text.contexts"),
    Rename("gamma", "gamma"),
    *context_decoder(),
    *pyramid(),
    *openai_text("text_encoder.", "text."),
    *backbone("backbone.", "image."),
)

# What training starts from: CLIP as OpenAI or Hugging Face's library names its tensors.
TOWERS: Mapping[str, tuple[Rule, ...]] = {
    "openai": (*backbone("visual."), *openai_text("")),
    "hf": (*hf_image(""), *hf_text(""), *backbone("visual.")),  # the last names what it lacks: residual networks and levels
}

LAYOUTS: Mapping[str, tuple[Rule, ...]] = {"official": (*SHARED, *semantic_head(), *DETECTOR_HEADS)}

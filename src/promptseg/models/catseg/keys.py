"""How the tensors of the published checkpoints (`model_base.pth`, `model_large.pth`) map to ours.

They are detectron2's, ``{"model": {...}}``, which the reader unwraps. CLIP's fused attention weight is cut into three there,
its bias is not.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...contracts import Drop, Rename, Rule, Split
from ...nn.clip_keys import hf_image, hf_text, openai_image, openai_text

_CLIP = "sem_seg_head.predictor.clip_model."
_AGGREGATOR = "sem_seg_head.predictor.transformer."


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Query, key and value weights of CLIP's blocks, apart."""
    block = f"{theirs}transformer.resblocks.{{i}}.attn."
    return (Split(tuple(f"{block}{part}_proj_weight" for part in "qkv"), f"{ours}blocks.{{i}}.attn.qkv.weight"),)


def aggregator(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The aggregator, found under the prefix ``theirs``."""
    layer, own = f"{theirs}layers.{{i}}.", f"{ours}layers.{{i}}."
    return (
        *spatial(f"{layer}swin_block.", f"{own}spatial."),
        *classes(f"{layer}attention.", f"{own}classes."),
        Rename(f"{theirs}conv1.{{rest}}", f"{ours}embed.{{rest}}"),
        Rename(f"{theirs}guidance_projection.0.{{rest}}", f"{ours}image_guidance.{{rest}}"),
        Rename(f"{theirs}text_guidance_projection.0.{{rest}}", f"{ours}text_guidance.{{rest}}"),
        Rename(f"{theirs}decoder_guidance_projection.{{i}}.0.{{rest}}", f"{ours}guidance.{{i}}.{{rest}}"),
        *(
            rule
            for index in (0, 1)
            for rule in (
                Rename(f"{theirs}decoder{index + 1}.up.{{rest}}", f"{ours}stages.{index}.up.{{rest}}"),
                Rename(f"{theirs}decoder{index + 1}.conv.double_conv.0.{{rest}}", f"{ours}stages.{index}.conv1.{{rest}}"),
                Rename(f"{theirs}decoder{index + 1}.conv.double_conv.1.{{rest}}", f"{ours}stages.{index}.norm1.{{rest}}"),
                Rename(f"{theirs}decoder{index + 1}.conv.double_conv.3.{{rest}}", f"{ours}stages.{index}.conv2.{{rest}}"),
                Rename(f"{theirs}decoder{index + 1}.conv.double_conv.4.{{rest}}", f"{ours}stages.{index}.norm2.{{rest}}"),
            )
        ),
        Rename(f"{theirs}head.{{rest}}", f"{ours}head.{{rest}}"),
    )


def spatial(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The pair of shifted-window blocks."""
    pairs = tuple((f"{theirs}block_{index + 1}.", f"{ours}blocks.{index}.") for index in (0, 1))
    return (
        Rename(f"{theirs}guidance_norm.{{rest}}", f"{ours}norm_guidance.{{rest}}"),
        *(
            rule
            for their, our in pairs
            for rule in (
                Drop(f"{their}attn_mask", "computed from the sizes"),
                Rename(f"{their}norm{{j}}.{{rest}}", f"{our}norm{{j}}.{{rest}}"),
                Rename(f"{their}attn.proj.{{rest}}", f"{our}attn.out.{{rest}}"),
                Rename(f"{their}attn.{{part}}.{{rest}}", f"{our}attn.{{part}}.{{rest}}"),
                Rename(f"{their}mlp.fc1.{{rest}}", f"{our}mlp.up.{{rest}}"),
                Rename(f"{their}mlp.fc2.{{rest}}", f"{our}mlp.down.{{rest}}"),
            )
        ),
    )


def classes(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Class aggregation."""
    return (
        Rename(f"{theirs}padding_tokens", f"{ours}padding"),
        Rename(f"{theirs}padding_guidance", f"{ours}padding_guidance"),
        Rename(f"{theirs}attention.{{rest}}", f"{ours}attn.{{rest}}"),
        Rename(f"{theirs}MLP.0.{{rest}}", f"{ours}mlp.up.{{rest}}"),
        Rename(f"{theirs}MLP.2.{{rest}}", f"{ours}mlp.down.{{rest}}"),
        Rename(f"{theirs}norm{{j}}.{{rest}}", f"{ours}norm{{j}}.{{rest}}"),
    )


def clip(prefix: str) -> tuple[Rule, ...]:
    """The modified CLIP inside the checkpoints, found under ``prefix``."""
    return (
        *_attention(f"{prefix}visual.", "image."),
        *_attention(prefix, "text."),
        Rename(f"{prefix}visual.transformer.prompt_tokens", "image_prompts"),
        *openai_image(f"{prefix}visual."),
        *openai_text(prefix),
    )


LAYOUTS: Mapping[str, tuple[Rule, ...]] = {
    "official": (
        *clip(_CLIP),
        *aggregator(_AGGREGATOR, "aggregator."),
        Rename("upsample{i}.{rest}", "upsample{i}.{rest}"),
    ),
}

_COUNTING = "0, 1, 2, ..., written by older versions of transformers"

# What training starts from: CLIP as OpenAI or transformers published it.
TOWERS: Mapping[str, tuple[Rule, ...]] = {
    "openai": (
        *openai_image("visual."),
        *openai_text(""),
        *(
            Drop(name, "a scalar of CLIP's archive that its own loader deletes")
            for name in ("input_resolution", "context_length", "vocab_size")
        ),
    ),
    "hf": (
        *hf_image(""),
        *hf_text(""),
        Drop("text_model.embeddings.position_ids", _COUNTING),
        Drop("vision_model.embeddings.position_ids", _COUNTING),
    ),
}

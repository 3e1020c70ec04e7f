"""How the tensors of published GroupViT checkpoints map to ours: ``official`` (NVlabs/GroupViT), ``hf`` (transformers' `GroupViTModel`)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...contracts import Absent, Drop, Rename, Rule, Split
from ...nn.clip_keys import hf_text, openai_text

START = math.log(1 / 0.07)  # of both temperatures (paper, section 4.1)
_COUNT = "counts training batches; nothing reads it while the momentum is fixed"


def _projector(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Drop(f"{theirs}linear_hidden.{{i}}.num_batches_tracked", reason=_COUNT),
        Rename(f"{theirs}linear_hidden.{{i}}.{{rest}}", f"{ours}hidden.{{i}}.{{rest}}", trailing=True),
        Rename(f"{theirs}linear_out.{{rest}}", f"{ours}out.{{rest}}", trailing=True),
    )


def _hf_projector(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Drop(f"{theirs}{{i}}.num_batches_tracked", reason=_COUNT),
        Rename(f"{theirs}3.{{rest}}", f"{ours}out.{{rest}}"),
        Rename(f"{theirs}{{i}}.{{rest}}", f"{ours}hidden.{{i}}.{{rest}}"),
    )


def _mlp(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Rename(f"{theirs}.fc1.{{rest}}", f"{ours}.up.{{rest}}"),
        Rename(f"{theirs}.fc2.{{rest}}", f"{ours}.down.{{rest}}"),
    )


def _grouping(theirs: str, ours: str, out: str) -> tuple[Rule, ...]:
    """A stage's own parts, all but its blocks; ``out`` is what they call the last projection of the first cross attention."""
    down, up = f"{theirs}.downsample", f"{ours}.grouping"
    return (
        Rename(f"{theirs}.group_token", f"{ours}.group_tokens"),
        *_mlp(f"{theirs}.group_projector.{{place}}", f"{ours}.group_projector.{{place}}"),
        Rename(f"{theirs}.group_projector.{{rest}}", f"{ours}.group_projector.{{rest}}"),
        *_mlp(f"{down}.mlp_inter", f"{up}.mlp_tokens"),
        *_mlp(f"{down}.mlp_channels", f"{up}.mlp_channels"),
        Rename(f"{down}.pre_assign_attn.attn.{out}.{{rest}}", f"{up}.pre.attn.out.{{rest}}"),
        *(Rename(f"{down}.pre_assign_attn.attn.{part}_proj.{{rest}}", f"{up}.pre.attn.{part}.{{rest}}") for part in "qkv"),
        *_mlp(f"{down}.pre_assign_attn.mlp", f"{up}.pre.mlp"),
        Rename(f"{down}.pre_assign_attn.{{rest}}", f"{up}.pre.{{rest}}"),
        Rename(f"{down}.assign.proj.{{rest}}", f"{up}.assign.out.{{rest}}"),
        *(Rename(f"{down}.assign.{part}_proj.{{rest}}", f"{up}.assign.{part}.{{rest}}") for part in "qkv"),
        Rename(f"{down}.{{rest}}", f"{up}.{{rest}}"),
    )


GROUPING_BLOCK: tuple[Rule, ...] = tuple(
    Rename(rule.theirs.removeprefix(".downsample."), rule.ours.removeprefix(".grouping."))
    for rule in _grouping("", "", "proj")
    if isinstance(rule, Rename) and rule.theirs.startswith(".downsample.")
)  # of a block by itself

_STAGE, _OUR_STAGE = "layers.{s}", "image.stages.{s}"


def _image(prefix: str) -> tuple[Rule, ...]:
    block, ours = f"{prefix}{_STAGE}.blocks.{{b}}", f"{_OUR_STAGE}.blocks.{{b}}"
    return (
        Rename(f"{prefix}pos_embed", "image.positions"),
        Rename(f"{prefix}patch_embed.proj.{{rest}}", "image.patches.{rest}"),
        Rename(f"{prefix}patch_embed.norm.{{rest}}", "image.patch_norm.{rest}"),
        Rename(f"{block}.attn.qkv.{{rest}}", f"{ours}.attn.qkv.{{rest}}"),
        Rename(f"{block}.attn.proj.{{rest}}", f"{ours}.attn.out.{{rest}}"),
        *_mlp(f"{block}.mlp", f"{ours}.mlp"),
        Rename(f"{block}.{{rest}}", f"{ours}.{{rest}}"),
        *_grouping(f"{prefix}{_STAGE}", _OUR_STAGE, "proj"),
        Rename(f"{prefix}norm.{{rest}}", "image.norm.{rest}"),
    )


def _hf_image() -> tuple[Rule, ...]:
    embeddings, stage = "vision_model.embeddings.", "vision_model.encoder.stages.{s}"
    block, ours = f"{stage}.layers.{{b}}", f"{_OUR_STAGE}.blocks.{{b}}"
    return (
        Rename(f"{embeddings}position_embeddings", "image.positions"),
        Rename(f"{embeddings}patch_embeddings.projection.{{rest}}", "image.patches.{rest}"),
        Rename(f"{embeddings}layernorm.{{rest}}", "image.patch_norm.{rest}"),
        Split(tuple(f"{block}.self_attn.{part}_proj.{{rest}}" for part in "qkv"), f"{ours}.attn.qkv.{{rest}}"),
        Rename(f"{block}.self_attn.out_proj.{{rest}}", f"{ours}.attn.out.{{rest}}"),
        *_mlp(f"{block}.mlp", f"{ours}.mlp"),
        Rename(f"{block}.layer_norm{{j}}.{{rest}}", f"{ours}.norm{{j}}.{{rest}}"),
        *_grouping(stage, _OUR_STAGE, "out_proj"),
        Rename("vision_model.layernorm.{rest}", "image.norm.{rest}"),
    )


LAYOUTS: Mapping[str, tuple[Rule, ...]] = {
    "official": (
        Rename("logit_scale", "logit_scale"),
        Rename("multi_label_logit_scale", "multi_label_logit_scale"),
        *_image("img_encoder."),
        *openai_text("text_encoder."),
        *_projector("img_projector.", "image_projector."),
        *_projector("text_projector.", "text_projector."),
    ),
    "hf": (
        Rename("logit_scale", "logit_scale"),
        Absent("multi_label_logit_scale", START, reason="a temperature of training; the value is the one that training starts from"),
        *_hf_image(),
        *_hf_projector("visual_projection.", "image_projector."),
        *_hf_projector("text_projection.", "text_projector."),
        *hf_text(""),
        Drop("text_model.embeddings.position_ids", "0, 1, 2, ..., written by older versions of transformers"),
    ),
}
IMAGE: tuple[Rule, ...] = tuple(  # an image encoder by itself
    Rename(rule.theirs, rule.ours.removeprefix("image.")) for rule in _image("") if isinstance(rule, Rename)
)

"""How the tensors of published PSALM checkpoints map to ours: ``official`` (EnmingZhang/PSALM, transformers 4.36)."""

from __future__ import annotations

from ...contracts import Drop, Rename, Rule

_COUNT = "counts training batches; nothing reads it while the momentum is fixed"
_INDEX = "recomputed from the window's size"


def swin(theirs: str, ours: str) -> tuple[Rule, ...]:
    """The image encoder."""
    block, mine = f"{theirs}layers.{{i}}.blocks.{{j}}.", f"{ours}stages.{{i}}.{{j}}."
    return (
        Rename(f"{theirs}patch_embed.proj.{{rest}}", f"{ours}patches.{{rest}}"),
        Rename(f"{theirs}patch_embed.norm.{{rest}}", f"{ours}norm.{{rest}}"),
        Drop(f"{block}attn.relative_position_index", reason=_INDEX),
        Rename(f"{block}attn.relative_position_bias_table", f"{mine}attn.bias"),
        Rename(f"{block}attn.proj.{{rest}}", f"{mine}attn.out.{{rest}}"),
        Rename(f"{block}mlp.fc1.{{rest}}", f"{mine}mlp.up.{{rest}}"),
        Rename(f"{block}mlp.fc2.{{rest}}", f"{mine}mlp.down.{{rest}}"),
        Rename(f"{block}{{rest}}", f"{mine}{{rest}}"),
        Rename(f"{theirs}layers.{{i}}.downsample.{{rest}}", f"{ours}merging.{{i}}.{{rest}}"),
        Rename(f"{theirs}norm{{i}}.{{rest}}", f"{ours}norms.{{i}}.{{rest}}"),
    )


def projector(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Between image encoder and language model."""
    block = f"{theirs}layer1.0."
    return (
        Drop(f"{block}{{rest}}.num_batches_tracked", reason=_COUNT),
        Rename(f"{block}conv{{i}}.weight", f"{ours}conv{{i}}.weight"),
        Rename(f"{block}bn{{i}}.{{rest}}", f"{ours}norm{{i}}.{{rest}}"),
        Rename(f"{block}downsample.0.weight", f"{ours}shortcut.weight"),
        Rename(f"{block}downsample.1.{{rest}}", f"{ours}shortcut_norm.{{rest}}"),
        Rename(f"{theirs}fc.{{rest}}", f"{ours}out.{{rest}}"),
    )


def language(theirs: str, ours: str) -> tuple[Rename, ...]:
    """The language model without its head; the fused projection's rows stay in the published order."""
    block, mine = f"{theirs}layers.{{i}}.", f"{ours}blocks.{{i}}."
    return (
        Rename(f"{theirs}embed_tokens.weight", f"{ours}embed.weight"),
        Rename(f"{block}self_attn.query_key_value.{{rest}}", f"{mine}attn.qkv.{{rest}}"),
        Rename(f"{block}self_attn.dense.{{rest}}", f"{mine}attn.out.{{rest}}"),
        Rename(f"{block}mlp.fc1.{{rest}}", f"{mine}mlp.up.{{rest}}"),
        Rename(f"{block}mlp.fc2.{{rest}}", f"{mine}mlp.down.{{rest}}"),
        Rename(f"{block}input_layernorm.{{rest}}", f"{mine}norm.{{rest}}"),
        Rename(f"{theirs}final_layernorm.{{rest}}", f"{ours}norm.{{rest}}"),
    )


def head(theirs: str, ours: str) -> Rename:
    """From the language model's states to the next token."""
    return Rename(f"{theirs}.weight", f"{ours}.weight")


def deformable(theirs: str, ours: str) -> tuple[Rule, ...]:
    """One deformable attention."""
    names = {"sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "value", "output_proj": "out"}
    return tuple(Rename(f"{theirs}{name}.{{rest}}", f"{ours}{mine}.{{rest}}") for name, mine in names.items())


def pixel_decoder(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Deformable encoder and the step up to a quarter."""
    layer, mine = f"{theirs}transformer.encoder.layers.{{i}}.", f"{ours}layers.{{i}}."
    return (
        Rename(f"{theirs}input_proj.{{i}}.{{rest}}", f"{ours}inputs.{{i}}.{{rest}}"),
        Rename(f"{theirs}transformer.level_embed", f"{ours}level_embed"),
        *deformable(f"{layer}self_attn.", f"{mine}attn."),
        Rename(f"{layer}linear1.{{rest}}", f"{mine}up.{{rest}}"),
        Rename(f"{layer}linear2.{{rest}}", f"{mine}down.{{rest}}"),
        Rename(f"{layer}{{rest}}", f"{mine}{{rest}}"),
        Rename(f"{theirs}mask_features.{{rest}}", f"{ours}mask_features.{{rest}}"),
        Rename(f"{theirs}adapter_1.{{rest}}", f"{ours}lateral.{{rest}}"),
        Rename(f"{theirs}layer_1.{{rest}}", f"{ours}smooth.{{rest}}"),
    )


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Rename(f"{theirs}.in_proj_weight", f"{ours}.qkv.weight"),
        Rename(f"{theirs}.in_proj_bias", f"{ours}.qkv.bias"),
        Rename(f"{theirs}.out_proj.{{rest}}", f"{ours}.out.{{rest}}"),
    )


def predictor(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Transformer decoder and heads."""
    cross, own = f"{theirs}transformer_cross_attention_layers.{{i}}", f"{theirs}transformer_self_attention_layers.{{i}}"
    mlp, mine = f"{theirs}transformer_ffn_layers.{{i}}", f"{ours}layers.{{i}}"
    heads = {"mask_embed": "mask_embed", "SEG_proj": "of_sentence", "CLASS_proj": "of_class", "REGION_proj": "of_region"}
    return (
        *_attention(f"{cross}.multihead_attn", f"{mine}.cross"),
        *_attention(f"{own}.self_attn", f"{mine}.attn"),
        Rename(f"{cross}.norm.{{rest}}", f"{mine}.norm_cross.{{rest}}"),
        Rename(f"{own}.norm.{{rest}}", f"{mine}.norm_attn.{{rest}}"),
        Rename(f"{mlp}.linear1.{{rest}}", f"{mine}.up.{{rest}}"),
        Rename(f"{mlp}.linear2.{{rest}}", f"{mine}.down.{{rest}}"),
        Rename(f"{mlp}.norm.{{rest}}", f"{mine}.norm.{{rest}}"),
        Rename(f"{theirs}decoder_norm.{{rest}}", f"{ours}norm.{{rest}}"),
        Rename(f"{theirs}query_embed.weight", f"{ours}query_places.weight"),
        Rename(f"{theirs}query_feat.weight", f"{ours}query_features.weight"),
        Rename(f"{theirs}SEG_query_embed.weight", f"{ours}sentence_places.weight"),
        Rename(f"{theirs}level_embed.weight", f"{ours}level_embed.weight"),
        *(Rename(f"{theirs}{name}.{{rest}}", f"{ours}{kept}.{{rest}}") for name, kept in heads.items()),
    )


OFFICIAL: tuple[Rule, ...] = (
    Rename("seg_query", "mask_tokens"),
    *language("model.", "language."),
    head("lm_head", "language.head"),
    *swin("model.vision_tower.", "vision."),
    *projector("model.mm_projector.", "projector."),
    *pixel_decoder("pixel_decoder.", "pixel_decoder."),
    *predictor("predictor.", "predictor."),
    Rename("seg_query_projector.{rest}", "to_query.{rest}"),
    Rename("SEG_token_projector.{rest}", "to_sentence.{rest}"),
    Rename("class_name_projector.{rest}", "to_class.{rest}"),
    Rename("region_projector.{rest}", "to_region.{rest}"),
)

SAME: tuple[Rule, ...] = (Rename("{name}", "{name}"),)  # our own names

LAYOUTS: dict[str, tuple[Rule, ...]] = {"official": OFFICIAL}

"""Where the tensors of CLIP's towers lie in published checkpoints: rules that every CLIP-based family puts into its own tables.

Our names are those of `nn.clip`: ``image.*``, ``text.*``, ``logit_scale``. Imports no torch.
"""

from __future__ import annotations

from ..contracts import Rename, Rule, Split


def openai_image(theirs: str, ours: str = "image.") -> tuple[Rule, ...]:
    """OpenAI's vision transformer, found under the prefix ``theirs`` (``visual.`` in CLIP's own files)."""
    return (
        Rename(f"{theirs}class_embedding", f"{ours}class_embedding"),
        Rename(f"{theirs}positional_embedding", f"{ours}position_embedding"),
        Rename(f"{theirs}conv1.weight", f"{ours}patch_embedding.weight"),
        Rename(f"{theirs}ln_pre.{{rest}}", f"{ours}norm_pre.{{rest}}"),
        Rename(f"{theirs}ln_post.{{rest}}", f"{ours}norm_post.{{rest}}"),
        Rename(f"{theirs}proj", f"{ours}projection"),
        *_openai_blocks(f"{theirs}transformer.resblocks", f"{ours}blocks"),
    )


def openai_resnet(theirs: str, ours: str = "image.") -> tuple[Rule, ...]:
    """OpenAI's residual network, found under the prefix ``theirs``; its names are ours."""
    parts = ("conv{i}", "bn{i}", "layer{i}", "attnpool")
    return tuple(Rename(f"{theirs}{part}.{{rest}}", f"{ours}{part}.{{rest}}") for part in parts)


def openai_text(theirs: str, ours: str = "text.", logit_scale: str = "logit_scale") -> tuple[Rule, ...]:
    """OpenAI's text transformer and the similarity scale, found under the prefix ``theirs`` (empty in CLIP's own files)."""
    return (
        Rename(f"{theirs}token_embedding.weight", f"{ours}token_embedding.weight"),
        Rename(f"{theirs}positional_embedding", f"{ours}position_embedding"),
        Rename(f"{theirs}ln_final.{{rest}}", f"{ours}norm_final.{{rest}}"),
        Rename(f"{theirs}text_projection", f"{ours}projection"),
        Rename(f"{theirs}logit_scale", logit_scale),
        *_openai_blocks(f"{theirs}transformer.resblocks", f"{ours}blocks"),
    )


def hf_image(theirs: str, ours: str = "image.") -> tuple[Rule, ...]:
    """The vision tower of transformers' CLIP models, found under the prefix ``theirs``."""
    model = f"{theirs}vision_model."
    return (
        Rename(f"{model}embeddings.class_embedding", f"{ours}class_embedding"),
        Rename(f"{model}embeddings.position_embedding.weight", f"{ours}position_embedding"),
        Rename(f"{model}embeddings.patch_embedding.weight", f"{ours}patch_embedding.weight"),
        Rename(f"{model}pre_layrnorm.{{rest}}", f"{ours}norm_pre.{{rest}}"),  # their spelling
        Rename(f"{model}post_layernorm.{{rest}}", f"{ours}norm_post.{{rest}}"),
        Rename(f"{theirs}visual_projection.weight", f"{ours}projection", transpose=True),
        *hf_blocks(f"{model}encoder.layers", f"{ours}blocks"),
    )


def hf_text(theirs: str, ours: str = "text.", logit_scale: str = "logit_scale") -> tuple[Rule, ...]:
    """The text tower and similarity scale of transformers' CLIP models, found under the prefix ``theirs``."""
    model = f"{theirs}text_model."
    return (
        Rename(f"{model}embeddings.token_embedding.weight", f"{ours}token_embedding.weight"),
        Rename(f"{model}embeddings.position_embedding.weight", f"{ours}position_embedding"),
        Rename(f"{model}final_layer_norm.{{rest}}", f"{ours}norm_final.{{rest}}"),
        Rename(f"{theirs}text_projection.weight", f"{ours}projection", transpose=True),
        Rename(f"{theirs}logit_scale", logit_scale),
        *hf_blocks(f"{model}encoder.layers", f"{ours}blocks"),
    )


def hf_blocks(theirs: str, ours: str) -> tuple[Rule, ...]:
    """Transformer blocks as transformers names them: separate query, key and value projections."""
    their, our = f"{theirs}.{{i}}.", f"{ours}.{{i}}."
    queries_keys_values = tuple(f"{their}self_attn.{part}_proj.{{rest}}" for part in "qkv")
    return (
        Split(queries_keys_values, f"{our}attn.qkv.{{rest}}"),
        Rename(f"{their}self_attn.out_proj.{{rest}}", f"{our}attn.out.{{rest}}"),
        Rename(f"{their}layer_norm{{j}}.{{rest}}", f"{our}norm{{j}}.{{rest}}"),
        Rename(f"{their}mlp.fc1.{{rest}}", f"{our}mlp.up.{{rest}}"),
        Rename(f"{their}mlp.fc2.{{rest}}", f"{our}mlp.down.{{rest}}"),
    )


def _openai_blocks(theirs: str, ours: str) -> tuple[Rule, ...]:
    their, our = f"{theirs}.{{i}}.", f"{ours}.{{i}}."
    return (
        Rename(f"{their}attn.in_proj_{{rest}}", f"{our}attn.qkv.{{rest}}"),
        Rename(f"{their}attn.out_proj.{{rest}}", f"{our}attn.out.{{rest}}"),
        Rename(f"{their}ln_{{j}}.{{rest}}", f"{our}norm{{j}}.{{rest}}"),
        Rename(f"{their}mlp.c_fc.{{rest}}", f"{our}mlp.up.{{rest}}"),
        Rename(f"{their}mlp.c_proj.{{rest}}", f"{our}mlp.down.{{rest}}"),
    )

"""Where the tensors of `nn.vit` lie in published files: vision transformers that CLIP did not train. Imports no torch."""

from __future__ import annotations

from ..contracts import Rename, Rule, Split


def timm_vit(theirs: str = "", ours: str = "") -> tuple[Rule, ...]:
    """timm's names, which DeiT, DINO and MoCo v3 have in their authors' files, below the prefix ``theirs``."""
    block, layer = f"{theirs}blocks.{{i}}", f"{ours}layers.{{i}}"
    return (
        Rename(f"{theirs}cls_token", f"{ours}class_token"),
        Rename(f"{theirs}pos_embed", f"{ours}position_table"),
        Rename(f"{theirs}patch_embed.proj.{{rest}}", f"{ours}patches.{{rest}}"),
        Rename(f"{block}.norm{{j}}.{{rest}}", f"{layer}.norm{{j}}.{{rest}}"),
        Rename(f"{block}.attn.qkv.{{rest}}", f"{layer}.attn.qkv.{{rest}}"),
        Rename(f"{block}.attn.proj.{{rest}}", f"{layer}.attn.out.{{rest}}"),
        Rename(f"{block}.mlp.fc1.{{rest}}", f"{layer}.mlp.up.{{rest}}"),
        Rename(f"{block}.mlp.fc2.{{rest}}", f"{layer}.mlp.down.{{rest}}"),
        Rename(f"{theirs}norm.{{rest}}", f"{ours}norm.{{rest}}"),
    )


def hf_vit(theirs: str = "", ours: str = "") -> tuple[Rule, ...]:
    """The names of transformers' ViT in its files, below the prefix ``theirs``."""
    block, layer = f"{theirs}encoder.layer.{{i}}", f"{ours}layers.{{i}}"
    return (
        Rename(f"{theirs}embeddings.cls_token", f"{ours}class_token"),
        Rename(f"{theirs}embeddings.position_embeddings", f"{ours}position_table"),
        Rename(f"{theirs}embeddings.patch_embeddings.projection.{{rest}}", f"{ours}patches.{{rest}}"),
        Split(tuple(f"{block}.attention.attention.{part}.{{rest}}" for part in ("query", "key", "value")), f"{layer}.attn.qkv.{{rest}}"),
        Rename(f"{block}.attention.output.dense.{{rest}}", f"{layer}.attn.out.{{rest}}"),
        Rename(f"{block}.intermediate.dense.{{rest}}", f"{layer}.mlp.up.{{rest}}"),
        Rename(f"{block}.output.dense.{{rest}}", f"{layer}.mlp.down.{{rest}}"),
        Rename(f"{block}.layernorm_before.{{rest}}", f"{layer}.norm1.{{rest}}"),
        Rename(f"{block}.layernorm_after.{{rest}}", f"{layer}.norm2.{{rest}}"),
        Rename(f"{theirs}layernorm.{{rest}}", f"{ours}norm.{{rest}}"),
    )

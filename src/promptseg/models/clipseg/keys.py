"""How the tensors of published CLIPSeg checkpoints (`weights.zip` of the repository, CIDAS on the Hub) map to ours.

``official`` is the state dict of the published class, with CLIP inside it. ``files`` is what people have instead: a decoder file and CLIP's
own file. ``hf`` is transformers' `CLIPSegForImageSegmentation`. Nobody published weights of the baselines CLIP-Deconv and ViTSeg; their
names are those that the published classes give.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...contracts import Drop, Rename, Rule
from ...nn.clip_keys import hf_blocks, hf_image, hf_text, openai_image, openai_text
from ...nn.vit_keys import timm_vit

_DEAD_REDUCE = Drop("reduce.{rest}", reason="defined by the base class, never used by CLIPSeg's published forward pass")


def _decoder_blocks(blocks: str) -> tuple[Rule, ...]:
    """torch's `TransformerEncoderLayer` under the name ``blocks`` or ``extra_blocks``."""
    theirs, ours = f"{blocks}.{{i}}.", f"decoder.{blocks}.{{i}}."
    return (
        Rename(f"{theirs}self_attn.in_proj_{{rest}}", f"{ours}attn.qkv.{{rest}}"),
        Rename(f"{theirs}self_attn.out_proj.{{rest}}", f"{ours}attn.out.{{rest}}"),
        Rename(f"{theirs}norm{{j}}.{{rest}}", f"{ours}norm{{j}}.{{rest}}"),
        Rename(f"{theirs}linear1.{{rest}}", f"{ours}mlp.up.{{rest}}"),
        Rename(f"{theirs}linear2.{{rest}}", f"{ours}mlp.down.{{rest}}"),
    )


DECODER: tuple[Rule, ...] = (
    Rename("film_mul.{rest}", "decoder.film_mul.{rest}"),
    Rename("film_add.{rest}", "decoder.film_add.{rest}"),
    _DEAD_REDUCE,
    Rename("trans_conv.{rest}", "decoder.head.{rest}"),
    Rename("reduces.{i}.{rest}", "decoder.reduces.{i}.{rest}"),
    *_decoder_blocks("blocks"),
    *_decoder_blocks("extra_blocks"),
    Rename("reduce_cond.{rest}", "decoder.reduce_cond.{rest}"),
    Rename("shift_vector", "decoder.shift_vector"),
    # CLIP-Deconv; its parameters claim the names that are dropped above where it is the network to be filled
    Rename("reduce.{rest}", "decoder.reduction.{rest}"),
    Rename("reduce2.0.{rest}", "decoder.mlp.up.{rest}"),
    Rename("reduce2.2.{rest}", "decoder.mlp.down.{rest}"),
)

# timm's vision transformer, the image tower of ViTSeg.
VIT: tuple[Rule, ...] = (*timm_vit("model.", "image."), Rename("model.head.{rest}", "image.head.{rest}"))

CLIP_FILE: tuple[Rule, ...] = (
    *openai_image("visual."),
    *openai_text(""),
    *(
        Drop(name, reason="a scalar of CLIP's TorchScript archive that its own loader deletes")
        for name in ("input_resolution", "context_length", "vocab_size")
    ),
)


def _hf_clip(prefix: str) -> tuple[Rule, ...]:
    """transformers' `CLIPModel`."""
    counting = "0, 1, 2, ..., written by older versions of transformers"
    return (
        *hf_image(prefix),
        *hf_text(prefix),
        Drop(f"{prefix}text_model.embeddings.position_ids", counting),
        Drop(f"{prefix}vision_model.embeddings.position_ids", counting),
    )


HF: tuple[Rule, ...] = (
    *_hf_clip("clip."),
    Rename("decoder.film_mul.{rest}", "decoder.film_mul.{rest}"),
    Rename("decoder.film_add.{rest}", "decoder.film_add.{rest}"),
    Rename("decoder.reduces.{i}.{rest}", "decoder.reduces.{i}.{rest}"),
    Rename("decoder.transposed_convolution.{rest}", "decoder.head.{rest}"),
    *hf_blocks("decoder.layers", "decoder.blocks"),
)

LAYOUTS: Mapping[str, tuple[Rule, ...]] = {
    "official": (
        *openai_image("model."),
        *openai_text("clip_model."),
        *(
            Drop(rule.theirs.replace("model.", "clip_model.visual.", 1), "the image tower, registered a second time", same_as=rule.theirs)
            for rule in openai_image("model.")
            if isinstance(rule, Rename)
        ),
        *VIT,
        *DECODER,
    ),
    "files": (*CLIP_FILE, *DECODER),
    "hf": HF,
}

# The two files of "files", each alone: what `zoo.to_official` writes of a network.
PARTS: Mapping[str, tuple[Rule, ...]] = {"decoder": DECODER, "clip": CLIP_FILE}

# timm's own file of ViTSeg's tower.
_VIT_FILE: tuple[Rule, ...] = (
    Drop("head.{rest}", "the classes of ImageNet; ViTSeg has a random projection in their place"),
    *(Rename(rule.theirs.removeprefix("model."), rule.ours) for rule in VIT if isinstance(rule, Rename)),
)
_UNUSED = "CLIP's image tower, which ViTSeg does without"  # a network that needs it claims its names all the same

# What training starts from: the towers alone, as CLIP and timm published them.
TOWERS: Mapping[str, tuple[Rule, ...]] = {
    "openai": (Drop("visual.{rest}", _UNUSED), *CLIP_FILE, *_VIT_FILE),
    "hf": (Drop("vision_model.{rest}", _UNUSED), Drop("visual_projection.{rest}", _UNUSED), *_hf_clip(""), *_VIT_FILE),
}

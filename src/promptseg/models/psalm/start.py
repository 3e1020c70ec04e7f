"""What joint training starts from: Phi-1.5, a panoptic Mask2Former with Swin-B, and the projector of stage 1, each in its own file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...contracts import Absent, Drop, Rename, Rule
from ...errors import WeightsError
from ...nn.conversion import from_official, shapes_of
from ...zoo import read_weights
from . import keys
from .model import Model

__all__ = ["MASK2FORMER", "load_language", "load_masks", "load_projector", "start"]

_PIXELS, _PREDICTOR = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
_NO_BIAS = "its convolutions have none, PSALM's begin with 0"

# Published Mask2Former (maskformer2_swin_base_IN21k_384_bs16_50ep, COCO panoptic) -> image encoder, pixel decoder and decoder.
MASK2FORMER: tuple[Rule, ...] = (
    Drop(f"{_PREDICTOR}class_embed.{{rest}}", reason="PSALM has no learned classifier"),
    Drop("criterion.empty_weight", reason="the weight of no object, a constant"),
    Rename(f"{_PREDICTOR}static_query.weight", "predictor.query_features.weight"),
    Rename(f"{_PIXELS}adapter_1.weight", "pixel_decoder.lateral.0.weight"),
    Rename(f"{_PIXELS}adapter_1.norm.{{rest}}", "pixel_decoder.lateral.1.{rest}"),
    Rename(f"{_PIXELS}layer_1.weight", "pixel_decoder.smooth.0.weight"),
    Rename(f"{_PIXELS}layer_1.norm.{{rest}}", "pixel_decoder.smooth.1.{rest}"),
    Absent("pixel_decoder.lateral.0.bias", 0.0, reason=_NO_BIAS),
    Absent("pixel_decoder.smooth.0.bias", 0.0, reason=_NO_BIAS),
    *keys.swin("backbone.", "vision."),
    *keys.pixel_decoder(_PIXELS, "pixel_decoder."),
    *keys.predictor(_PREDICTOR, "predictor."),
)
_MADE_OF = ("vision.", "pixel_decoder.", "predictor.")
_NEW = ("predictor.sentence_places.", "predictor.of_sentence.", "predictor.of_class.", "predictor.of_region.")  # begin at random

PHI: tuple[Rule, ...] = (
    Drop("lm_head.bias", reason="PSALM's head has none"),
    Drop("{rest}.rotary_emb.inv_freq", reason="computed"),
    *keys.language("model.", "language."),
    keys.head("lm_head", "language.head"),
)


def start(model: Model, language: Sequence[str] = (), masks: str | None = None, projector: str | None = None) -> None:
    """Fill the parts of a network whose files are given, in place; the others stay as they are.

    Raises:
        WeightsError: a file is another model's, or of another size.
    """
    if language:
        load_language(model, {name: tensor for file in language for name, tensor in read_weights(file).items()})
    if masks is not None:
        load_masks(model, read_weights(masks))
    if projector is not None:
        load_projector(model, read_weights(projector))


def load_language(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Phi-1.5 as transformers stores it, queries, keys and values fused or separate; rows of tokens that PSALM lacks are left out."""
    expected = {name: shape for name, shape in shapes_of(model).items() if name.startswith("language.")}
    rows = model.config.language.vocabulary
    theirs = {
        name: tensor[:rows] if name in ("model.embed_tokens.weight", "lm_head.weight") else tensor for name, tensor in tensors.items()
    }
    theirs = _fused(theirs, model.config.language.heads)
    _fill(model, from_official(PHI, theirs, expected))


def _fused(tensors: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Separate projections put together, rows ordered (head, {q, k, v}, dimension)."""
    result = dict(tensors)
    for name in [name for name in tensors if ".self_attn.q_proj." in name]:
        names = [name.replace(".q_proj.", f".{kind}_proj.") for kind in "qkv"]
        if not set(names) <= result.keys():
            continue
        parts = [result.pop(one) for one in names]
        stacked = torch.stack([part.reshape(heads, -1, *part.shape[1:]) for part in parts], 1)
        result[name.replace(".q_proj.", ".query_key_value.")] = stacked.flatten(0, 2)
    return result


def load_masks(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """A Mask2Former whose queries are as many as ours, or more, of which the first are taken."""
    named = {name: shape for name, shape in shapes_of(model).items() if name.startswith(_MADE_OF)}
    expected = {name: shape for name, shape in named.items() if not name.startswith(_NEW)}
    theirs = dict(tensors)
    for name in ("query_embed", "query_feat", "static_query"):
        if (key := f"{_PREDICTOR}{name}.weight") in theirs:
            theirs[key] = theirs[key][: model.config.masks.queries]
    rules = tuple(rule for rule in MASK2FORMER if not _renames_features(rule) or _has_static(theirs) == ("static_query" in _theirs(rule)))
    _fill(model, from_official(rules, theirs, expected))


def _theirs(rule: Rule) -> str:
    return rule.theirs if isinstance(rule, Rename) else ""


def _renames_features(rule: Rule) -> bool:
    """Older files call the table of queries otherwise."""
    return isinstance(rule, Rename) and rule.ours == "predictor.query_features.weight"


def _has_static(tensors: Mapping[str, Tensor]) -> bool:
    return f"{_PREDICTOR}static_query.weight" in tensors


def load_projector(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """The projector of an aligned network: out of our own file, or as stage 1 publishes it, without statistics, which start afresh."""
    expected = {name: shape for name, shape in shapes_of(model).items() if name.startswith("projector.")}
    ours = {name: tensor for name, tensor in tensors.items() if name.startswith("projector.")}
    if not ours:
        learned = {name: shape for name, shape in expected.items() if "running_" not in name}
        theirs = {name: tensor for name, tensor in tensors.items() if "running_" not in name}
        ours = from_official(keys.projector("model.mm_projector.", "projector."), theirs, learned)
    elif missing := sorted(expected.keys() - ours.keys()):
        raise WeightsError(f"The file has no {', '.join(missing[:5])}; give the model.safetensors that stage 1 wrote.", missing=missing)
    _fill(model, ours)


def _fill(model: Model, tensors: Mapping[str, Tensor]) -> None:
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)

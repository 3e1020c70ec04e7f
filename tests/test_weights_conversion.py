"""Published checkpoints to our names and back: every tensor accounted for, bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from promptseg import zoo
from promptseg.contracts import Drop, Rename, Split
from promptseg.errors import ConfigError, WeightsError
from promptseg.models.clipseg.config import ClipSegConfig
from promptseg.models.clipseg.keys import LAYOUTS
from promptseg.models.clipseg.network import Model
from promptseg.nn import conversion
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from small_clipseg import SMALL
from small_clipseg import model as small

GOLDEN = Path(__file__).parent / "golden"
DECODERS = {"clipseg-rd64": "rd64-uni", "clipseg-rd16": "rd16-uni", "clipseg-rd64-refined": "rd64-uni-refined"}


def inventory(family: str, name: str) -> dict[str, Tensor]:
    """All tensors of a published file at full size, each a single stored zero."""
    entries = json.loads((GOLDEN / family / f"inventory_{name}.json").read_text(encoding="utf-8"))["tensors"]
    return {entry["name"]: torch.zeros(()).expand(entry["shape"]) for entry in entries}


def copies(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in theirs.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("card", DECODERS)
def test_every_published_name_is_used_or_dropped_for_a_reason(card: str) -> None:
    with torch.device("meta"):
        expected = conversion.shapes_of(Model(zoo.config(card)))
    decoder, clip = inventory("clipseg", DECODERS[card]), inventory("clip", "ViT-B-16")
    without_dead = {name: tensor for name, tensor in decoder.items() if not name.startswith("reduce.")}
    assert len(without_dead) == len(decoder) - 2
    for layout, theirs in {
        "official": inventory("clipseg", f"{DECODERS[card]}_full_state_dict"),
        "files": decoder | clip,
        "files without the dead layer": without_dead | clip,
    }.items():
        rules = LAYOUTS[layout.split()[0]]
        assert conversion.detect(LAYOUTS, theirs, expected) == layout.split()[0]
        ours = conversion.from_official(rules, theirs, expected)
        assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == expected
        back = conversion.to_official(rules, ours)
        dropped = {name for rule in rules if isinstance(rule, Drop) and rule.reason for name in theirs if name not in back}
        assert dropped <= {"reduce.weight", "reduce.bias"}
        assert {name: tensor.shape for name, tensor in back.items()} == {name: t.shape for name, t in theirs.items() if name in back}


@pytest.mark.parametrize("card", DECODERS)
def test_the_card_counts_the_parameters_of_its_network(card: str) -> None:
    with torch.device("meta"):
        model = Model(zoo.config(card))
    assert zoo.card(card).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("layout", ["official", "files", "hf"])
@pytest.mark.parametrize("card", DECODERS)
def test_there_and_back_is_bit_exact(card: str, layout: str) -> None:
    model = small(card)
    theirs = copies(zoo.to_official(model, layout))
    again = Model.from_official(model.config, theirs)
    assert same(again.state_dict(), model.state_dict())
    assert same(zoo.to_official(again, layout), theirs)
    assert not again.training


@pytest.mark.parametrize(
    "changes", [{"reduce_cond": 12}, {"fix_shift": True}, {"extra_blocks": 2}, {"cond_layer": 1, "taps": (1, 3)}], ids=str
)
def test_published_variants_come_and_go_under_their_official_names(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Model(replace(zoo.config("clipseg-rd64"), **(SMALL | changes)))
    theirs = zoo.to_official(model, "official")
    assert same(Model.from_official(model.config, theirs).state_dict(), model.state_dict())
    if "extra_blocks" in changes:
        assert "extra_blocks.1.self_attn.in_proj_weight" in theirs
        with pytest.raises(WeightsError, match=r"decoder\.extra_blocks\.0"):
            zoo.to_official(model, "hf")


def test_two_files_in_any_order_and_their_parts() -> None:
    model = small()
    decoder, clip = zoo.to_official(model, "decoder"), zoo.to_official(model, "clip")
    assert not decoder.keys() & clip.keys()
    assert clip.keys() >= {"visual.conv1.weight", "token_embedding.weight", "logit_scale"}
    scalars = {"input_resolution": torch.tensor(224), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}
    for files in ((decoder, clip), (clip | scalars, decoder)):
        assert same(Model.from_official(model.config, *files).state_dict(), model.state_dict())


def test_copies_share_memory_and_the_one_that_is_read_decides() -> None:
    model = small()
    theirs = zoo.to_official(model, "official")
    assert theirs["clip_model.visual.proj"].data_ptr() == theirs["model.proj"].data_ptr()
    differing = theirs | {"clip_model.visual.proj": torch.zeros_like(theirs["model.proj"])}
    with pytest.warns(UserWarning, match=r"clip_model\.visual\.proj"):
        again = Model.from_official(model.config, differing)
    assert torch.equal(again.image.projection, model.image.projection)


@pytest.mark.parametrize("layout", ["official", "hf"])
def test_one_tensor_more_less_or_of_another_shape_is_named(layout: str) -> None:
    model = small()
    theirs = zoo.to_official(model, layout)
    name = "film_mul.weight" if layout == "official" else "decoder.layers.1.self_attn.k_proj.bias"
    with pytest.raises(WeightsError, match="brand_new") as caught:
        Model.from_official(model.config, theirs | {"decoder.brand_new": torch.zeros(1)})
    assert caught.value.unexpected == ("decoder.brand_new",)
    with pytest.raises(WeightsError) as caught:
        Model.from_official(model.config, {key: value for key, value in theirs.items() if key != name})
    assert caught.value.missing == (name,)
    with pytest.raises(WeightsError) as caught:
        Model.from_official(model.config, theirs | {name: torch.zeros(3, 5)})
    shape = tuple(theirs[name].shape)
    assert caught.value.misshaped == (f"{name} (3, 5) instead of {shape}",)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    model = small()
    theirs = copies(zoo.to_official(model, "official"))
    theirs["trans_conv.bias"][0] = value
    with pytest.raises(WeightsError, match=r"trans_conv\.bias"):
        Model.from_official(model.config, theirs)


def test_files_that_contradict_each_other_are_refused() -> None:
    model = small()
    decoder, clip = zoo.to_official(model, "decoder"), zoo.to_official(model, "clip")
    with pytest.raises(WeightsError, match=r"film_add\.bias"):
        Model.from_official(model.config, decoder, clip, {"film_add.bias": torch.ones(8)})


def test_half_precision_files_give_a_float32_network() -> None:
    model = small()
    theirs = {name: tensor.half() for name, tensor in zoo.to_official(model, "files").items()}
    again = Model.from_official(model.config, theirs)
    assert all(torch.equal(again.state_dict()[name], tensor.half().float()) for name, tensor in model.state_dict().items())


def test_an_unknown_layout_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="official, files, hf, decoder, clip"):
        zoo.to_official(small(), "keras")


@pytest.mark.parametrize("card", DECODERS)
def test_hugging_face_names_and_values_are_transformers_own(card: str) -> None:
    model = small(card)
    theirs = transformers_model(model.config)
    state = theirs.state_dict()
    again = Model.from_official(model.config, state)
    assert same(zoo.to_official(again, "hf"), state)
    positions = {f"clip.{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}  # older files
    assert same(Model.from_official(model.config, state | positions).state_dict(), again.state_dict())


def transformers_model(config: ClipSegConfig) -> Any:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    def tower(part: ClipVisionConfig | ClipTextConfig) -> dict[str, Any]:
        return {
            "hidden_size": part.width,
            "intermediate_size": 4 * part.width,
            "num_hidden_layers": part.layers,
            "num_attention_heads": part.heads,
        }

    torch.manual_seed(1)
    settings = CLIPSegConfig(
        vision_config=tower(config.image) | {"patch_size": config.image.patch, "image_size": config.image.patch * config.image.grid},
        text_config=tower(config.text),
        projection_dim=config.image.embed,
        extract_layers=list(config.taps),
        reduce_dim=config.reduce_dim,
        decoder_num_attention_heads=config.heads,
        decoder_intermediate_size=config.hidden,
        use_complex_transposed_convolution=config.refined,
    )
    return CLIPSegForImageSegmentation(settings)


# --- the machinery, by itself -----------------------------------------------------------------------------------------------------------

TABLE = (
    Rename("stem.{rest}", "first.{rest}"),
    Split(("layers.{i}.q.{rest}", "layers.{i}.k.{rest}", "layers.{i}.v.{rest}"), "blocks.{i}.qkv.{rest}"),
    Rename("layers.{i}.norm{j}", "blocks.{i}.norms.{j}"),
    Rename("out", "projection", transpose=True),
    Drop("mask.{i}", reason="recomputed"),
    Drop("twin.{rest}", reason="stored twice", same_as="stem.{rest}"),
)


def table_weights() -> dict[str, Tensor]:
    parts = {
        f"layers.{i}.{part}.{kind}": torch.randn(2, *[3] * (kind == "weight"))
        for i in (0, 11)
        for part in "qkv"
        for kind in ("weight", "bias")
    }
    norms = {f"layers.{i}.norm{j}": torch.randn(3) for i in (0, 11) for j in (1, 2)}
    stem = {"stem.weight": torch.randn(3), "stem.deep.er": torch.randn(4)}
    return (
        parts
        | norms
        | stem
        | {"out": torch.randn(3, 7), "mask.3": torch.zeros(1), "twin.weight": stem["stem.weight"], "twin.deep.er": stem["stem.deep.er"]}
    )


def test_rules_rename_split_transpose_and_copy_both_ways() -> None:
    theirs = table_weights()
    expected = {"first.weight": (3,), "first.deep.er": (4,), "projection": (7, 3)}
    for i in (0, 11):
        expected |= {
            f"blocks.{i}.qkv.weight": (6, 3),
            f"blocks.{i}.qkv.bias": (6,),
            f"blocks.{i}.norms.1": (3,),
            f"blocks.{i}.norms.2": (3,),
        }
    ours = conversion.from_official(TABLE, theirs, expected)
    assert torch.equal(ours["blocks.11.qkv.bias"], torch.cat([theirs[f"layers.11.{part}.bias"] for part in "qkv"]))
    assert torch.equal(ours["projection"], theirs["out"].T)
    back = conversion.to_official(TABLE, ours)
    assert same(back, {name: tensor for name, tensor in theirs.items() if name != "mask.3"})


def test_a_parameter_without_a_rule_is_reported_under_our_name() -> None:
    with pytest.raises(WeightsError, match="brand_new"):
        conversion.from_official(TABLE, {"stem.weight": torch.zeros(3)}, {"first.weight": (3,), "brand_new": (1,)})
    with pytest.raises(WeightsError, match="brand_new"):
        conversion.to_official(TABLE, {"brand_new": torch.zeros(1)})

"""CAT-Seg: every published tensor has its place, classes are refined in any order and number, and each part learns as it should."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from promptseg import zoo
from promptseg.contracts import PromptFeatures, Recipe
from promptseg.errors import ConfigError, PromptError, WeightsError
from promptseg.models.catseg import LAYOUTS, CatSegConfig, Model
from promptseg.models.catseg.aggregation import ABSENT, CatSegImage
from promptseg.models.catseg.recipes import groups
from promptseg.models.catseg.tuning import learning, tune
from promptseg.nn import conversion
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.prompts import Box, Text
from promptseg.training.groups import arrange

GOLDEN = Path(__file__).parent / "golden" / "catseg"
INVENTORIES = {"catseg-base": "inventory_vitb_384", "catseg-large": "inventory_vitl_336"}
TINY = CatSegConfig(
    image=ClipVisionConfig(width=16, layers=4, heads=2, patch=8, grid=4, embed=8),
    text=ClipTextConfig(width=16, layers=1, heads=2, embed=8),
    side=64, taps=(0, 1), hidden=32, window=4, text_guidance=4, image_guidance=4, decoder=(32, 16), tapped=(8, 4), decoder_guidance=(8, 4),
    heads=2, pad_classes=24,
)  # fmt: skip


def build(**changes: Any) -> Model:
    """A tiny network whose weights are not near zero."""
    torch.manual_seed(0)
    model = Model(replace(TINY, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    return model.eval()


def image(model: Model, seed: int = 0) -> CatSegImage:
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.encode_image(torch.randn(1, 3, 64, 64))


def conditions(count: int) -> PromptFeatures:
    torch.manual_seed(1)
    return PromptFeatures(tuple(Text(f"thing {index}") for index in range(count)), torch.randn(count, TINY.text.embed))


def logits(model: Model, count: int, **options: Any) -> Tensor:
    with torch.no_grad():
        return model.decode(image(model), conditions(count), **options).logits[0]


@pytest.fixture(scope="module")
def model() -> Model:
    return build()


def published(card: str) -> dict[str, Tensor]:
    entries = json.loads((GOLDEN / f"{INVENTORIES[card]}.json").read_text(encoding="utf-8"))["entries"]
    return {entry["name"]: torch.zeros(()).expand(entry["shape"]) for entry in entries}


@pytest.mark.parametrize("card", INVENTORIES)
def test_every_published_name_has_its_place(card: str) -> None:
    with torch.device("meta"):
        full = Model(zoo.config(card))
    theirs, expected = published(card), conversion.shapes_of(full)
    ours = conversion.from_official(LAYOUTS["official"], theirs, expected)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == expected
    back = conversion.to_official(LAYOUTS["official"], ours)
    assert {name for name in theirs if name not in back} == {name for name in theirs if name.endswith("attn_mask")}
    assert all(back[name].shape == theirs[name].shape for name in back)
    assert zoo.card(card).parameters == sum(parameter.numel() for parameter in full.parameters())
    with pytest.raises(WeightsError, match="upsample1"):
        conversion.from_official(LAYOUTS["official"], {name: theirs[name] for name in theirs if name != "upsample1.weight"}, expected)


@pytest.mark.parametrize("card", INVENTORIES)
def test_a_checkpoint_of_another_structure_is_refused(card: str) -> None:
    """Before the CVPR version a backbone of its own guided the decoder, not CLIP's blocks; the two sizes differ in nearly every shape."""
    with torch.device("meta"):
        expected = conversion.shapes_of(Model(zoo.config(card)))
    theirs, (other,) = published(card), [name for name in INVENTORIES if name != card]
    older = {name: tensor for name, tensor in theirs.items() if not name.startswith("upsample")}
    older["backbone.res2.0.conv1.weight"] = torch.zeros(())
    with pytest.raises(WeightsError, match="4 missing: upsample1") as refused:
        conversion.from_official(LAYOUTS["official"], older, expected)
    assert refused.value.unexpected == ("backbone.res2.0.conv1.weight",)
    with pytest.raises(WeightsError, match="of another shape") as mixed:
        conversion.from_official(LAYOUTS["official"], published(other), expected)
    assert any("clip_model.visual.positional_embedding" in text for text in mixed.value.misshaped)


def test_there_and_back_is_bit_exact(model: Model) -> None:
    theirs = zoo.to_official(model)
    again = Model.from_official(TINY, theirs).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_training_counts_as_published() -> None:
    """The published files' mode lets so many numbers learn; sums are in the inventories."""
    for card, count in (("catseg-base", 25_115_873), ("catseg-large", 70_270_177)):
        with torch.device("meta"):
            full = Model(zoo.config(card))
        tune(full, "query-value")
        assert learning(full) == count


@pytest.mark.parametrize(("card", "table"), [("catseg-base", "param_groups_vitb_384"), ("catseg-large", "param_groups_vitl_336")])
def test_groups_are_the_published_ones(card: str, table: str) -> None:
    with torch.device("meta"):
        full = Model(zoo.config(card))
    tune(full, "query-value")
    recipe = Recipe(name="r", card="c", data="", output="", steps=1, batch_size=1, lr=2e-4, weight_decay=1e-4, groups=groups("query-value"))
    found: dict[str, tuple[float, float]] = {}
    for group in arrange(full, recipe):
        tensors = {name: torch.empty(0) for name in group.names}
        named = conversion.to_official(LAYOUTS["official"], {name: torch.zeros(3) if "qkv" in name else tensors[name] for name in tensors})
        found |= {name: (group.lr, group.weight_decay) for name in named if "k_proj" not in name}
    wanted = json.loads((GOLDEN / f"{table}.json").read_text(encoding="utf-8"))
    listed = next(value for value in wanted.values() if isinstance(value, list))
    expected = {name: (group["lr"], group["weight_decay"]) for group in listed for name in group["names"]}
    assert found.keys() == expected.keys()
    assert all(found[name] == pytest.approx(expected[name]) for name in found)


@pytest.mark.parametrize("mode", ["frozen", "prompt", "attention", "query-value", "full"])
def test_modes_of_fine_tuning(mode: Any) -> None:
    net = build(visual_prompts=(2, 3))
    tune(net.train(), mode)
    torch.manual_seed(0)
    features = net.encode_prompts([Text("cat"), Text("dog")])
    net.decode(net.encode_image(torch.randn(1, 3, 64, 64)), features).logits.square().mean().backward()
    learned = {name for name, parameter in net.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    clip = {name for name in learned if not name.startswith(("aggregator.", "upsample"))}
    assert "aggregator.embed.weight" in learned
    assert not any("embedding" in name or "projection" in name for name in clip)
    assert ("image_prompts" in clip) is (mode == "prompt")
    assert ("text.blocks.0.mlp.up.weight" in clip) is (mode == "full")
    assert ("text.blocks.0.attn.out.weight" in clip) is (mode in ("attention", "full"))
    if mode == "query-value":
        assert clip
        assert all(name.endswith("attn.qkv.weight") for name in clip)
        queries, keys, _ = net.text.blocks[0].attn.qkv.weight.grad.chunk(3)
        assert queries.abs().sum() > 0
        assert not keys.any()


def test_no_prompt_tokens_no_such_mode(model: Model) -> None:
    with pytest.raises(ConfigError, match="visual_prompts"):
        tune(model, "prompt")
    with pytest.raises(ConfigError, match="query-value"):
        tune(model, "everything")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 5, 24, 40])
@pytest.mark.parametrize("attention", ["linear", "full"])
def test_permuting_the_classes_permutes_the_answer(count: int, attention: Any) -> None:
    net, order = build(attention=attention), torch.randperm(count, generator=torch.Generator().manual_seed(2))
    asked = conditions(count)
    permuted = PromptFeatures(tuple(asked.prompts[index] for index in order), asked.condition[order])
    with torch.no_grad():
        straight = net.decode(image(net), asked).logits
        crooked = net.decode(image(net), permuted).logits
    assert torch.allclose(straight[:, order], crooked, rtol=1e-4, atol=1e-4 * float(straight.abs().max()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": 2},
        {"text_guidance": 0, "image_guidance": 0, "decoder_guidance": (0, 0)},
        {"decoder_guidance": (8, 0)},
        {"decoder_guidance": (0, 4)},
        {"spatial": False},
        {"classes": False},
        {"decoder": (), "decoder_guidance": (0, 0)},
    ],
    ids=lambda changes: "+".join(f"{name}={value}" for name, value in changes.items()) or "published",
)
def test_parts_without_gradients_equal_the_whole_with_them(changes: dict[str, Any]) -> None:
    """Bounded parts, both convolutions as one, the padding counted: the same numbers as the plain way, for few classes and many."""
    net = build(**changes)
    seen = image(net)
    for count in (1, 20, 40):
        whole = net.decode(seen, conditions(count)).logits[0].detach()
        assert torch.allclose(logits(net, count), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("count", [1000, 5000])
def test_thousands_of_classes(model: Model, count: int) -> None:
    found = logits(model, count)
    assert found.shape == (count, 32, 32)
    assert found.isfinite().all()
    assert (found > ABSENT).all()


def test_what_inference_keeps_may_be_trained_with() -> None:
    for attention in ("linear", "full"):
        net = build(attention=attention, window=2, heads=4)
        with torch.inference_mode():
            net.decode(net.encode_image(torch.zeros(1, 3, 64, 64)), conditions(3))
        net.decode(net.encode_image(torch.zeros(1, 3, 64, 64)), conditions(3)).logits.sum().backward()
        assert net.aggregator.embed.weight.grad is not None


def test_no_classes(model: Model) -> None:
    assert logits(model, 0).shape == (0, 32, 32)
    coarse = build(decoder=(), decoder_guidance=(0, 0))
    assert logits(coarse, 0).shape == (0, 8, 8)
    assert logits(coarse, 2).shape == (2, 8, 8)


def test_classes_left_out(model: Model) -> None:
    everything = logits(model, 40)
    assert torch.equal(logits(model, 40, max_classes=40), everything)
    cut, chosen = logits(model, 40, truncate=True), logits(model, 40, max_classes=24)
    assert torch.equal(cut, chosen)
    kept = (cut > ABSENT).flatten(1).any(1)
    assert int(kept.sum()) == TINY.pad_classes
    assert (cut[~kept] == ABSENT).all()
    assert torch.equal(logits(model, 20, truncate=True), logits(model, 20))


def test_wordings(model: Model) -> None:
    with torch.no_grad():
        plain, said = model.encode_prompts([Text("cat"), Text("cat", ("A photo of a {} in the scene",))]).condition
        mean = model.encode_prompts([Text("cat", ("a {}", "the {}"))]).condition[0]
        each = model.encode_prompts([Text("cat", ("a {}",)), Text("cat", ("the {}",))]).condition
    assert torch.equal(plain, said)
    assert torch.allclose(mean, torch.nn.functional.normalize(each.mean(0), dim=0), atol=1e-6)
    with pytest.raises(PromptError, match="takes texts"):
        model.encode_prompts([Box(0, 0, 1, 1)])
    with pytest.raises(PromptError, match="2 wordings"):
        build(prompts=2).encode_prompts([Text("cat")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 60}, "multiple of the patch"),
        ({"taps": (1, 3)}, "rising"),
        ({"heads": 3}, "heads"),
        ({"attention": "none"}, "linear"),
        ({"pooling": 0}, "at least 1"),
        ({"decoder": (20, 10)}, "16"),
        ({"decoder": (32,)}, "two stages, or none"),
        ({"decoder": ()}, "decoder_guidance \\(0, 0\\)"),
    ],
)
def test_impossible_networks(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)

"""The CLIPSeg network: variants, sharing between prompts, and parity with transformers from one random state dict."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.contracts import Options, Preprocess, PromptFeatures
from promptseg.errors import ConfigError, ImageError, PromptError
from promptseg.models import clipseg, family
from promptseg.models.clipseg import ClipSegConfig, Model
from promptseg.models.clipseg import decoder as decoders
from promptseg.models.clipseg.multilabel import multilabel
from promptseg.models.clipseg.prompts import TECHNIQUES
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.prompts import Blend, Exemplar, Points, Text

TINY = ClipSegConfig(
    image=ClipVisionConfig(width=32, layers=5, heads=2, patch=8, grid=4, embed=16),
    text=ClipTextConfig(width=32, layers=1, heads=2, embed=16),
    preprocess=Preprocess(size=48, multiple=8),
    taps=(1, 2, 3),
    reduce_dim=16,
    hidden=32,
)
WORDS = [Text("a dog"), Text("the long green grass"), Text("sky")]


def build(**changes: Any) -> Model:
    """A tiny network whose weights depend only on their shapes' order."""
    torch.manual_seed(0)
    return Model(replace(TINY, **changes)).eval()


def photo(seed: int = 0, height: int = 60, width: int = 45) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exemplar(technique: str | None = None, seed: int = 0) -> Exemplar:
    mask = np.zeros((60, 45), bool)
    mask[20:40, 10:30] = True
    return Exemplar(photo(seed), mask, technique=technique)


@pytest.fixture(scope="module")
def model() -> Model:
    return build()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 48, 48)


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


# --- sharing ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"cond_layer": 1}, {"cond_layer": 2, "extra_blocks": 1}, {"refined": True}, {"n_tokens": 3}])
def test_all_prompts_on_all_images_is_each_on_each(changes: dict[str, Any], pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(**changes)
    together = model(pixels, WORDS).logits
    assert together.shape == (2, 3, 48, 48) if not changes.get("refined") else (2, 3, 24, 24)
    for b in range(2):
        for n, word in enumerate(WORDS):
            alone = model(pixels[b : b + 1], [word]).logits
            torch.testing.assert_close(together[b, n], alone[0, 0], rtol=1e-4, atol=1e-5)
    monkeypatch.setitem(decoders.HIDDEN_BYTES, "cpu", 1)  # one prompt at a time
    torch.testing.assert_close(model(pixels, WORDS).logits, together, rtol=1e-4, atol=1e-5)


def test_ninety_prompts_cost_one_image_encoding(model: Model, pixels: Tensor) -> None:
    calls: list[int] = []
    handle = model.image.register_forward_hook(lambda *_: calls.append(1))
    logits = model(pixels, [Text(f"thing {i}") for i in range(90)]).logits
    handle.remove()
    assert calls == [1]
    assert logits.shape == (2, 90, 48, 48)


def test_a_thousand_prompts_never_lie_in_the_decoder_together(model: Model, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decoders.HIDDEN_BYTES, "cpu", 64 * 37 * TINY.hidden * 4)
    sizes: list[int] = []
    handle = model.decoder.blocks[0].register_forward_hook(lambda _, taken, __: sizes.append(len(taken[0])))
    features = PromptFeatures(tuple(Text(str(i)) for i in range(1000)), torch.randn(1000, 16))
    assert model.decode(model.encode_image(pixels[:1]), features).logits.shape == (1, 1000, 48, 48)
    handle.remove()
    assert max(sizes) == 64
    assert sum(sizes) == 1000


def test_no_prompts_give_no_maps(model: Model, pixels: Tensor) -> None:
    assert model(pixels, []).logits.shape == (2, 0, 48, 48)


def test_each_image_may_have_conditions_of_its_own(model: Model, pixels: Tensor) -> None:
    image, condition = model.encode_image(pixels), model.encode_prompts(WORDS[:2]).condition
    paired = model.decoder(image, condition[:, None])
    every = model.decoder(image, condition)
    torch.testing.assert_close(paired[:, 0], every[[0, 1], [0, 1]], rtol=1e-4, atol=1e-5)


def test_only_the_decoder_is_trained(pixels: Tensor) -> None:
    model = build(reduce_cond=8, fix_shift=True)
    with torch.enable_grad():
        model(pixels, WORDS).logits.square().mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    frozen = {"decoder.reduce_cond.weight", "decoder.reduce_cond.bias", "decoder.shift_vector"}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("decoder.")} - frozen


# --- variants -----------------------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "image": replace(TINY.image, layers=4),
    "text": replace(TINY.text, width=64),
    "preprocess": Preprocess(size=64, multiple=8),
    "taps": (1, 2, 4),
    "reduce_dim": 32,
    "heads": 2,
    "hidden": 64,
    "dropout": 0.5,
    "cond_layer": 1,
    "extra_blocks": 1,
    "reverse_taps": True,
    "reduce_cond": 8,
    "fix_shift": True,
    "head_kernel": 4,
    "refined": True,
    "n_tokens": 3,
    "technique": "outline",
}


@pytest.mark.parametrize("name", [field.name for field in fields(ClipSegConfig) if field.name != "upsample"])
def test_every_field_changes_something(name: str, model: Model, pixels: Tensor) -> None:
    other = build(**{name: CHANGES[name]})
    if name == "dropout":
        other.train()
    if name == "fix_shift":
        torch.nn.init.normal_(other.decoder.shift_vector)
    before, after = (net(pixels[:1], [Text("a dog"), exemplar()]).logits for net in (model, other))
    assert before.shape != after.shape or not torch.allclose(before, after)


def test_upsample_never_worked_and_says_so() -> None:
    with pytest.raises(ConfigError, match="never worked"):
        replace(TINY, upsample=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taps": ()}, "taps are"),
        ({"taps": (0, 2)}, "taps are"),
        ({"taps": (2, 5)}, "1 to 4"),
        ({"taps": (2, 2)}, "distinct"),
        ({"cond_layer": 3}, "one of the 3"),
        ({"reduce_dim": 18}, "multiple of heads"),
        ({"dropout": 1.0}, "from 0 to below 1"),
        ({"refined": True, "head_kernel": 3}, "at least 1, and 4"),
        ({"text": replace(TINY.text, embed=8)}, "one space"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes)


def test_heads_are_transposed_convolutions() -> None:
    for refined in (False, True):
        config = replace(TINY, refined=refined)
        head = build(refined=refined).decoder.head
        tokens, out = torch.randn(3, 12, 16), torch.empty(1, 3, *head.size((3, 4)))
        head(tokens, (3, 4), out)
        image = tokens.transpose(1, 2).reshape(3, 16, 3, 4)
        if refined:
            image = torch.relu(head["0"](image))
            for index, layer in (("2", head["2"]), ("4", head["4"])):
                image = torch.conv_transpose2d(image, layer.weight, layer.bias, stride=2)
                image = torch.relu(image) if index == "2" else image
        else:
            image = torch.conv_transpose2d(image, head.weight, head.bias, stride=config.kernel)
        torch.testing.assert_close(out[0], image[:, 0])


@pytest.mark.parametrize("size", [(48, 80), (16, 100), (8, 8)])
def test_rectangles_answer_in_their_own_shape(model: Model, size: tuple[int, int]) -> None:
    logits = model(torch.randn(1, 3, *size), WORDS[:1]).logits
    assert logits.shape == (1, 1, size[0] // 8 * 8, size[1] // 8 * 8)


def test_published_geometry_reads_rectangles_as_squares(model: Model) -> None:
    image = model.encode_image(torch.randn(1, 3, 16, 64), square=True)
    assert model.decode(image, model.encode_prompts(WORDS)).logits.shape == (1, 3, 32, 32)
    with pytest.raises(ImageError, match="square"):
        model.encode_image(torch.randn(1, 3, 16, 48), square=True)


# --- prompts ------------------------------------------------------------------------------------------------------------------------------


def test_templates_are_averaged(model: Model) -> None:
    templates = ("a photo of {}", "{} in the wild")
    ensemble = model.encode_prompts([Text("a dog", templates)]).condition[0]
    parts = model.encode_prompts([Text("a photo of a dog"), Text("a dog in the wild")]).condition
    torch.testing.assert_close(ensemble, parts.mean(0))


def test_prompts_of_all_kinds_keep_their_order(model: Model) -> None:
    shown, other = exemplar(), exemplar("attention_cls@2", seed=3)
    mixed = [Blend("a dog", shown, 0.25), WORDS[1], other, shown, WORDS[1]]
    features = model.encode_prompts(mixed)
    assert features.prompts == tuple(mixed)
    for prompt, row in zip(mixed, features.condition, strict=True):
        torch.testing.assert_close(row, model.encode_prompts([prompt]).condition[0], rtol=1e-4, atol=1e-5)
    text, image = model.encode_prompts([Text("a dog")]).condition[0], features.condition[3]
    torch.testing.assert_close(features.condition[0], 0.25 * text + 0.75 * image, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*TECHNIQUES, "attention_all@1"])
def test_every_technique_gives_a_condition_of_its_own(name: str, model: Model) -> None:
    if name in ("image_black", "shape", "blur_highlight_random"):
        return_value = model.encode_prompts([exemplar(name)]).condition
        assert bool(torch.isfinite(return_value).all())
    else:
        a, b = (model.encode_prompts([exemplar(name, seed)]).condition for seed in (0, 1))
        assert not torch.allclose(a, b)
        torch.testing.assert_close(a, model.encode_prompts([exemplar(name, 0)]).condition)


def test_the_standard_technique_is_the_configurations(model: Model) -> None:
    same = model.encode_prompts([exemplar(), exemplar("crop_blur_highlight352"), exemplar("outline")]).condition
    torch.testing.assert_close(same[0], same[1])
    assert not torch.allclose(same[0], same[2])


def test_masks_of_several_exemplars_stay_apart(model: Model) -> None:
    pair = [exemplar("attention_cls", seed) for seed in (0, 1)]
    together = model.encode_prompts(pair).condition
    torch.testing.assert_close(together[1:], model.encode_prompts(pair[1:]).condition)


def test_conditions_interpolate_freely(model: Model) -> None:
    features = model.encode_prompts([Text("a dog"), Text("a cat"), exemplar()])
    mixed = features.mix([0.2, 0.3, 0.5], [2, -1, 0])
    torch.testing.assert_close(mixed.condition[1], 2 * features.condition[0] - features.condition[1])
    torch.testing.assert_close(mixed.condition[0], torch.tensor([0.2, 0.3, 0.5]) @ features.condition)
    assert mixed.prompts[1] == Text("2 a dog + -1 a cat + 0 exemplar")
    with pytest.raises(PromptError, match="3 prompts, 2 weights"):
        features.mix([0.5, 0.5])


def test_other_prompts_are_refused(model: Model) -> None:
    with pytest.raises(PromptError, match="not Points"):
        model.encode_prompts([Points(((1, 2),))])


def test_multilabel_adds_weighted_probabilities(model: Model, pixels: Tensor) -> None:
    names = ["background", "dog"]
    logits = model(pixels, [Text(name) for name in names]).logits
    expected = torch.stack([-10 + 3 * logits[:, 0].sigmoid(), -10 + logits[:, 1].sigmoid()], 1)
    torch.testing.assert_close(multilabel(model, pixels, names), expected)
    torch.testing.assert_close(multilabel(model, pixels, names, factors=[1, 1], start=0), logits.sigmoid())


# --- the rest of the protocol -------------------------------------------------------------------------------------------------------------


def test_photos_are_shown_as_the_configuration_says(model: Model) -> None:
    (view,) = model.views((60, 45), Options())
    assert view.shape == view.content == (48, 48)
    merged = model.merge([model(torch.randn(1, 3, 48, 48), WORDS)], [view], (60, 45))
    assert merged.logits.shape == (1, 3, 48, 48)


def test_bfloat16_answers_alike(pixels: Tensor) -> None:
    model = build()
    full = model(pixels, [*WORDS, exemplar()]).logits
    low = model.bfloat16()(pixels.bfloat16(), [*WORDS, exemplar()]).logits
    assert low.dtype == torch.float32
    assert float((low - full).abs().mean()) < 0.05 * float(full.abs().mean()) + 0.02


def test_the_family_is_found_by_name() -> None:
    assert family("clipseg") is clipseg
    assert family("clipseg").Model is Model


# --- parity with transformers -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "refined"])
def pair(request: pytest.FixtureRequest) -> tuple[Model, Any]:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    torch.manual_seed(3)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    theirs = CLIPSegForImageSegmentation(
        CLIPSegConfig(
            vision_config={**tower, "patch_size": 16, "image_size": 64},
            text_config={**tower, "num_hidden_layers": 2},
            projection_dim=32,
            reduce_dim=16,
            extract_layers=[1, 2, 3],
            decoder_num_attention_heads=4,
            decoder_intermediate_size=2048,
            use_complex_transposed_convolution=request.param,
        )
    ).eval()
    config = ClipSegConfig(
        image=ClipVisionConfig(width=64, layers=4, heads=1, patch=16, grid=4, embed=32),
        text=ClipTextConfig(width=64, layers=2, heads=1, embed=32),
        taps=(1, 2, 3),
        reduce_dim=16,
        refined=request.param,
    )
    return Model.from_official(config, theirs.state_dict()), theirs


def test_texts_as_transformers(pair: tuple[Model, Any]) -> None:
    from promptseg.tokenizers import clip

    ours, theirs = pair
    pixels, phrases = torch.randn(1, 3, 96, 96), ["a dog", "something to fill", "wood"]
    ids = clip()(phrases)
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    expected = theirs(input_ids=ids, attention_mask=mask, pixel_values=pixels.expand(3, -1, -1, -1)).logits
    alike(ours(pixels, [Text(phrase) for phrase in phrases]).logits[0], expected)


def test_image_conditions_as_transformers(pair: tuple[Model, Any]) -> None:
    ours, theirs = pair
    pixels, shown = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    expected = theirs(pixel_values=pixels, conditional_pixel_values=shown).logits
    condition = ours.embed_images(shown)
    alike(ours.decoder(ours.encode_image(pixels), condition[:, None])[:, 0], expected)


def alike(ours: Tensor, theirs: Tensor) -> None:
    """Within the tolerance of the reference cases."""
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))

"""CLIP-Deconv and ViTSeg: their networks, their names in published code, and that they are used as CLIPSeg is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import promptseg
import small_clipseg
from promptseg import models, zoo
from promptseg.errors import ConfigError, PromptError, WeightsError, WeightsNotFound
from promptseg.models.clipseg import Model, VitConfig
from promptseg.models.clipseg.baselines import VitTower
from promptseg.nn.attention import AttentionMask
from promptseg.prompts import Blend, Exemplar, Text

NAMES = ("clip-deconv", "vitseg")
WORDS = [Text("a dog"), Text("the long green grass"), Text("sky")]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> Model:
    return small_clipseg.model(request.param)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


# --- networks -----------------------------------------------------------------------------------------------------------------------------


def test_clip_deconv_is_torchs_layers(pixels: Tensor) -> None:
    model = small_clipseg.model("clip-deconv")
    theirs = zoo.to_official(model)
    raw = model.encode_prompts(WORDS).condition
    a = F.linear(model.see(pixels[:1], taps=(2,), embed=False).activations[2], theirs["reduce.weight"], theirs["reduce.bias"])
    mul, add = (F.linear(raw, theirs[f"film_{part}.weight"], theirs[f"film_{part}.bias"])[:, None] for part in ("mul", "add"))
    hidden = F.relu(F.linear(mul * a + add, theirs["reduce2.0.weight"], theirs["reduce2.0.bias"]))
    tokens = F.linear(hidden, theirs["reduce2.2.weight"], theirs["reduce2.2.bias"])[:, 1:]
    logits = F.conv_transpose2d(
        tokens.transpose(1, 2).reshape(3, 8, 2, 2), theirs["trans_conv.weight"], theirs["trans_conv.bias"], stride=16
    )
    torch.testing.assert_close(model(pixels[:1], WORDS).logits[0], logits[:, 0], rtol=1e-4, atol=1e-5)


def test_vit_tower_is_torchs_encoder_with_norms_in_front(pixels: Tensor) -> None:
    tower = VitTower(small_clipseg.VIT).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = tower.patches(F.interpolate(pixels, (48, 48))).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_token.expand(2, 1, 32), x], 1) + tower.position_table
    seen = tower(pixels, taps=(1, 3))
    for index, layer in enumerate(tower.layers):
        theirs = nn.TransformerEncoderLayer(32, 2, 128, 0, F.gelu, layer_norm_eps=1e-6, batch_first=True, norm_first=True).eval()
        names = {"attn.qkv.": "self_attn.in_proj_", "attn.out": "self_attn.out_proj", "mlp.up": "linear1", "mlp.down": "linear2"}
        for ours, parameter in layer.named_parameters():
            name = ours
            for part, torchs in names.items():
                name = name.replace(part, torchs)
            theirs.get_parameter(name).copy_(parameter)
        x = theirs(x)
        if index in seen.activations:
            torch.testing.assert_close(seen.activations[index], x, rtol=1e-3, atol=1e-3)
    assert sorted(seen.activations) == [1, 3]
    expected = tower.head(F.layer_norm(x[:, 0], (32,), tower.norm.weight, tower.norm.bias, 1e-6))
    torch.testing.assert_close(seen.embedding, expected, rtol=1e-3, atol=1e-3)


def test_all_prompts_on_all_images_is_each_on_each(model: Model, pixels: Tensor) -> None:
    together = model(pixels, WORDS).logits
    assert together.shape == (2, 3, 32, 32)
    for b in range(2):
        for n, word in enumerate(WORDS):
            torch.testing.assert_close(together[b, n], model(pixels[b : b + 1], [word]).logits[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(48, 80), (50, 17), (64, 64)])
def test_vitseg_answers_at_any_inputs_own_size(size: tuple[int, int]) -> None:
    model, image = small_clipseg.model("vitseg"), torch.randn(1, 3, *size)
    assert model(image, WORDS).logits.shape == (1, 3, *size)
    assert model(image, []).logits.shape == (1, 0, *size)
    small = model(F.interpolate(image, (48, 48)), WORDS).logits
    torch.testing.assert_close(model(image, WORDS).logits, F.interpolate(small, size))


def test_what_is_trained() -> None:
    """The decoder alone; in ViTSeg the text tower, too, because its published code does not freeze it."""
    for name, parts in {"clip-deconv": {"decoder"}, "vitseg": {"decoder", "text"}}.items():
        model = small_clipseg.build(name)
        with torch.enable_grad():
            model(torch.randn(1, 3, 32, 32), WORDS).logits.square().mean().backward()
        assert {key.split(".")[0] for key, parameter in model.named_parameters() if parameter.grad is not None} == parts


def test_attention_of_vitseg_cannot_be_restricted(pixels: Tensor) -> None:
    with pytest.raises(PromptError, match="technique that draws"):
        small_clipseg.model("vitseg").embed_images(pixels, AttentionMask(torch.ones(2, 4, 4), "all"))


# --- configurations -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [({"tap": 4}, "0 to 3, not 4"), ({"text": replace(small_clipseg.SMALL["text"], embed=8)}, "one space")],
)
def test_impossible_deconvs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(small_clipseg.model("clip-deconv").config, **change)


@pytest.mark.parametrize("change", [{"tap": 1}, {"reduce_dim": 16}, {"hidden": 8}, {"reduce_cond": 4}, {"n_tokens": 4}], ids=str)
def test_every_field_of_deconv_changes_something(change: dict[str, Any], pixels: Tensor) -> None:
    model = small_clipseg.model("clip-deconv")
    torch.manual_seed(0)
    other = Model(replace(model.config, **change)).eval()
    before, after = (net(pixels, WORDS).logits for net in (model, other))
    assert before.shape != after.shape or not torch.allclose(before, after)


def test_impossible_vits_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of heads"):
        VitConfig(width=30, layers=1, heads=4, patch=16, size=48, embed=8)
    with pytest.raises(ConfigError, match="patches of one size"):
        replace(small_clipseg.model("vitseg").config, n_tokens=3)


# --- names in published code --------------------------------------------------------------------------------------------------------------


def test_official_names_there_and_back(model: Model) -> None:
    theirs = {name: tensor.clone() for name, tensor in zoo.to_official(model).items()}
    again = Model.from_official(model.config, theirs)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    missing = dict(theirs)
    del missing["film_mul.weight"]
    with pytest.raises(WeightsError, match=r"1 missing: film_mul\.weight"):
        Model.from_official(model.config, missing)


def test_names_are_timms_and_the_published_classes() -> None:
    deconv, vit = (zoo.to_official(small_clipseg.model(name)).keys() for name in NAMES)
    layers = ("film_mul", "film_add", "reduce", "reduce2.0", "reduce2.2", "trans_conv")
    decoder = {name for name in deconv if not name.startswith(("model.", "clip_model."))}
    assert decoder == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert {name for name in deconv if name.startswith("clip_model.visual.")}
    layer = {f"{name}.{part}" for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for part in ("weight", "bias")}
    tower = {name for name in vit if name.startswith("model.")}
    assert {name.removeprefix("model.blocks.2.") for name in tower if ".2." in name} == layer
    assert {name for name in tower if ".blocks." not in name} == {
        *("model.cls_token", "model.pos_embed", "model.patch_embed.proj.weight", "model.patch_embed.proj.bias"),
        *("model.norm.weight", "model.norm.bias", "model.head.weight", "model.head.bias"),
    }
    assert not {name for name in vit if name.startswith("clip_model.visual.")}  # of CLIP's image tower it kept and never used


def test_a_tower_that_vitseg_never_used_is_left_out() -> None:
    model = small_clipseg.model("vitseg")
    extra = {"clip_model.visual.class_embedding": torch.ones(8), "clip_model.visual.transformer.resblocks.0.ln_1.weight": torch.ones(8)}
    again = Model.from_official(model.config, zoo.to_official(model) | extra)
    assert again.state_dict().keys() == model.state_dict().keys()


def test_decoder_files_of_deconv_go_with_clips_own() -> None:
    model = small_clipseg.model("clip-deconv")
    again = Model.from_official(model.config, zoo.to_official(model, "decoder"), zoo.to_official(model, "clip"))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_the_card_counts_the_parameters_of_its_network(name: str) -> None:
    with torch.device("meta"):
        model = Model(zoo.config(name))
    assert zoo.card(name).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["clipseg-rd64", *NAMES])
@pytest.mark.parametrize("hf", [False, True])
def test_training_starts_from_clips_towers_and_a_random_decoder(name: str, hf: bool) -> None:
    model, donor = small_clipseg.model(name), small_clipseg.model()
    files = [zoo.to_official(donor, "clip")]
    if hf:
        theirs = zoo.to_official(donor, "hf")
        files = [{name.removeprefix("clip."): tensor for name, tensor in theirs.items() if name.startswith("clip.")}]
    if name == "vitseg":
        vit = {name.removeprefix("model."): tensor for name, tensor in zoo.to_official(model).items() if name.startswith("model.")}
        files.append(vit | {"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)})
    begun = Model.from_clip(model.config, *files)
    given = {f"text.{key}": tensor for key, tensor in donor.text.state_dict().items()}
    given |= {f"image.{key}": tensor for key, tensor in (model if name == "vitseg" else donor).image.state_dict().items()}
    for key, tensor in begun.state_dict().items():
        assert key.startswith(("decoder.", "image.head.", "logit_scale")) or torch.equal(tensor, given[key])
    assert begun.training
    del files[0]["text_model.encoder.layers.0.layer_norm1.bias" if hf else "transformer.resblocks.0.ln_1.bias"]
    with pytest.raises(WeightsError, match="1 missing"):
        Model.from_clip(model.config, *files)


# --- in use -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _small_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models.family("clipseg"), "CARDS", small_clipseg.cards())
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("_small_cards")
@pytest.mark.parametrize("name", NAMES)
def test_a_trained_folder_is_used_as_clipseg_is(name: str, tmp_path: Path) -> None:
    folder = zoo.save_folder(small_clipseg.model(name), tmp_path / "mine", name)
    segmenter = promptseg.load(folder, device="cpu", precision="float32")
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    mask = np.zeros((40, 56), bool)
    mask[10:30, 20:40] = True
    shown = Exemplar(photo, mask)
    masks = segmenter(photo, ["a dog", shown, Blend("a dog", shown, 0.5)])
    assert masks.to_numpy().shape == (3, 40, 56)
    assert segmenter.semantic(photo, ["dog", "sky"]).labels.shape == (40, 56)
    assert segmenter(photo, []).to_numpy().shape == (0, 40, 56)


@pytest.mark.usefixtures("_small_cards")
@pytest.mark.parametrize("name", NAMES)
def test_without_weights_the_message_says_to_train(name: str) -> None:
    for get in (promptseg.load, zoo.pull):
        with pytest.raises(WeightsNotFound, match=f"'{name}' are not published; train them"):
            get(name)

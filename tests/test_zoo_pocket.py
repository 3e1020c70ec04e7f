"""`pocket` through the doors that every model has: published names both ways, strictly, and our folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import promptseg
from promptseg import zoo
from promptseg.errors import ConfigError, PromptSegError, WeightsError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def shipped() -> State:
    """What the file in the package holds: half precision, and bytes where the text tower has them."""
    (folder,) = zoo.weights("pocket")
    return zoo.read_weights(folder)


def test_the_card_speaks_of_the_shipped_weights(shipped: State) -> None:
    model, card = zoo.load("pocket")
    assert card.config == zoo.config("pocket") == model.config
    assert card.parameters == sum(tensor.numel() for tensor in shipped.values())
    assert card.background == card.threshold


@pytest.mark.parametrize("layout", ["official", "hf"])
def test_published_names_there_and_back(shipped: State, layout: str) -> None:
    model = zoo.from_official("pocket", shipped)
    assert not model.training
    ours = model.state_dict()
    theirs = zoo.to_official(model, layout)
    assert theirs.keys() == shipped.keys()
    assert all(torch.equal(theirs[name], value.to(theirs[name].dtype)) for name, value in shipped.items())
    again = zoo.from_official("pocket", theirs).state_dict()
    assert all(torch.equal(again[name], value) and again[name].dtype == value.dtype for name, value in ours.items())
    with pytest.raises(ConfigError, match="it has official, hf"):
        zoo.to_official(model, "clip")


def test_several_files_are_one_model_and_the_same_as_the_folder(shipped: State) -> None:
    names = sorted(shipped)
    model = zoo.from_official("pocket", {name: shipped[name] for name in names[::2]}, {name: shipped[name] for name in names[1::2]})
    for name, value in zoo.load("pocket")[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda state: [state.pop(name) for name in ("text.table", "decoder.mask.bias")], r"2 missing: .*text\.table"),
        (lambda state: state.update({"neck.extra.weight": torch.zeros(1)}), r"1 not part of this model: neck\.extra\.weight"),
        (lambda state: state.update({"text.scale": torch.zeros(7, 1)}), r"1 of another shape: text\.scale \(7, 1\) instead of"),
        (lambda state: state.update({"text.scale": state["text.scale"] * float("nan")}), r"not finite numbers .*text\.scale"),
        (lambda state: state.update({"log_sharpness": torch.tensor(float("inf"))}), r"not finite numbers .*log_sharpness"),
        (lambda state: state.clear(), "missing"),
    ],
    ids=["missing", "extra", "shape", "nan", "infinity", "nothing"],
)
def test_what_does_not_fit_is_named(shipped: State, tmp_path: Path, spoil: Callable[[State], object], says: str) -> None:
    state = dict(shipped)
    spoil(state)
    with pytest.raises(WeightsError, match=says):
        zoo.from_official("pocket", state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=says) as caught:
        zoo.convert([tmp_path / "model.safetensors"], "pocket", tmp_path / "mine")
    assert "published as" not in str(caught.value), "there is nowhere to get a companion"
    assert not (tmp_path / "mine").exists()


def test_a_damaged_file_is_told_as_one(tmp_path: Path) -> None:
    content = (zoo.weights("pocket")[0] / "model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    for damaged in (content[:-1], content[:1000], b"", content[:8] + b"{" * 200 + content[208:]):
        file.write_bytes(damaged)
        with pytest.raises(PromptSegError, match=r"model\.safetensors"):
            zoo.load(file, card="pocket")


def test_its_own_file_converts_to_itself(shipped: State, tmp_path: Path) -> None:
    folder = zoo.convert(zoo.weights("pocket"), "pocket", tmp_path / "mine")
    assert all(torch.equal(value, shipped[name]) for name, value in load_file(folder / "model.safetensors").items())
    assert zoo.load(folder)[1] == zoo.card("pocket")


@pytest.mark.parametrize("size", [(1, 1), (3, 20000), (20000, 3)])
def test_photos_of_extreme_shapes(size: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    segmenter = promptseg.load("pocket")
    for mask in segmenter(photo, ["a dog", "the grass"], threshold=0.01):
        assert mask.mask.shape == mask.probabilities.shape == size
        assert 0 <= mask.probabilities.min() <= mask.probabilities.max() <= 1
    assert segmenter.semantic(photo, ["a dog", "grass"]).labels.shape == size

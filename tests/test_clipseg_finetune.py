"""Fine-tuning CLIPSeg and its baselines on one's own photos, at toy size; what every family shares is in test_finetune."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import promptseg
import replicas
import small_clipseg
from promptseg import zoo
from promptseg.data.photosets import AnnotatedPhoto
from promptseg.errors import ConfigError
from promptseg.models.clipseg.finetune import PRESETS, FineTune, adapted_parts, other_names
from promptseg.models.clipseg.losses import mask_loss
from promptseg.models.clipseg.network import Model
from promptseg.training import finetune
from promptseg.training.before_after import Report
from promptseg.training.files import with_words
from promptseg.training.groups import arrange
from promptseg.training.own_photos import checked
from small_photosets import folders

SMALL = ("options.size=64", "options.prompts=3", "batch_size=2", "save_every_s=60")
BASELINES = ("clipseg-rd64", "clipseg-rd64-refined", "clip-deconv", "vitseg")


def network(name: str, **changes: Any) -> Model:
    """A card's network, small and random, that sees photos at 64 pixels."""
    torch.manual_seed(0)
    config = small_clipseg.smaller(zoo.config(name))
    return Model(replace(config, preprocess=replace(config.preprocess, size=64), **changes)).eval()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The refined one, whose decoder does not read the last block of the image tower."""
    model = network("clipseg-rd64-refined", taps=(1, 2))
    return zoo.save_folder(model, tmp_path_factory.mktemp("start"), "clipseg-rd64-refined")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def photos(data: Path) -> list[AnnotatedPhoto]:
    return checked(data, lambda line: None)


@pytest.fixture
def tune(start: Path, data: Path, tmp_path: Path) -> Callable[..., Report]:
    def run(**options: Any) -> Report:
        return finetune(data, **{"model": start, "output": tmp_path / "out", "changes": SMALL, "log": lambda line: None, **options})

    return run


def run_of(model: Model, photos: list[AnnotatedPhoto], preset: str = "head", names: tuple[str, ...] = ("dog",), *changes: str) -> FineTune:
    recipe = with_words(PRESETS[preset], [*SMALL, *changes])
    run = FineTune(recipe, model, photos, names)
    arrange(run.model, recipe)
    return run


CHANGED = {  # parts that learn; all others stay
    "head": ("decoder.",),
    "lora": ("decoder.", "image.blocks.0.attn.qkv.w", "image.blocks.1.attn.qkv.w", "image.blocks.2.attn.qkv.w", "image.blocks.0.attn.out.w",
             "image.blocks.1.attn.out.w", "image.blocks.2.attn.out.w"),
    "full": ("decoder.", "image.patch", "image.class", "image.position", "image.norm_pre", "image.blocks.0.", "image.blocks.1.",
             "image.blocks.2."),
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_a_model_and_a_table(preset: str, start: Path, data: Path, tune: Callable[..., Report]) -> None:
    report = tune(preset=preset, steps=2)
    old, new = (load_file(folder / "model.safetensors") for folder in (start, report.folder))
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert all(name.startswith(CHANGED[preset]) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in CHANGED[preset])
    segmenter = promptseg.load(report.folder)
    assert segmenter.card.name == "clipseg-rd64-refined"
    assert segmenter(next((data / "images").iterdir()), ["dog", "a cat"]).to_numpy().shape == (2, 48, 64)
    assert [row.name for row in report.classes] == ["dog"]
    assert report.others


def test_it_learns_what_it_is_shown(tmp_path: Path) -> None:
    start = zoo.save_folder(network("clipseg-rd64"), tmp_path / "start", "clipseg-rd64")
    for index in range(6):
        box = replicas.rectangle((48, 64), (4 * index, 8, 4 * index + 32, 32), 255)
        replicas.labels(tmp_path / "data" / "images" / f"{index}.png", np.stack([box] * 3, -1))
        replicas.labels(tmp_path / "data" / "masks" / "dog" / f"{index}.png", box)
    changes = (*SMALL, "options.prompts=1", "options.others=0", "lr=1e-2", "ema=null")
    report = finetune(tmp_path / "data", model=start, output=tmp_path / "out", steps=60, changes=changes, log=lambda line: None)
    assert report.after > report.before + 0.2


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("preset", PRESETS)
def test_everything_that_learns_is_asked_for(preset: str, name: str, photos: list[AnnotatedPhoto]) -> None:
    run = run_of(network(name), photos, preset)
    losses = run.losses(run.collate([run.example(number) for number in range(2)]))
    torch.stack([*losses.values()]).sum().backward()
    learning = {part for part, parameter in run.model.named_parameters() if parameter.requires_grad}
    assert learning == {part for part, parameter in run.model.named_parameters() if parameter.grad is not None}
    assert any(part.startswith("image.") for part in learning) == (preset != "head")
    assert not any(part.startswith("text.") for part in learning)


@pytest.mark.parametrize("preset", PRESETS)
def test_other_names_are_held_to_what_was_said(preset: str, photos: list[AnnotatedPhoto]) -> None:
    model = network("clipseg-rd64")
    run = run_of(model, photos, preset)
    assert run.unasked
    assert not {*run.unasked} & {*run.others}
    assert {*run.found} <= {*run.others}
    batch = run.collate([run.example(number) for number in range(2)])
    assert run.losses(batch)["kept"].item() == pytest.approx(0, abs=1e-5), "nothing has changed yet"
    with torch.no_grad():
        for parameter in (one for one in run.model.parameters() if one.requires_grad):
            parameter.add_(0.05)
    assert run.losses(batch)["kept"].item() > 1e-4
    assert "kept" not in run_of(network("clipseg-rd64"), photos, "head", ("dog",), "options.others=0").losses(batch_without_others(run))


def batch_without_others(run: FineTune) -> Any:
    batch = run.collate([run.example(number) for number in range(2)])
    return replace(batch, names=tuple(names[: batch.targets.shape[1]] for names in batch.names))


def test_other_names_share_no_word_with_the_data() -> None:
    others = other_names(["Wine glasses", "dogs"])
    assert "zebra" in others
    assert not {"dog", "wine glass", "hot dog"} & {*others}


def test_names_that_the_tower_reads_alike_are_refused(photos: list[AnnotatedPhoto]) -> None:
    with pytest.raises(ConfigError, match=r"'DOG' and 'dog' alike"):
        run_of(network("clipseg-rd64"), photos, "head", ("dog", "DOG"))


def test_unknown_pixels_cost_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    known = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    known[:, :, :2] = True
    targets = torch.zeros(2, 3, 4, 4)
    changed = torch.where(known, targets, 1.0)
    assert torch.equal(mask_loss(logits, targets, known), mask_loss(logits, changed, known))
    (gradient,) = torch.autograd.grad(mask_loss(logits, changed, known), logits)
    assert gradient[:, :, :2].all()
    assert not gradient[:, :, 2:].any()
    assert mask_loss(logits, targets, known | True).item() == pytest.approx(mask_loss(logits, targets).item())


def test_adapters_go_where_they_act() -> None:
    parts = adapted_parts(network("clipseg-rd64", taps=(1, 2), reduce_cond=4))
    assert "image.blocks.2.attn.qkv" in parts
    assert "decoder.film_mul" in parts
    assert not any(part.startswith(("image.blocks.3", "text.")) for part in parts)
    assert not any("image" in part and "mlp" in part for part in parts), "past which they would be multiplied"
    assert "decoder.reduce_cond" not in parts

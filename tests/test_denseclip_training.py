"""DenseCLIP's runs for segmentation: the table of recipes, what becomes of a photo, and one run carried out in miniature."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from PIL import Image

import small_denseclip
from promptseg import evaluation, training, zoo
from promptseg.data.samples import IGNORE
from promptseg.errors import ConfigError, DataError
from promptseg.models.denseclip import RECIPES, DenseClipOptions, Run
from promptseg.models.denseclip.config import RetinaHead
from promptseg.models.denseclip.losses import accuracy, pixel_loss, segmentation_losses
from promptseg.models.denseclip.photos import Augment, cut, nearest
from promptseg.models.denseclip.recipes import DenseClipTraining
from promptseg.segmenter import Segmenter
from small_denseclip import RESNET, build, rates
from test_denseclip import clip_of

# name: card, CLIP's file, fields of the language that differ from the card's
TABLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "denseclip/fpn-r50": ("denseclip-fpn-r50", "RN50.pt", {}),
    "denseclip/fpn-r101": ("denseclip-fpn-r101", "RN101.pt", {}),
    "denseclip/fpn-vitb": ("denseclip-fpn-vitb", "ViT-B-16.pt", {}),
    "denseclip/baseline-fpn-r50": ("denseclip-baseline-fpn-r50", "RN50.pt", {}),
    "denseclip/baseline-fpn-r101": ("denseclip-baseline-fpn-r101", "RN50.pt", {}),
    "denseclip/baseline-fpn-vitb": ("denseclip-baseline-fpn-vitb", "ViT-B-16.pt", {}),
    "denseclip/ablation-frozen-text": ("denseclip-fpn-r50", "RN50.pt", {}),
    "denseclip/ablation-score-map": ("denseclip-fpn-r50", "RN50.pt", {"prompting": "none"}),
    "denseclip/ablation-pre-model": ("denseclip-fpn-r50", "RN50.pt", {"prompting": "pre"}),
    "denseclip/ablation-decoder-1": ("denseclip-fpn-r50", "RN50.pt", {"depth": 1}),
    "denseclip/ablation-decoder-6": ("denseclip-fpn-r50", "RN50.pt", {"depth": 6}),
}
# rate and decay: how many tensors and numbers have them, as the published code's optimiser counts (param_groups_* of the references)
GROUPS = {
    "denseclip/fpn-r50": {
        (1e-4, 1e-4): (97, 11_502_998), (1e-5, 1e-4): (174, 38_740_832), (0.0, 1e-4): (149, 63_657_472), (1e-4, 0.0): (18, 4_608),
    },
    "denseclip/fpn-r101": {
        (1e-4, 1e-4): (97, 11_106_710), (1e-5, 1e-4): (327, 56_683_872), (0.0, 1e-4): (149, 63_395_328), (1e-4, 0.0): (18, 4_608),
    },
    "denseclip/fpn-vitb": {
        (1e-4, 1e-4): (97, 10_910_102), (1e-5, 1e-4): (168, 94_358_784), (0.0, 1e-4): (149, 63_395_328), (1e-4, 0.0): (18, 4_608),
    },
    "denseclip/baseline-fpn-r50": {(1e-4, 1e-4): (39, 7_515_286), (1e-5, 1e-4): (165, 23_527_264)},
    "denseclip/baseline-fpn-r101": {(1e-4, 1e-4): (39, 7_515_286), (1e-5, 1e-4): (318, 42_519_392)},
    "denseclip/baseline-fpn-vitb": {(1e-4, 1e-4): (39, 7_318_678), (1e-5, 1e-4): (165, 93_964_032)},
}  # fmt: skip


# --- recipes ----------------------------------------------------------------------------------------------------------------------------


def test_there_is_one_for_every_run() -> None:
    assert TABLE.keys() <= RECIPES.keys()
    assert TABLE.keys() <= training.recipes().keys()


@pytest.mark.parametrize("name", TABLE)
def test_recipes_say_what_the_table_says(name: str) -> None:
    made, (card, clip, changes) = training.recipe(name), TABLE[name]
    assert (made.name, made.card, made.output, made.options.clip) == (name, card, f"runs/{name}", clip)
    assert (made.steps, made.batch_size, made.lr, made.weight_decay, made.clip, made.ema) == (80_000, 32, 1e-4, 1e-4, None, None)
    expected = zoo.config(card)
    if changes:
        depth = changes.get("depth")
        given = changes if depth is None else {"decoder": replace(expected.language.decoder, layers=depth)}
        expected = replace(expected, language=replace(expected.language, **given))
    assert made.options.config == expected
    found = rates(made)
    assert found == GROUPS.get(name, found)


# --- photos -----------------------------------------------------------------------------------------------------------------------------


def test_no_class_fills_a_crop_if_another_crop_is_found() -> None:
    """A first draw is good at about a third of the places."""
    labels = np.zeros((40, 200), np.uint8)
    labels[:, 100:] = 1
    labels[:5] = 255
    good = []
    for seed in range(40):
        found = labels[cut(labels, (40, 60), RandomState(seed))]
        assert found.shape == (40, 60)
        good.append(0.25 < (found[found != 255] == 0).mean() < 0.75)
    assert np.mean(good) > 0.8


def test_labels_stay_on_the_pixels_of_their_photo() -> None:
    """What is one colour in the photo is one class, whatever is drawn; the same seed draws the same."""
    photo, labels = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    photo[:, 40:], labels[:, 40:] = 255, 1
    change = Augment(limits=(256, 64), crop=64)
    seen = set()
    for seed in range(12):
        pixels, classes = change(photo, labels, seed)
        assert pixels.shape[:2] == classes.shape
        assert max(classes.shape) <= 64
        again = change(photo, labels, seed)
        assert (again[0] == pixels).all()
        assert (again[1] == classes).all()
        seen.add(bool(classes[0, 0] == 1))
        bright = pixels.mean(-1)
        assert ((bright > 127) == (classes == 1)).mean() > 0.95
    assert seen == {True, False}
    assert (nearest(labels, (6, 8)) == labels[::10, ::10]).all()


# --- losses -----------------------------------------------------------------------------------------------------------------------------


def test_ignored_pixels_count_in_the_mean() -> None:
    """As the published code counts them."""
    logits, target = torch.zeros(1, 3, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, :4] = 255
    assert pixel_loss(logits, target) == pytest.approx(0.5 * np.log(3))
    assert accuracy(logits + torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), target) == 0.5
    losses = segmentation_losses(logits, torch.zeros(1, 3, 2, 2), target)
    assert losses["score_map"] == pytest.approx(0.4 * losses["head"])
    assert segmentation_losses(logits, None, target).keys() == {"head"}


def test_impossible_options() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        DenseClipTraining(config=RESNET, validation=0)
    with pytest.raises(ConfigError, match="SemanticHead"):
        DenseClipTraining(config=replace(RESNET, head=RetinaHead()))


def test_recipes_are_read_without_torch() -> None:
    program = "import sys; from promptseg.training import recipe; recipe('denseclip/fpn-r50'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- runs -------------------------------------------------------------------------------------------------------------------------------


def test_an_example_is_its_photo_and_its_labels(tmp_path: Path) -> None:
    recipe = small_denseclip.recipe(small_denseclip.photos(tmp_path / "ade"), tmp_path / "out")
    run = Run(recipe, lambda _: None)
    first, other = run.example(0), run.example(5)
    assert first.pixels.shape == (1, 3, 64, 64)
    assert first.labels.shape == (1, 64, 64)
    assert set(first.labels.unique().tolist()) <= {2, 149, IGNORE}
    again = run.example(0)
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.labels, first.labels)
    assert not torch.equal(other.pixels, first.pixels)
    assert sorted(run.describe(place) for place in range(2)) == [f"ADE_train_0000000{photo}, epoch 0" for photo in (1, 2)]
    assert run.collate([first, other]).pixels.shape == (2, 3, 64, 64)
    with pytest.raises(DataError, match="no photos"):
        Run(small_denseclip.recipe(tmp_path, tmp_path / "out"), lambda _: None)
    with pytest.raises(ConfigError, match="not those of ADE20K"):
        Run(replace(recipe, options=replace(recipe.options, config=RESNET)), lambda _: None)


def test_a_run_starts_from_clips_file(tmp_path: Path) -> None:
    recipe = small_denseclip.recipe(small_denseclip.photos(tmp_path / "ade"), tmp_path / "out")
    source = build(recipe.options.config)
    torch.save(clip_of(source), tmp_path / "clip.pt")
    run = Run(replace(recipe, options=replace(recipe.options, clip=str(tmp_path / "clip.pt"))), lambda _: None)
    assert torch.equal(run.model.image.conv1.weight, source.image.conv1.weight)


def test_killed_and_resumed_it_ends_as_one_that_ran_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps lower the loss; the result answers about its classes, and the protocol of the published table takes it."""
    root, losses = small_denseclip.photos(tmp_path / "ade"), []
    recipe = small_denseclip.recipe(root, tmp_path / "whole", pictures_every=4)

    def note(_: int, figures: Mapping[str, float]) -> None:
        losses.append(figures["head"] + figures["score_map"])

    whole = training.train(recipe, report=note, log=lambda _: None)
    assert losses[-1] < losses[0]
    with Image.open(whole / "pictures" / "0000004.png") as sheet:
        assert sheet.size[0] == 2 * 328 + 8, "what the network says and the truth of the only photo"
    program = [sys.executable, small_denseclip.__file__, str(root), str(tmp_path / "cut"), "2"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = training.train(small_denseclip.recipe(root, tmp_path / "cut"), resume=True, log=lambda _: None)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    model, card = zoo.load(whole)
    assert (card.name, asdict(model.config)) == ("denseclip-fpn-r50", asdict(recipe.options.config))
    asked = Segmenter(model, card, device="cpu", precision="float32")
    protocol = evaluation.protocol("ade150", root)
    assert protocol.published()["denseclip-fpn-r50"] == {"mIoU": 0.435}
    rows = {row.name: row.value for row in evaluation.evaluate(protocol, asked, resamples=0)}
    (sample,) = protocol.photos()
    truth = sample.labels()
    labelled = truth != IGNORE
    right = (asked.semantic(sample.image()).labels == truth)[labelled]
    assert rows["pixel accuracy"] == pytest.approx(right.mean())
    several = evaluation.protocol("ade150", root, scales="0.5,0.75,1,1.25,1.5,1.75", flip="true")
    assert several.published()["denseclip-fpn-r50"] == {"mIoU": 0.447}
    assert not evaluation.protocol("ade150", root, flip=True).published()
    given = list[Any]()
    monkeypatch.setattr(asked, "semantic", lambda *_, options, **__: given.append(options) or SimpleNamespace(labels=truth))
    looked = evaluation.evaluate(evaluation.protocol("ade150", root, scales="0.5,1", flip="true"), asked, resamples=0)
    assert given == [DenseClipOptions(scales=(0.5, 1), flip=True)]
    assert {name: looked.constants[name] for name in ("mode", "scales", "flip")} == {"mode": "slide", "scales": (0.5, 1.0), "flip": True}
    assert "truncate" not in looked.constants

"""CAT-Seg's runs: the table of recipes, and one of them carried out in miniature."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import small_catseg
from promptseg import training, zoo
from promptseg.errors import ConfigError, DataError
from promptseg.models.catseg import RECIPES, Model, Run
from promptseg.models.catseg.losses import class_loss
from promptseg.models.catseg.recipes import LEARNING, CatSegTraining
from promptseg.models.catseg.tuning import tune
from promptseg.training.groups import arrange
from promptseg.training.loop import optimise
from test_catseg import TINY

# name: card, mode, fields of the network that differ from the card's beside the pooling
TABLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "catseg/base": ("catseg-base", "query-value", {}),
    "catseg/large": ("catseg-large", "query-value", {}),
    "catseg/ablation-no-spatial": ("catseg-base", "query-value", {"spatial": False}),
    "catseg/ablation-no-class": ("catseg-base", "query-value", {"classes": False}),
    "catseg/ablation-no-aggregation": ("catseg-base", "query-value", {"spatial": False, "classes": False}),
    "catseg/ablation-no-guidance": ("catseg-base", "query-value", {"image_guidance": 0, "text_guidance": 0}),
    "catseg/ablation-no-decoder-guidance": ("catseg-base", "query-value", {"decoder_guidance": (0, 0)}),
    "catseg/ablation-no-decoder": ("catseg-base", "query-value", {"decoder": (), "decoder_guidance": (0, 0)}),
    "catseg/ablation-full-class-attention": ("catseg-base", "query-value", {"attention": "full"}),
    "catseg/ablation-frozen": ("catseg-base", "frozen", {}),
    "catseg/ablation-prompt": ("catseg-base", "prompt", {"visual_prompts": (12, 50)}),
    "catseg/ablation-attention": ("catseg-base", "attention", {}),
    "catseg/ablation-full": ("catseg-base", "full", {}),
}


def test_there_is_one_for_every_run() -> None:
    assert RECIPES.keys() == TABLE.keys()
    assert TABLE.keys() <= training.recipes().keys()


@pytest.mark.parametrize("name", TABLE)
def test_recipes_say_what_the_table_says(name: str) -> None:
    """And of the network they build, CLIP learns slowly, what the mode names and nothing else of it."""
    made, (card, mode, changes) = training.recipe(name), TABLE[name]
    assert (made.name, made.card, made.output, made.options.mode) == (name, card, f"runs/{name}", mode)
    assert (made.steps, made.batch_size, made.lr, made.weight_decay, made.clip, made.ema) == (80_000, 4, 2e-4, 1e-4, 0.01, None)
    assert made.schedule.rate(2e-4, 40_000, made.steps) == pytest.approx(1e-4)
    assert made.options.config == replace(zoo.config(card), pooling=2, **changes)
    with torch.device("meta"):
        full = Model(made.options.config)
    tune(full, mode)  # type: ignore[arg-type]
    learning = {parameter for parameter, tensor in full.named_parameters() if tensor.requires_grad}
    groups = arrange(full, made)
    assert {parameter for group in groups for parameter in group.names} == learning
    for group in groups:
        for parameter in group.names:
            ours = parameter.startswith(("aggregator.", "upsample"))
            assert group.lr == pytest.approx(2e-4 if ours else 2e-6)


def test_ignored_pixels_are_negatives() -> None:
    """As the published code counts them."""
    logits = torch.zeros(1, 2, 4, 4)
    ignored, labelled = torch.full((1, 4, 4), 255), torch.zeros(1, 4, 4, dtype=torch.int64)
    logits[:, 0] = 3
    assert class_loss(logits, ignored) > class_loss(logits, labelled)
    assert class_loss(-10 + 0 * logits, ignored) < 1e-4


def test_impossible_options() -> None:
    with pytest.raises(ConfigError, match="query-value"):
        CatSegTraining(config=TINY, mode="all")  # type: ignore[arg-type]
    for wrong in ({"validation": 0}, {"crop": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            CatSegTraining(config=TINY, **wrong)


def test_recipes_are_read_without_torch() -> None:
    program = "import sys; from promptseg.training import recipe; recipe('catseg/base'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_example_is_its_photo_and_its_labels(tmp_path: Path) -> None:
    """The same for the same number whenever it is asked for; each epoch shows every photo once."""
    run = Run(small_catseg.recipe(small_catseg.photos(tmp_path / "stuff"), tmp_path / "out"), lambda _: None)
    first, other = run.example(0), run.example(5)
    assert first.pixels.shape == (1, 3, 32, 32)
    assert first.labels.shape == (1, 64, 64)
    assert set(first.labels.unique().tolist()) <= {-1, *range(171)}
    again = run.example(0)
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.labels, first.labels)
    assert not torch.equal(other.pixels, first.pixels)
    for epoch in range(3):
        shown = [run.describe(2 * epoch + place) for place in range(2)]
        assert sorted(shown) == [f"00000000000{photo}, epoch {epoch}" for photo in (1, 2)]
    with pytest.raises(DataError, match="no label maps"):
        Run(small_catseg.recipe(tmp_path, tmp_path / "out"), lambda _: None)


def test_another_mode_needs_its_rates(tmp_path: Path) -> None:
    recipe = small_catseg.recipe(small_catseg.photos(tmp_path / "stuff"), tmp_path / "out")
    changed = replace(recipe, options=replace(recipe.options, mode="full"))
    with pytest.raises(ConfigError, match="no group says how fast"):
        Run(changed, lambda _: None)
    Run(replace(changed, groups=RECIPES["catseg/ablation-full"]().groups), lambda _: None)


@pytest.fixture(scope="module")
def stuff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_catseg.photos(tmp_path_factory.mktemp("stuff"))


@pytest.mark.parametrize("name", TABLE)
def test_every_recipe_takes_a_step_and_is_validated(name: str, stuff: Path, tmp_path: Path) -> None:
    """Its own network in miniature, and its own groups: what learns gets a gradient, what the mode does not name stays."""
    card, mode, changes = TABLE[name]
    recipe = small_catseg.recipe(stuff, tmp_path / "out", name=name, steps=1, batch_size=1, validate_every=1)
    run = Run(recipe, lambda _: None)
    before = {parameter: tensor.clone() for parameter, tensor in run.model.state_dict().items()}
    trained = optimise(recipe, run, log=lambda _: None)

    first, last = (json.loads(line) for line in (trained / "log.jsonl").read_text(encoding="utf-8").splitlines())
    assert math.isfinite(first["class"])
    assert 0 <= last["validation/mIoU"] <= 1
    learning = {parameter for parameter, tensor in run.model.named_parameters() if tensor.requires_grad}
    assert not [parameter for parameter, tensor in run.model.named_parameters() if parameter in learning and tensor.grad is None]
    moved = {parameter for parameter, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[parameter])}
    assert "aggregator.embed.weight" in moved
    clip = {parameter for parameter in moved if not parameter.startswith(("aggregator.", "upsample"))}
    assert bool(clip) is (mode != "frozen")
    assert all(any(fnmatchcase(parameter, pattern) for pattern in LEARNING[mode]) for parameter in clip)

    model, saved = zoo.load(trained)
    assert saved.name == card
    shrunk = changes | ({"visual_prompts": small_catseg.PROMPTED} if "visual_prompts" in changes else {})
    assert model.config == replace(small_catseg.CARDS[card], **shrunk)


def test_killed_and_resumed_it_ends_as_one_that_ran_through(tmp_path: Path) -> None:
    """Steps lower the loss, keys and everything frozen stay, the result is asked without the pooling of training."""
    root, losses = small_catseg.photos(tmp_path / "stuff"), []
    recipe = small_catseg.recipe(root, tmp_path / "whole", pictures_every=4)
    before = {name: tensor.clone() for name, tensor in Run(recipe, lambda _: None).model.state_dict().items()}
    whole = training.train(recipe, report=lambda _, figures: losses.append(figures["class"]), log=lambda _: None)
    assert losses[-1] < losses[0]
    with Image.open(whole / "pictures" / "0000004.png") as sheet:
        assert sheet.size[0] == 4 * 328 + 8, "what the network says and the truth of two photos"
    program = [sys.executable, small_catseg.__file__, str(root), str(tmp_path / "cut"), "2"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = training.train(small_catseg.recipe(root, tmp_path / "cut"), resume=True, log=lambda _: None)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    model, card = zoo.load(whole)
    assert card.name == "catseg-base"
    assert asdict(model.config) == asdict(small_catseg.SMALL)
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert "aggregator.embed.weight" in changed
    clip = {name for name in changed if not name.startswith(("aggregator.", "upsample"))}
    assert clip
    assert all(name.endswith("attn.qkv.weight") for name in clip)
    name, keys = "image.blocks.0.attn.qkv.weight", slice(TINY.image.width, 2 * TINY.image.width)
    assert torch.equal(after[name][keys], before[name][keys])

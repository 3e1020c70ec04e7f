"""The loop: a run that is stopped and resumed ends bit for bit like one that ran through; what goes wrong says so."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import toy_training
from promptseg.contracts import ParameterGroup
from promptseg.errors import ConfigError, DataError, PromptSegError
from promptseg.training import checkpoints, recipe, recipes, train
from promptseg.training.average import Average
from promptseg.training.journal import LOG, PICTURES
from promptseg.training.loop import BEST, TrainingStopped, optimise
from toy_training import WEIGHTS, ToyRun, toy_recipe


@pytest.fixture(autouse=True)
def _plain_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptseg.training.loop.save_folder", toy_training.save_bare)


class StoppedError(Exception):
    pass


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = torch.load(a / WEIGHTS), torch.load(b / WEIGHTS)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def figures_of(folder: Path) -> list[dict[str, float]]:
    """The log without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory_mb")} for line in lines]


def test_it_learns(tmp_path: Path) -> None:
    seen: list[float] = []
    optimise(toy_recipe(tmp_path, steps=300), ToyRun(dropout=0.0), report=lambda step, figures: seen.append(figures["fit"]))
    assert len(seen) == 300
    assert seen[-1] < 0.1 * seen[0]
    lines = figures_of(tmp_path)
    assert [line["step"] for line in lines] == list(range(300))
    assert lines[2]["rate"] == pytest.approx(0.02 * 2 / 5)


@pytest.mark.parametrize(
    ("stop", "changes"),
    [(2, {}), (1, {"accumulate": 2}), (17, {"workers": 2}), (25, {"ema": None, "clip": None}), (38, {"validate_every": 7, "keep": 3})],
)
def test_stopped_and_resumed_equals_one_that_ran_through(tmp_path: Path, stop: int, changes: dict[str, int]) -> None:
    def interrupt(step: int, _: Mapping[str, float]) -> None:
        if step == stop:
            raise StoppedError

    whole = optimise(toy_recipe(tmp_path / "whole", **changes), ToyRun())
    with pytest.raises(StoppedError):
        optimise(toy_recipe(tmp_path / "cut", **changes), ToyRun(), report=interrupt)
    resumed = optimise(toy_recipe(tmp_path / "cut", **changes), ToyRun(), resume=True)
    assert_same_weights(whole, resumed)
    assert figures_of(resumed) == figures_of(whole)


def test_workers_and_parts_change_nothing(tmp_path: Path) -> None:
    one = optimise(toy_recipe(tmp_path / "one", steps=6), ToyRun(dropout=0.0))
    workers = optimise(toy_recipe(tmp_path / "workers", steps=6, workers=2), ToyRun(dropout=0.0))
    assert_same_weights(one, workers)
    recomputed = optimise(toy_recipe(tmp_path / "recomputed", steps=6, checkpointing=("body",)), ToyRun(dropout=0.0))
    assert_same_weights(one, recomputed)


def _begin(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """The toy run in a process of its own, up to its first checkpoint."""
    process = subprocess.Popen([sys.executable, toy_training.__file__, str(folder), "steps=300", "--pause=0.002", *words])
    for _ in range(600):
        time.sleep(0.1)
        if checkpoints.found(folder):
            break
    assert process.poll() is None, "the run ended before it could be stopped"
    return process


def test_killed_at_a_random_step_and_resumed_equals_one_that_ran_through(tmp_path: Path) -> None:
    process = _begin(tmp_path / "cut")
    time.sleep(random.Random().uniform(0.05, 1.0))
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed at work"
    resumed = optimise(toy_recipe(tmp_path / "cut", steps=300), ToyRun(), resume=True)
    assert_same_weights(optimise(toy_recipe(tmp_path / "whole", steps=300, save_every_s=60.0), ToyRun()), resumed)


def test_asked_to_stop_it_saves_and_exits(tmp_path: Path) -> None:
    def ask(step: int, _: Mapping[str, float]) -> None:
        if step == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match="after 12 of 40 steps; go on with --resume"):
        optimise(toy_recipe(tmp_path / "cut", save_every_s=60.0), ToyRun(), report=ask)
    assert signal.getsignal(signal.SIGTERM) is before
    assert [file.name for file in checkpoints.found(tmp_path / "cut")] == ["checkpoint-0000012.safetensors"]
    resumed = optimise(toy_recipe(tmp_path / "cut"), ToyRun(), resume=True)
    assert_same_weights(optimise(toy_recipe(tmp_path / "whole"), ToyRun()), resumed)


def test_a_broken_loss_is_named_and_its_batch_kept(tmp_path: Path) -> None:
    with pytest.raises(PromptSegError, match=r"step 6, before its update: the loss 'fit' is nan.*broken-step-6-rank-0"):
        optimise(toy_recipe(tmp_path), ToyRun(poison=7))
    kept = checkpoints.load(tmp_path / "broken-step-6-rank-0.safetensors")["batch"]
    assert kept["numbers"] == list(range(48, 56))
    assert kept["x"].shape == (8, 4)


class BadGradient(ToyRun):
    """The square root of 0 in the batch with example 16, step 2: the loss stays finite, its gradient does not."""

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        found = super().losses(batch)
        return {**found, "fit": found["fit"] + (self.model.body.weight * 0).sum().sqrt()} if 16 in batch["numbers"] else found


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"clip": None}, [[*range(16, 24)]]),
        ({"steps": 3}, [[*range(16, 24)]]),  # nothing after it would notice
        ({"accumulate": 2}, [[*range(16, 20)], [*range(20, 24)]]),
    ],
)
def test_a_broken_gradient_stops_before_it_reaches_the_weights(tmp_path: Path, changes: dict[str, Any], kept: list[list[int]]) -> None:
    run = BadGradient()
    with pytest.raises(PromptSegError, match=r"step 2, before its update: the gradient's norm is nan.*broken-step-2-rank-0"):
        optimise(toy_recipe(tmp_path, **changes), run)
    batch = checkpoints.load(tmp_path / "broken-step-2-rank-0.safetensors")["batch"]
    assert [part["numbers"] for part in (batch if isinstance(batch, list) else [batch])] == kept
    assert [file.name for file in checkpoints.found(tmp_path)] == ["checkpoint-0000002.safetensors"]
    assert all(bool(value.isfinite().all()) for value in run.model.state_dict().values())
    assert not (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_that_cannot_be_made_is_named(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match=r"Example 21 \(photo_21.jpg\) could not be made: RuntimeError: cannot identify image file"):
        optimise(toy_recipe(tmp_path, workers=workers), ToyRun(broken=21))


def test_the_best_and_the_newest_are_kept_and_pictures_drawn(tmp_path: Path) -> None:
    optimise(toy_recipe(tmp_path, keep=2, validate_every=10, best="closeness", pictures_every=20), ToyRun())
    assert [file.name for file in checkpoints.found(tmp_path)] == ["checkpoint-0000040.safetensors", "checkpoint-0000039.safetensors"]
    assert (tmp_path / BEST / WEIGHTS).exists()
    assert sorted(file.name for file in (tmp_path / PICTURES).iterdir()) == ["0000020.png", "0000040.png"]
    marked = [line for line in figures_of(tmp_path) if "validation/closeness" in line]
    assert [line["step"] for line in marked] == [9, 19, 29, 39]
    first, last = torch.load(tmp_path / BEST / WEIGHTS), torch.load(tmp_path / WEIGHTS)
    assert not torch.equal(first["head.bias"], last["head.bias"]), "the second of four validations was the best"


def test_an_unknown_figure_for_the_best(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'iou' is no figure of the validation; there are closeness"):
        optimise(toy_recipe(tmp_path, validate_every=1, best="iou"), ToyRun())


def test_tensorboard_hears_of_every_step(tmp_path: Path) -> None:
    optimise(toy_recipe(tmp_path, steps=3, trackers=("tensorboard",)), ToyRun())
    assert any(file.stat().st_size > 100 for file in (tmp_path / "tensorboard").iterdir())


def test_a_begun_run_is_not_overwritten(tmp_path: Path) -> None:
    optimise(toy_recipe(tmp_path), ToyRun())
    with pytest.raises(DataError, match="--resume"):
        optimise(toy_recipe(tmp_path), ToyRun())


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        train(toy_recipe(tmp_path / "taken"))


def test_frozen_parts_and_rates_by_name(tmp_path: Path) -> None:
    run = ToyRun()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    groups = (ParameterGroup(pattern="body.weight", frozen=True), ParameterGroup(pattern="body.*", lr=0.0, weight_decay=0.0))
    optimise(toy_recipe(tmp_path, groups=groups, ema=None), run)
    after = run.model.state_dict()
    assert torch.equal(before["body.weight"], after["body.weight"])
    assert torch.equal(before["body.bias"], after["body.bias"])
    assert not torch.equal(before["head.weight"], after["head.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (ParameterGroup(pattern="bdy.weight", lr=0.1),)}, "No parameter is left for the pattern 'bdy.weight'.*body.weight"),
        ({"groups": (ParameterGroup(pattern="*", frozen=True),)}, "nothing to train"),
        ({"accumulate": 3}, "batch_size 8 cannot be divided by 1 processes x 3 parts"),
        ({"checkpointing": ("bodie",)}, "no part of the network is named 'bodie'.*body"),
    ],
)
def test_recipes_that_do_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimise(toy_recipe(tmp_path, **changes), ToyRun())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_and_resumes(tmp_path: Path, precision: str) -> None:
    seen: list[float] = []

    def interrupt(step: int, figures: Mapping[str, float]) -> None:
        seen.append(figures["fit"])
        if step == 120:
            raise StoppedError

    changes = {"precision": precision, "steps": 200, "save_every_s": 0.01}
    with pytest.raises(StoppedError):
        optimise(toy_recipe(tmp_path / "cut", **changes), ToyRun(), report=interrupt)
    resumed = optimise(toy_recipe(tmp_path / "cut", **changes), ToyRun(), resume=True)
    assert min(seen[-5:]) < 0.3 * seen[0]
    assert torch.load(resumed / WEIGHTS)["head.weight"].dtype == torch.float32
    assert_same_weights(optimise(toy_recipe(tmp_path / "whole", **changes), ToyRun()), resumed)


def test_average_follows_the_weights_and_gives_them_back() -> None:
    model = nn.Linear(2, 1)
    average = Average(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(200):
        average.update(model)
    copy = nn.Linear(2, 1)
    own = copy.weight.clone()
    with average.applied(copy):
        torch.testing.assert_close(copy.weight, model.weight)
        assert not copy.training
    assert torch.equal(copy.weight, own)
    assert copy.training
    average.put_into(copy)
    torch.testing.assert_close(copy.weight, model.weight)


def test_recipes_are_found_by_name() -> None:
    assert "pocket" in recipes()
    assert recipe("pocket").card == "pocket"
    with pytest.raises(ConfigError, match="Did you mean 'pocket'"):
        recipe("pockt")


def test_training_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances\.json cannot be read"):
        train(replace(recipe("pocket"), data=str(tmp_path), output=str(tmp_path / "out")))

"""The loop: a run that is stopped and resumed ends bit for bit like one that ran through; what goes wrong says so."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import toy_training
from promptseg.contracts import ParameterGroup
from promptseg.errors import ConfigError, DataError, PromptSegError, TrainingStopped
from promptseg.training import checkpoints, recipe, recipes, train
from promptseg.training.average import Average
from promptseg.training.estimate import measure
from promptseg.training.journal import LOG, PICTURES
from promptseg.training.loop import BEST, optimise
from promptseg.training.record import MAY_DIFFER, RECIPE
from promptseg.training.schedules import Cosine, Warmup
from promptseg.zoo.configs import to_plain
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
    recipe = toy_recipe(tmp_path, steps=300, save_every_s=60.0)
    optimise(recipe, ToyRun(dropout=0.0), report=lambda step, figures: seen.append(figures["fit"]))
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


@pytest.mark.parametrize(("sent", "workers"), [(signal.SIGTERM, 0), (signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_asked_to_stop_it_saves_and_exits(tmp_path: Path, sent: signal.Signals, workers: int) -> None:
    def ask(step: int, _: Mapping[str, float]) -> None:
        if step == 11:
            if sent == signal.SIGINT:  # as Ctrl-C in a terminal, which all processes hear
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, sent)
            os.kill(os.getpid(), sent)

    before = signal.getsignal(sent)
    with pytest.raises(TrainingStopped, match="after 12 of 40 steps; go on with --resume"):
        optimise(toy_recipe(tmp_path / "cut", save_every_s=60.0, workers=workers), ToyRun(), report=ask)
    assert signal.getsignal(sent) is before
    assert [file.name for file in checkpoints.found(tmp_path / "cut")] == ["checkpoint-0000012.safetensors"]
    resumed = optimise(toy_recipe(tmp_path / "cut"), ToyRun(), resume=True)
    assert_same_weights(optimise(toy_recipe(tmp_path / "whole"), ToyRun()), resumed)


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    def ask(step: int, _: Mapping[str, float]) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        optimise(toy_recipe(tmp_path, save_every_s=60.0), ToyRun(), report=ask)
    assert not checkpoints.found(tmp_path)


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


class Uneven(ToyRun):
    """Example 21 has another size."""

    def example(self, number: int) -> tuple[int, Tensor]:
        return (number, torch.zeros(5)) if number == 21 else super().example(number)


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_that_do_not_go_together_are_named(tmp_path: Path, workers: int) -> None:
    with pytest.raises(
        DataError, match=r"Examples 16 \(photo_16.jpg\) to 23 \(photo_23.jpg\) could not be put into one batch: .*size"
    ) as error:
        optimise(toy_recipe(tmp_path, workers=workers), Uneven())
    assert "Traceback" not in str(error.value)


class Killing(ToyRun):
    """The worker that makes example 21 is killed, as by a system that is short of memory."""

    def example(self, number: int) -> tuple[int, Tensor]:
        if number == 21:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().example(number)


def test_a_worker_that_dies_names_the_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"over one of the examples (\d+) \(photo_\d+.jpg\) to (\d+) .*[Tt]ake fewer workers") as error:
        optimise(toy_recipe(tmp_path, workers=1), Killing())
    first, last = re.findall(r"(\d+) \(photo", str(error.value))
    assert int(first) <= 21 <= int(last) < 21 + 24
    assert re.search(r"DataLoader worker .*(Killed|exited unexpectedly)", str(error.value))


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validate_every": 1}, "validate_every: the training of 'toy' has no validation"),
        ({"validate_every": 1, "best": "mIoU"}, "validate_every: the training of 'toy' has no validation"),
        ({"pictures_every": 1}, "pictures_every: the training of 'toy' has no pictures"),
    ],
)
def test_what_a_run_does_not_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str) -> None:
    for method in ("validate", "pictures"):
        monkeypatch.delattr(ToyRun, method)
    for begin in (optimise, measure):
        with pytest.raises(ConfigError, match=message):
            begin(toy_recipe(tmp_path, **changes), ToyRun())
    assert not (tmp_path / LOG).exists()


def test_tensorboard_hears_of_all_of_it_once(tmp_path: Path) -> None:
    """Stopped after the sixth of eight steps, whose last checkpoint is of the fourth: the fifth and sixth are taken twice."""
    recipe = toy_recipe(tmp_path, steps=4, trackers=("tensorboard",), save_every_s=60.0, validate_every=4, pictures_every=4)
    optimise(recipe, ToyRun())

    def interrupt(step: int, _: Mapping[str, float]) -> None:
        if step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        optimise(replace(recipe, steps=8), ToyRun(), resume=True, report=interrupt)
    optimise(replace(recipe, steps=8), ToyRun(), resume=True)
    heard = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = figures_of(tmp_path)
    for name in ("fit", "rate", "validation/closeness"):
        told = [(line["step"], line[name]) for line in lines if name in line]
        assert len(told) == (2 if "validation" in name else 8)
        assert [(event.step, pytest.approx(event.value, rel=1e-5)) for event in heard.Scalars(name)] == told
    assert [(event.step, event.width, event.height) for event in heard.Images(PICTURES)] == [(3, 4, 4), (7, 4, 4)]


def test_trackio_hears_of_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, list[str]]] = []

    class Heard:
        def log(self, values: dict[str, Any], step: int) -> None:
            heard.append((step, list(values)))

        def finish(self) -> None:
            heard.append((-1, []))

    stand_in = SimpleNamespace(Image=lambda image: image.size, init=lambda **_: Heard())
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    optimise(toy_recipe(tmp_path, steps=2, trackers=("trackio",), validate_every=2, pictures_every=2), ToyRun())
    steps = [(step, names) for step, names in heard if "fit" in names]
    assert [step for step, _ in steps] == [0, 1]
    assert heard[-3:] == [(1, ["validation/closeness", "validation/error"]), (1, [PICTURES]), (-1, [])]


def test_a_begun_run_is_not_overwritten(tmp_path: Path) -> None:
    optimise(toy_recipe(tmp_path), ToyRun())
    with pytest.raises(DataError, match="--resume"):
        optimise(toy_recipe(tmp_path), ToyRun())


def test_where_there_is_nothing_to_resume_a_run_begins_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    for steps in (2, 3):
        optimise(toy_recipe(tmp_path, steps=steps), ToyRun(), resume=True, log=said.append)
    assert said == [f"There is no run in {tmp_path} to go on with: one begins."]


def test_a_run_keeps_its_recipe_and_goes_on_with_it_alone(tmp_path: Path) -> None:
    begun = toy_recipe(tmp_path, steps=6, batch_size=4, keep=2)
    optimise(begun, ToyRun())
    assert json.loads((tmp_path / RECIPE).read_text()) == json.loads(json.dumps(to_plain(begun)))
    for changes, message in (
        ({"batch_size": 8}, "batch_size: the run in .* was begun with 4, not 8"),
        ({"lr": 9.0}, "lr: the run in .* was begun with 0.02, not 9.0"),
        ({"schedule": Warmup(steps=2, main=Cosine())}, "schedule.steps: the run in .* was begun with 5, not 2"),
        ({"steps": 5}, "steps: the run in .* has taken 6 already; 5 are fewer"),
    ):
        with pytest.raises(ConfigError, match=message):
            optimise(replace(begun, **changes), ToyRun(), resume=True)
    assert [checkpoints.step_of(file) for file in checkpoints.found(tmp_path)] == [6, 5], "a refusal touches nothing"
    moved = (tmp_path / "out").resolve()
    optimise(replace(begun, output=str(moved)), ToyRun())
    free = {"steps": 7, "workers": 1, "save_every_s": 60.0, "keep": 3, "validate_every": 7, "pictures_every": 7}
    free["trackers"] = ("tensorboard",)
    assert set(free) | {"output"} == set(MAY_DIFFER)
    optimise(replace(begun, output=f"{tmp_path}/./out", **free), ToyRun(), resume=True)
    assert [checkpoints.step_of(file) for file in checkpoints.found(moved)] == [7, 6, 5]
    assert json.loads((moved / RECIPE).read_text())["steps"] == 7
    (moved / RECIPE).unlink()
    optimise(replace(begun, output=str(moved), steps=7, seed=5), ToyRun(), resume=True)
    (moved / RECIPE).write_text("{")
    with pytest.raises(DataError, match=r"recipe.json, the recipe of the run to resume, cannot be read"):
        optimise(replace(begun, output=str(moved), steps=7), ToyRun(), resume=True)


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


def test_what_the_family_froze_stays_frozen_and_is_counted_so(tmp_path: Path) -> None:
    run = ToyRun()
    run.model.head.requires_grad_(False)
    groups = (ParameterGroup(pattern="head.*", lr=0.1), ParameterGroup(pattern="*.weight", lr=0.5))
    plan = measure(toy_recipe(tmp_path, groups=groups), run)
    assert [(group.pattern, group.names) for group in plan.groups] == [("*.weight", ("body.weight",)), ("", ("body.bias",))]
    assert (plan.trainable, plan.total) == (32 + 8, 32 + 8 + 8 + 1)


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


class Compilable(ToyRun):
    """Remembers nothing that changes from step to step, which would be compiled anew."""

    def collate(self, examples: Sequence[tuple[int, Tensor]]) -> dict[str, Any]:
        return {"x": torch.stack([x for _, x in examples])}

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"fit": (self.model.fit(batch["x"]) - batch["x"].sum(1)).square().mean()}


def test_a_compiled_step_is_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled as far as the graph, which PyTorch itself then runs; with dropout, stopped and resumed."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def interrupt(step: int, _: Mapping[str, float]) -> None:
        if step == 3:
            raise StoppedError

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    whole = optimise(toy_recipe(tmp_path / "whole", steps=6), Compilable())
    assert not graphs
    changes = {"steps": 6, "compile": True}
    with pytest.raises(StoppedError):
        optimise(toy_recipe(tmp_path / "cut", **changes), Compilable(), report=interrupt)
    assert len(graphs) == 1
    assert_same_weights(whole, optimise(toy_recipe(tmp_path / "cut", **changes), Compilable(), resume=True))
    assert figures_of(whole) == figures_of(tmp_path / "cut")


@pytest.mark.skipif(
    shutil.which("g++") is None or not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists(),
    reason="torch.compile needs a C++ compiler and Python's headers",
)
def test_a_step_compiled_to_machine_code_learns_the_same(tmp_path: Path) -> None:
    """Its dropout draws otherwise; all else is the same arithmetic."""
    whole, compiled = (
        optimise(toy_recipe(tmp_path / str(code), steps=4, compile=code), Compilable(dropout=0.0)) for code in (False, True)
    )  # fmt: skip
    for line, other in zip(figures_of(whole), figures_of(compiled), strict=True):
        assert other["fit"] == pytest.approx(line["fit"], rel=1e-4)
    first, second = torch.load(whole / WEIGHTS), torch.load(compiled / WEIGHTS)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_is_not_averaged_is_left_as_the_last_step_made_it(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 1)
    model.bias = nn.Parameter(torch.zeros(1, dtype=dtype))
    average = Average(model, 0.9)
    with torch.no_grad():
        model.bias.fill_(1.0)
    average.update(model)
    average.put_into(model)
    assert model.bias.item() == 1


def test_frozen_parameters_are_not_copied_and_buffers_are_averaged() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    average = Average(model, 0.9)
    assert set(average.shadow) == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    model[1].running_mean.fill_(1.0)
    average.update(model)
    with average.applied(model):
        assert torch.equal(model[0].weight, frozen)
        assert 0 < model[1].running_mean[0].item() < 1
    assert model[1].running_mean[0].item() == 1


def test_recipes_are_found_by_name() -> None:
    assert "pocket" in recipes()
    assert recipe("pocket").card == "pocket"
    with pytest.raises(ConfigError, match="Did you mean 'pocket'"):
        recipe("pockt")


def test_training_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances\.json cannot be read"):
        train(replace(recipe("pocket"), data=str(tmp_path), output=str(tmp_path / "out")))

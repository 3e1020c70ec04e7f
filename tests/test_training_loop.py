"""The loop: a run that is stopped and resumed ends bit for bit like one that ran through; what goes wrong says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from promptseg.contracts import Recipe
from promptseg.errors import ConfigError, DataError, PromptSegError
from promptseg.training import recipe, recipes, train
from promptseg.training.loop import CHECKPOINT, LOG, Average, optimise, rate


class ToyRun:
    """A linear fit whose loss also reads what the run remembers."""

    def __init__(self, poison: int | None = None, pause: float = 0.0) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = nn.Linear(4, 1)
        self.seen, self.poison, self.pause = 0, poison, pause

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.model.weight], "lr": 1.0}, {"params": [self.model.bias], "lr": 0.1}]

    def batch(self, step: int) -> Tensor:
        time.sleep(self.pause)
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        self.seen += 1
        fit = (self.model(batch).squeeze(1) - batch.sum(1)).square().mean()
        return {"fit": fit * (float("nan") if self.seen == self.poison else 1.0), "memory": fit * 0.01 * (self.seen % 3)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def _recipe(output: Path, **changes: Any) -> Recipe:
    values = {"steps": 40, "warmup": 5, "save_every_s": 0.0, **changes}
    return Recipe(name="toy", card="pocket", data="", output=str(output), batch_size=8, lr=0.05, **values)


@pytest.fixture(autouse=True)
def _plain_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy network has no family; its weights are kept as a bare file."""
    monkeypatch.setattr("promptseg.training.loop.save_folder", _save_bare)


def _save_bare(model: nn.Module, folder: Path, card: str) -> Path:
    torch.save(model.state_dict(), folder / "weights.pt")
    return folder


@dataclass
class StoppedError(Exception):
    step: int


def test_it_learns(tmp_path: Path) -> None:
    seen: list[float] = []
    optimise(_recipe(tmp_path, steps=200), ToyRun(), report=lambda step, values: seen.append(values["fit"]))
    assert len(seen) == 200
    assert seen[-1] < 0.05 * seen[0]
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(200))


@pytest.mark.parametrize("stop", [0, 1, 17, 38])
def test_stopped_and_resumed_equals_one_that_ran_through(tmp_path: Path, stop: int) -> None:
    def interrupt(step: int, _: dict[str, float]) -> None:
        if step == stop:
            raise StoppedError(step)

    whole = optimise(_recipe(tmp_path / "whole"), ToyRun())
    with pytest.raises(StoppedError):
        optimise(_recipe(tmp_path / "cut"), ToyRun(), report=interrupt)
    resumed = optimise(_recipe(tmp_path / "cut"), ToyRun(), resume=True)
    _assert_same_weights(whole, resumed)
    assert (resumed / LOG).read_text() == (whole / LOG).read_text()


def test_killed_and_resumed_equals_one_that_ran_through(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_training_loop as t; from pathlib import Path\n"
        "t.optimise(t._recipe(Path(sys.argv[1]), steps=400), t.ToyRun(pause=0.01))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cut")])
    try:
        for _ in range(600):
            time.sleep(0.1)
            if (tmp_path / "cut" / CHECKPOINT).exists():
                break
        time.sleep(0.3)
        assert process.poll() is None, "the run ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    resumed = optimise(_recipe(tmp_path / "cut", steps=400), ToyRun(), resume=True)
    _assert_same_weights(optimise(_recipe(tmp_path / "whole", steps=400), ToyRun()), resumed)


def _assert_same_weights(a: Path, b: Path) -> None:
    first, second = torch.load(a / "weights.pt"), torch.load(b / "weights.pt")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_broken_loss_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptSegError, match=r"step 6: the loss 'fit' is nan"):
        optimise(_recipe(tmp_path), ToyRun(poison=7))


def test_a_begun_run_is_not_overwritten(tmp_path: Path) -> None:
    optimise(_recipe(tmp_path), ToyRun())
    with pytest.raises(DataError, match="--resume"):
        optimise(_recipe(tmp_path), ToyRun())


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        train(_recipe(tmp_path / "taken"))


def test_schedule_warms_up_and_ends_at_zero() -> None:
    assert rate(0, 100, 10) == 0.1
    assert rate(9, 100, 10) == 1.0
    assert rate(10, 100, 10) == 1.0
    assert rate(55, 100, 10) == pytest.approx(0.5)
    assert rate(99, 100, 10) < 0.001


def test_average_follows_the_weights() -> None:
    model = nn.Linear(2, 1)
    average = Average(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(200):
        average.update(model)
    copy = nn.Linear(2, 1)
    average.put_into(copy)
    torch.testing.assert_close(copy.weight, model.weight)


def test_recipes_are_found_by_name() -> None:
    assert "pocket" in recipes()
    assert recipe("pocket").card == "pocket"
    with pytest.raises(ConfigError, match="Did you mean 'pocket'"):
        recipe("pockt")


def test_training_data_that_is_not_there(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(DataError, match=r"instances\.json cannot be read"):
        train(replace(recipe("pocket"), data=str(tmp_path), output=str(tmp_path / "out")))

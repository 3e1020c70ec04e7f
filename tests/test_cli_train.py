"""``promptseg train`` from end to end with `pocket` at toy size."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import promptseg
import small_photosets
import small_pocket
from command_line import Cli
from promptseg import training
from promptseg.cli.train import _duration, reporter
from promptseg.errors import TrainingStopped
from promptseg.models.pocket import recipes, start
from promptseg.training import finetuning, loop

SIZES = ("variant", "width", "heads", "blocks", "classes", "text_width", "pieces", "piece_bytes")
CONFIG = {key: getattr(small_pocket.CONFIG, key) for key in SIZES}
RECIPE = f"""\
base: pocket/first
steps: 3
batch_size: 4
save_every_s: 0
options:
  size: 64
  first_steps: 0
  prompts: 4
  config: {json.dumps({**CONFIG, "preprocess": {"size": 64}})}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_pocket.stand_in(monkeypatch)
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "mine.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_photosets.write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


def test_a_file_is_trained_and_what_comes_out_loads(cli: Cli, file: Path, data: Path, tmp_path: Path) -> None:
    code, out, err = cli("train", str(file), "lr=5e-4", "--data", str(data), "--output", str(tmp_path / "out"))
    assert code == 0, err
    assert "mine: 3 steps of 4" in out
    assert "step      2  mask" in out
    assert promptseg.load(tmp_path / "out")(data / "coco" / "images" / "0.jpg", "dog")[0].mask.shape == (48, 64)
    code, _, err = cli("train", str(file), "--data", str(data), "--output", str(tmp_path / "out"))
    assert code == 1
    assert "--resume" in err


def test_a_training_that_builds_on_another_has_that_first(
    cli: Cli, file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "SCORE", 0.0)
    base = recipes.first()
    small = replace(base.options, size=64, first_steps=0, prompts=4)
    monkeypatch.setitem(recipes.RECIPES, "pocket/first", lambda: replace(base, steps=2, batch_size=4, options=small))
    file.write_text(RECIPE.replace("base: pocket/first", "base: pocket/second"), encoding="utf-8")
    words = ("train", str(file), "options.first_size=64", "--data", str(data), "--output", str(tmp_path / "out"))
    code, out, err = cli(*words, "--dry-run")
    assert code == 0, err
    assert "2 steps of 4: about a minute" in out
    assert "Then mine: 3 steps of 4" in out
    code, out, err = cli(*words)
    assert code == 0, err
    said = [line.partition(" from ")[0] for line in out.splitlines() if " steps of " in line]
    assert said == ["pocket/first: 2 steps of 4", "mine: 3 steps of 4"]
    assert promptseg.load(tmp_path / "out" / "first").card.config.preprocess.size == 448


def test_a_dry_run_shows_what_it_would_take_and_trains_nothing(cli: Cli, file: Path, data: Path, tmp_path: Path) -> None:
    code, out, err = cli("train", str(file), "--data", str(data), "--output", str(tmp_path / "out"), "--dry-run")
    assert code == 0, err
    for expected in (
        '"size": 64',
        "tower.*|classifier.*",
        "0.0002",
        "trainable",
        "frozen",
        "One measured step",
        "3 steps of 4: about a minute",
    ):
        assert expected in out, expected
    assert not list((tmp_path / "out").glob("checkpoint*"))


@pytest.mark.parametrize(
    ("hours", "said"), [(0.001, "a minute"), (0.2, "12 minutes"), (0.99, "59 minutes"), (1.0, "1.0 hours"), (30.04, "30.0 hours")]
)
def test_how_long_it_takes(hours: float, said: str) -> None:
    assert _duration(hours) == said


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "160")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with reporter(3) as report:
        for step in range(3):
            report(step, {"mask": 0.5 - step / 10, "rate": 2e-3, "seconds": 0.25, "memory_mb": 321.0})
    out, err = capsys.readouterr()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err).replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"━+ 3/3 \d:\d\d:\d\d mask 0\.3000  rate 2\.00e-03  0\.25 s  321 MB", last), last
    assert out == ""


def test_a_run_that_is_asked_to_stop_goes_on_with_resume(
    cli: Cli, file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.Training.step

    def stopping(self: loop.Training, number: int, parts: list[Any]) -> Mapping[str, float]:
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, parts)

    words = ("train", str(file), "--data", str(data), "--output", str(tmp_path / "out"))
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "step", stopping)
        code, _, err = cli(*words)
    assert code == 130
    assert "Stopped after 2 of 3 steps; go on with --resume." in err
    code, out, err = cli(*words, "--resume")
    assert code == 0, err
    assert "Trained" in out


def test_a_fine_tuning_that_is_asked_to_stop_ends_alike(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise TrainingStopped("Stopped after 2 of 3 steps; go on with --resume.")

    monkeypatch.setattr(finetuning, "finetune", stopped)
    code, _, err = cli("finetune", "photos")
    assert (code, err) == (130, "promptseg: Stopped after 2 of 3 steps; go on with --resume.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pockte",), "There is no recipe 'pockte'. Did you mean 'pocket'? `promptseg train list` shows all."),
        (("pocket", "stepps=3"), "'stepps=3': there is no setting 'stepps'"),
        (("list", "nix"), "No recipe begins with 'nix'"),
        (("list", "pocket", "psalm"), "one family at a time; 'psalm' is one word too many."),
        (("pocket", "steps"), "write key=value"),
        (("nowhere.yaml",), "cannot be read"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, words: tuple[str, ...], message: str) -> None:
    code, _, err = cli("train", *words)
    assert code == 1
    assert message in err
    assert "Traceback" not in err


def test_recipes_are_listed_with_what_sets_them_apart(cli: Cli) -> None:
    _, out, _ = cli("train", "list")
    lines = out.splitlines()[:-1]
    assert [line.split()[0] for line in lines] == list(training.recipes())
    assert all(line.endswith(".") for line in lines)  # each with its sentence
    _, out, _ = cli("train", "list", "pocket")
    assert "on from `third`" in next(line for line in out.splitlines() if line.startswith("pocket "))
    assert "clipseg/" not in out


def test_help_teaches(cli: Cli) -> None:
    _, out, _ = cli("train", "--help")
    assert "accelerate launch" in out
    assert "--dry-run" in out

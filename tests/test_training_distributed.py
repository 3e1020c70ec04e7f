"""Two processes train like one: the same losses and weights, one log, one writer; DDP and FSDP2 over gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import small_phrasecut
import toy_training
from promptseg import zoo
from promptseg.models.clipseg.run import ClipSegRun
from promptseg.training import checkpoints
from promptseg.training.files import read, with_words
from promptseg.training.loop import optimise
from test_training_loop import figures_of
from toy_training import WEIGHTS, ToyRun, toy_recipe

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "NO_WRAP", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}  # fmt: skip


def _launched(folder: Path, *words: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    """The command that trains in two processes, and its environment."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", toy_training.__file__, str(folder)]
    return [*command, "--memory=0", *words], {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment}


def _two(folder: Path, *words: str, expected: int | None = 0, **environment: str) -> None:
    command, free = _launched(folder, *words, **environment)
    result = subprocess.run(command, env=free, capture_output=True, text=True, timeout=120)
    assert expected is None or result.returncode == expected, result.stderr[-3000:]


def _alone(folder: Path, *words: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("promptseg.training.loop.save_folder", toy_training.save_bare)
        return optimise(with_words(toy_recipe(folder), words), ToyRun(dropout=0.0, memory=0.0), resume=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of eight steps."""
    return _alone(tmp_path_factory.mktemp("alone"), "steps=8", "validate_every=4")


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, alone: Path) -> Path:
    """What it makes of eight more."""
    return _alone(shutil.copytree(alone, tmp_path_factory.mktemp("longer") / "run"), "steps=16", "validate_every=4")


@pytest.mark.parametrize(("words", "environment"), [((), {}), (("accumulate=2",), {}), ((), FSDP2)], ids=["ddp", "ddp-parts", "fsdp2"])
def test_two_processes_are_one_with_twice_the_batch(
    tmp_path: Path, alone: Path, longer: Path, words: tuple[str, ...], environment: dict[str, str]
) -> None:
    _two(tmp_path, "steps=8", "validate_every=4", "--dropout=0", *words, **environment)
    ours, theirs = figures_of(tmp_path), figures_of(alone)
    assert [line["step"] for line in ours] == [0, 1, 2, 3, 3, 4, 5, 6, 7, 7], "one process writes the log; two lines are of validations"
    for mine, other in zip(ours, theirs, strict=True):
        name = "validation/error" if "validation/error" in other else "fit"
        assert mine[name] == pytest.approx(other[name], rel=1e-4)
    first, second = torch.load(tmp_path / WEIGHTS), torch.load(alone / WEIGHTS)
    for key, value in second.items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5)
    state = checkpoints.load(checkpoints.found(tmp_path)[0])
    assert [_seed(rank["random"]["torch"]) for rank in state["ranks"]] == [0, 1], "each process's own generator is kept"
    _alone(tmp_path, *words, "steps=16", "validate_every=4")
    assert figures_of(tmp_path)[10:] == [pytest.approx(line, rel=1e-3) for line in figures_of(longer)[10:]], "one may go on alone"


def test_what_one_began_two_go_on_with_in_shards(tmp_path: Path, alone: Path, longer: Path) -> None:
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    _two(tmp_path, "steps=16", "validate_every=4", "--dropout=0", **FSDP2)
    assert figures_of(tmp_path)[10:] == [pytest.approx(line, rel=1e-3) for line in figures_of(longer)[10:]]
    state = checkpoints.load(checkpoints.found(tmp_path)[0])
    assert [_seed(rank["random"]["torch"]) for rank in state["ranks"]] == [0, 1], "the second draws for itself"


def _seed(state: torch.Tensor) -> int:
    """That a generator of torch began with: the first number of its state."""
    return int(state[:8].view(torch.int64))


@pytest.mark.parametrize("environment", [{}, FSDP2], ids=["ddp", "fsdp2"])
def test_two_processes_that_are_killed_go_on_bit_for_bit(tmp_path: Path, environment: dict[str, str]) -> None:
    _two(tmp_path / "whole", "steps=8", **environment)
    _two(tmp_path / "cut", "steps=8", "--die=5", expected=None, **environment)
    assert checkpoints.found(tmp_path / "cut")[0].name == "checkpoint-0000005.safetensors"
    _two(tmp_path / "cut", "steps=8", **environment)
    states = [checkpoints.load(checkpoints.found(tmp_path / name)[0])["ranks"] for name in ("whole", "cut")]
    drawn = [[one["random"]["torch"] for one in ranks] for ranks in states]
    assert all(map(torch.equal, *drawn)), "both drew what they would have drawn"
    assert not torch.equal(*drawn[0]), "and not the same"
    first, second = torch.load(tmp_path / "whole" / WEIGHTS), torch.load(tmp_path / "cut" / WEIGHTS)
    for key, value in second.items():
        assert torch.equal(first[key], value), key


def test_two_processes_that_are_asked_to_stop_save_together(tmp_path: Path) -> None:
    """The launcher passes the signal on; both end after the same step."""
    command, free = _launched(tmp_path / "cut", "steps=300", "--pause=0.02")
    launcher = subprocess.Popen(command, env=free, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        time.sleep(0.1)
        if checkpoints.found(tmp_path / "cut"):
            break
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(60) != 0
    assert "go on with --resume" in (launcher.stderr.read() if launcher.stderr else "")
    step = checkpoints.load(checkpoints.found(tmp_path / "cut")[0])["step"]
    assert 0 < step < 300
    _two(tmp_path / "cut", "steps=300")
    assert [line["step"] for line in figures_of(tmp_path / "cut")] == list(range(300))
    _two(tmp_path / "whole", "steps=300")
    first, second = torch.load(tmp_path / "whole" / WEIGHTS), torch.load(tmp_path / "cut" / WEIGHTS)
    for key, value in second.items():
        assert torch.equal(first[key], value), key


def test_clipseg_by_the_command_line_in_two_processes(tmp_path: Path) -> None:
    """Sharded and replicated end alike, validation and pictures included, and one of the two processes speaks; one alone finds the same."""
    photos, file = small_phrasecut.photos(tmp_path / "photos"), tmp_path / "mini.yaml"
    small = small_phrasecut.recipe("clipseg/pc-plus", photos, tmp_path)
    file.write_text(f"base: clipseg/pc-plus\noptions: {json.dumps(asdict(small.options))}\n")
    options = ["steps=3", "batch_size=4", "precision=float32", "workers=0", "validate_every=3", "pictures_every=3", "--data", str(photos)]
    found = []
    for name, environment in (("ddp", {}), ("fsdp2", FSDP2)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "promptseg", "train"]
        free = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment}
        words = [*options, "-o", str(tmp_path / name)]
        result = subprocess.run([*command, str(file), *words], env={**os.environ, **free}, capture_output=True, text=True, timeout=240)
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stdout.count("Trained") == 1
        assert (tmp_path / name / "pictures" / "0000003.png").exists()
        found.append((figures_of(tmp_path / name)[-1], load_file(tmp_path / name / "model.safetensors")))
    (figures, weights), (others, sharded) = found
    assert others["validation/AP"] == pytest.approx(figures["validation/AP"], abs=1e-4)
    for key, value in weights.items():
        torch.testing.assert_close(sharded[key], value, rtol=1e-4, atol=1e-5)
    alone = ClipSegRun(replace(read(file), data=str(photos), validate_every=3), log=lambda _: None)
    alone.model = zoo.load(tmp_path / "ddp")[0].eval()
    assert len(alone.looked_at) > 1, "each process has some"
    assert figures == {"step": 2, **{f"validation/{name}": value for name, value in alone.validate().items()}}

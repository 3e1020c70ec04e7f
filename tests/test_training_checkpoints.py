"""Checkpoints: whole or not there, readable without pickle, and every kind of state comes back as it was."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy_training
from promptseg.errors import DataError
from promptseg.training import checkpoints
from promptseg.training.loop import optimise
from toy_training import ToyRun, toy_recipe


@pytest.fixture(autouse=True)
def _plain_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptseg.training.loop.save_folder", toy_training.save_bare)


SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8)
TENSORS = st.sampled_from(
    [torch.arange(6.0).view(2, 3), torch.tensor(3), torch.zeros(0, 4), torch.tensor([1, 2], dtype=torch.uint8), torch.ones(2).bfloat16()]
)
KEYS = st.text(max_size=5) | st.integers(-5, 5) | st.tuples(st.integers(0, 3), st.text(max_size=2))
STATES = st.recursive(
    SCALARS | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


@given(STATES)
def test_every_state_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    file = tmp_path_factory.mktemp("state") / "checkpoint-0000001.safetensors"
    checkpoints.save(file, state)
    assert _same(checkpoints.load(file), state)
    assert [found.name for found in file.parent.iterdir()] == [file.name]


def test_what_a_checkpoint_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/run/model holds a Linear"):
        checkpoints.save(tmp_path / "checkpoint-0000001.safetensors", {"run": {"model": torch.nn.Linear(1, 1)}})


def test_generators_go_on_where_they_were() -> None:
    state = checkpoints.random_state()
    drawn = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002  # the global generator is what is kept
    checkpoints.restore_random_state(state)
    assert (random.random(), np.random.rand(), torch.rand(1)) == drawn  # noqa: NPY002


@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten", "header"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    optimise(toy_recipe(tmp_path, keep=2), ToyRun())
    newest, before = checkpoints.found(tmp_path)
    content = newest.read_bytes()
    newest.write_bytes(
        {"cut": content[: len(content) // 2], "emptied": b"", "overwritten": b"\x80\x02cos\nsystem\n", "header": b"\xff" * 16 + content}[
            damage
        ]
    )
    lines: list[str] = []
    state = checkpoints.newest(tmp_path, lines.append)
    assert state is not None
    assert state["step"] == 39
    assert newest.name in lines[0]
    before.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        checkpoints.newest(tmp_path, lines.append)


def test_another_safetensors_file_is_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "checkpoint-0000001.safetensors")
    with pytest.raises(DataError, match="is not a checkpoint of a training run"):
        checkpoints.load(tmp_path / "checkpoint-0000001.safetensors")


def test_a_full_disk_corrupts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimise(toy_recipe(tmp_path, steps=10, save_every_s=60.0), ToyRun())

    def fails(tensors: Any, file: Path, **_: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", fails)
        with pytest.raises(DataError, match=r"the disk is full.*Earlier checkpoints are whole"):
            optimise(toy_recipe(tmp_path, steps=20), ToyRun(), resume=True)
    assert [file.name for file in tmp_path.glob("checkpoint*")] == ["checkpoint-0000010.safetensors"]
    optimise(toy_recipe(tmp_path, steps=20), ToyRun(), resume=True)
    assert checkpoints.found(tmp_path)[0].name == "checkpoint-0000020.safetensors"


def test_a_full_disk_leaves_the_log_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of steps that will be taken again are left out of a draft beside it."""
    optimise(toy_recipe(tmp_path, steps=4), ToyRun())
    log = tmp_path / "log.jsonl"
    written = log.read_bytes()
    log.write_bytes(written + b'{"step": 4, "fi')
    before, write = log.read_bytes(), Path.write_text

    def fails(file: Path, text: str, **named: Any) -> int:
        if file.name.startswith(log.name):
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, text, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fails)
        with pytest.raises(DataError, match=r"log\.jsonl could not be written: the disk is full"):
            optimise(toy_recipe(tmp_path, steps=6), ToyRun(), resume=True)
    assert log.read_bytes() == before
    optimise(toy_recipe(tmp_path, steps=6), ToyRun(), resume=True)
    assert log.read_bytes().startswith(written)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("file", ["log.jsonl", "pictures/0000004.png", "best"])
def test_a_disk_that_fills_up_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """A limit on the size of files, a device that is always full, and a network that cannot be saved."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(step: int, _: Any) -> None:
        if step == 1 and file == "log.jsonl":
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))

    def fails(model: Any, folder: Path, card: str, *, trained: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if "pictures" in file:
        (tmp_path / "pictures").mkdir()
        (tmp_path / file).symlink_to("/dev/full")
    if file == "best":
        monkeypatch.setattr("promptseg.training.loop.save_folder", fails)
    recipe = toy_recipe(tmp_path, steps=6, save_every_s=60.0, validate_every=4, best="closeness", pictures_every=4)
    try:
        with pytest.raises(DataError, match=rf"{file} could not be written: .*(disk is full|too large).*go on with --resume"):
            optimise(recipe, ToyRun(), report=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)  # nothing is forbidden to the superuser
    try:
        with pytest.raises(DataError, match=r"cannot be written: Permission denied. Choose another with --output"):
            optimise(toy_recipe(tmp_path), ToyRun())
    finally:
        os.seteuid(me)
        tmp_path.chmod(0o755)


def test_a_disk_that_is_too_small_is_noticed_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 90, 10))
    seen: list[int] = []
    with pytest.raises(DataError, match="MB free; a run needs"):
        optimise(toy_recipe(tmp_path), ToyRun(), report=lambda step, figures: seen.append(step))
    assert seen == []


def test_leftovers_of_interrupted_writes_go(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-0000003.safetensors.part").write_bytes(b"half")
    optimise(toy_recipe(tmp_path, steps=5), ToyRun())
    assert [file.name for file in tmp_path.glob("checkpoint*")] == ["checkpoint-0000005.safetensors"]

"""Two processes with half a batch each: losses, gradients and statistics are those of the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small_captions
from promptseg import training
from promptseg.models.groupvit.network import Model
from small_groupvit import CONFIG
from test_training_loop import figures_of

TEXTS = [[f"thing {i}", f"a photo of a thing {i}.", f"art of the thing {i}."] for i in range(4)]

# Zero in exact arithmetic, so that what is computed is rounding: constants that a softmax does not see or a norm takes away again.
ZERO = (
    "*.pre.attn.k.bias",  # the same for every query
    "*.assign.q.bias",  # the same for every group
    "*.mlp_tokens.down.bias",  # the same in every channel, before a layer norm
    "*.group_projector.1.down.bias",
    "*_projector.hidden.0.bias",  # the same in every row, before a batch norm
    "image.norm.bias",  # and what leads to it by a linear layer
    "text.norm_final.bias",
)


def network(hard: bool = False) -> Model:
    """In double precision, but for what is never."""
    torch.manual_seed(0)
    return Model(replace(CONFIG, image=replace(CONFIG.image, hard=hard))).double().train()


def learned(net: Model, part: slice) -> dict[str, Tensor]:
    """Losses and gradients of a part of the batch, by name; the noise of hard assignment, else drawn in each process, is given."""
    random = torch.Generator().manual_seed(7)
    noise = [-(-torch.rand(4, 1, *shape, generator=random, dtype=torch.double).log()).log() for shape in ((6, 16), (4, 6))]
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    losses = net.losses(pixels[part], TEXTS[part], [one[part] for one in noise] if net.config.image.hard else ())
    torch.autograd.backward(sum(losses.values(), torch.zeros(())))
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    return {**{name: value.detach() for name, value in losses.items()}, **gradients}


def statistics(net: Model) -> dict[str, Tensor]:
    return {name: value for name, value in net.state_dict().items() if "running_" in name}


def one_of_two(rank: int, folder: Path) -> None:
    """What a process does: its half, then means over both, as DDP takes them."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    result = {}
    for hard in (False, True):
        net = network(hard)
        found = learned(net, slice(2 * rank, 2 * rank + 2))
        for value in found.values():
            torch.distributed.all_reduce(value)
            value /= 2
        result[hard] = {**found, **statistics(net)}
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[bool, dict[str, Tensor]]]:
    """What each of the two has, with soft and with hard assignment."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, __file__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    for one in processes:
        _, err = one.communicate(timeout=540)
        assert one.returncode == 0, err[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("hard", [False, True])
def test_two_processes_learn_what_one_does_from_the_whole_batch(both: list[dict[bool, dict[str, Tensor]]], hard: bool) -> None:
    net = network(hard)
    expected = learned(net, slice(None)) | statistics(net)
    vanishing = {name for name in expected if any(fnmatchcase(name.removeprefix("gradient of "), pattern) for pattern in ZERO)}
    assert all(any(fnmatchcase(name.removeprefix("gradient of "), pattern) for name in vanishing) for pattern in ZERO), "none is misspelt"
    for found in (one[hard] for one in both):
        assert found.keys() == expected.keys()
        off = {name: float((found[name] - value).norm() / value.norm()) for name, value in expected.items() if name not in vanishing}
        assert max(off.values()) < 1e-4, max(off.items(), key=lambda one: one[1])
        largest = max(float(value.norm()) for name, value in expected.items() if name.startswith("gradient"))
        assert all(float(one[name].norm()) < 1e-9 * largest for name in vanishing for one in (found, expected)), "they do vanish"


def test_half_a_batch_alone_would_learn_something_else(both: list[dict[bool, dict[str, Tensor]]]) -> None:
    """The comparison above can fail: without the other half, losses and gradients are others."""
    alone, whole = learned(network(), slice(0, 2)), both[0][False]
    for name in ("loss", "multi_label_loss", "gradient of image.patches.weight", "gradient of text.token_embedding.weight"):
        assert float((alone[name] - whole[name]).norm() / whole[name].norm()) > 0.05, name


def test_the_loop_trains_alike_with_two(tmp_path: Path) -> None:
    """By the command line: the first steps have the losses of one process with the whole batch, and one of the two writes."""
    photos, file = small_captions.folder(tmp_path / "photos"), tmp_path / "mini.yaml"
    config = replace(CONFIG, image=replace(CONFIG.image, size=32, hard=False))
    settings: dict[str, Any] = {"steps": 3, "lr": 1e-4, "validate_every": 3}
    made = small_captions.recipe(photos, tmp_path / "1", options={"config": config, "held_out": 4}, **settings)
    training.train(made, log=lambda _: None)
    file.write_text(f"base: groupvit/gcc-yfcc\nschedule: {{kind: constant}}\noptions: {json.dumps(asdict(made.options))}\n")
    words = [*(f"{key}={value}" for key, value in settings.items()), "batch_size=4", "precision=float32", "workers=0"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "promptseg", "train", str(file)]
    result = subprocess.run(
        [*command, *words, "--data", str(photos), "-o", str(tmp_path / "2")],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("Trained") == 1
    found = [figures_of(tmp_path / name) for name in "12"]
    assert [line["step"] for line in found[0]] == [0, 1, 2, 2], "three steps, one validation"
    for alone, together in zip(*found, strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() & {"loss", "multi_label_loss", "validation/recall@1", "validation/recall@5"}:
            assert together[name] == pytest.approx(alone[name], rel=1e-3), name


if __name__ == "__main__":
    one_of_two(int(sys.argv[2]), Path(sys.argv[1]))

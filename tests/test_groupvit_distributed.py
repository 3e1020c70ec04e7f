"""Two processes with half a batch each: losses, gradients and statistics are those of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from promptseg.models.groupvit.network import Model
from small_groupvit import CONFIG, build

TEXTS = [[f"thing {i}", f"a photo of a thing {i}.", f"art of the thing {i}."] for i in range(4)]


def network() -> Model:
    """Without the noise of hard assignment, which every process draws for itself."""
    return build(image=replace(CONFIG.image, hard=False)).train()


def pixels() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def learned(net: Model, part: slice) -> dict[str, Tensor]:
    """Losses and gradients of a part of the batch, by name."""
    losses = net.losses(pixels()[part], TEXTS[part])
    torch.autograd.backward(sum(losses.values(), torch.zeros(())))
    gradients = {f"gradient of {name}": part.grad for name, part in net.named_parameters() if part.grad is not None}
    return {**{name: value.detach() for name, value in losses.items()}, **gradients}


def one_of_two(rank: int, folder: Path) -> None:
    """What a process does: its half, then means over both, as DDP takes them."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    net = network()
    found = learned(net, slice(2 * rank, 2 * rank + 2))
    for value in found.values():
        torch.distributed.all_reduce(value)
        value /= 2
    if rank == 0:
        statistics = {name: value for name, value in net.state_dict().items() if "running_" in name}
        torch.save({**found, **statistics}, folder / "found.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_does_from_the_whole_batch(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    both = [subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    for one in both:
        _, err = one.communicate(timeout=540)
        assert one.returncode == 0, err[-3000:]
    net = network()
    expected = learned(net, slice(None))
    expected |= {name: value for name, value in net.state_dict().items() if "running_" in name}
    found = torch.load(tmp_path / "found.pt")
    assert found.keys() == expected.keys()
    largest = max(float(value.abs().max()) for name, value in expected.items() if name.startswith("gradient"))
    for name, value in expected.items():
        atol = 1e-4 * max(float(value.abs().max()), 1e-3 * largest)
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


if __name__ == "__main__":
    one_of_two(int(sys.argv[2]), Path(sys.argv[1]))

"""Batch norm over two processes: outputs, gradients and statistics are those of the whole batch in one.

As a script it is one of the two:  python test_shared_norm.py FOLDER RANK [unequal]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from promptseg.nn.shared_norm import SharedBatchNorm2d


def batch() -> Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def weights(x: Tensor) -> Tensor:
    """Of every place of x in the loss, another one for each."""
    return batch()[: len(x), :, : x.shape[2]].cos()


def found(norm: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Of a loss that weighs every place differently; sums over the batch."""
    x.requires_grad_()
    out = norm.double().train()(x)
    (out * weights(x) * out).sum().backward()
    assert x.grad is not None
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in norm.named_parameters() if parameter.grad is not None}
    return {"out": out.detach(), "gradient": x.grad, **gradients, **{name: value.clone() for name, value in norm.named_buffers()}}


def test_two_halves_are_a_whole(tmp_path: Path) -> None:
    program = [sys.executable, __file__, str(tmp_path)]
    both = [subprocess.Popen([*program, str(rank)]) for rank in (0, 1)]
    assert [process.wait() for process in both] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.manual_seed(1)
    x = batch()
    x[2:] = x[:2].flip(0) * 2 + 1
    norm = nn.BatchNorm2d(3)
    x.requires_grad_()
    out = norm.double().train()(x)
    (out * weights(x[:2]).repeat(2, 1, 1, 1) * out).sum().backward()
    assert torch.allclose(torch.cat([first["out"], second["out"]]), out)
    assert x.grad is not None
    assert torch.allclose(torch.cat([first["gradient"], second["gradient"]]), x.grad)
    assert norm.weight.grad is not None
    assert torch.allclose(first["gradient of weight"] + second["gradient of weight"], norm.weight.grad)
    for name, value in norm.named_buffers():
        assert torch.allclose(first[name].double(), value.double()), name
        assert torch.equal(first[name], second[name])


def test_every_number_counts_once_where_maps_are_of_unequal_shape(tmp_path: Path) -> None:
    program = [sys.executable, __file__, str(tmp_path)]
    both = [subprocess.Popen([*program, str(rank), "unequal"]) for rank in (0, 1)]
    assert [process.wait() for process in both] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    large, small = batch(), batch()[:1, :, :2] * 2 + 1
    rows = torch.cat([part.transpose(0, 1).flatten(1).T for part in (large, small)])  # a place is a row
    norm = nn.BatchNorm1d(3).double().train()
    out = norm(rows.requires_grad_())
    (out * torch.cat([weights(part).transpose(0, 1).flatten(1).T for part in (large, small)]) * out).sum().backward()
    assert rows.grad is not None
    for name, whole in (("out", out), ("gradient", rows.grad)):
        assert torch.allclose(torch.cat([part[name].transpose(0, 1).flatten(1).T for part in (first, second)]), whole), name
    for name, value in norm.named_buffers():
        assert torch.allclose(first[name].double(), value.double()), name
        assert torch.equal(first[name], second[name])


def test_alone_it_is_torchs() -> None:
    x = batch()
    mine, its = found(SharedBatchNorm2d(3), x.clone()), found(nn.BatchNorm2d(3), x.clone())
    assert all(torch.equal(mine[name], its[name]) for name in its)


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    found(SharedBatchNorm2d(3), batch())
    threads = psutil.Process().num_threads()
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    if sys.argv[3:] == ["unequal"]:
        half = batch() if rank == 0 else batch()[:1, :, :2] * 2 + 1
    else:
        half = batch()[:2] if rank == 0 else batch()[:2].flip(0) * 2 + 1
    torch.save(found(SharedBatchNorm2d(3), half), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
    assert psutil.Process().num_threads() == threads, "the group outlives its end, and may abort the process"

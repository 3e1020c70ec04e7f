"""What the processes of a training run tell each other within a loss or a layer, so that gradients find their way back.

torch has these in `torch.distributed.nn.functional`, deprecated; its default group is kept alive by the module, threads and all, after the
process has left it, which now and then aborts a process at its very end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["gathered", "several", "summed"]


def several() -> bool:
    """Whether there are other processes."""
    return torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def summed(x: Tensor) -> Tensor:
    """The sum of everybody's x, of one shape; what is made of it by each sends its gradient to all."""
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


def gathered(x: Tensor) -> Tensor:
    """Rows (W * n, ...) of everybody's x (n, ...), of one shape, in the order of ranks; gradients return to where a row came from."""
    rows: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return rows


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _total(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0])


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0]).chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def _total(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total

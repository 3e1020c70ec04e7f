"""Projection of both encoders into one space, with batch norm over all processes in training (GroupViT code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.processes import several
from ...nn.shared_norm import batch_norm
from .config import HIDDEN

EPS, MOMENTUM = 1e-5, 0.1


class SharedBatchNorm(nn.Module):
    """Batch norm of rows (n, C) whose statistics in training are those of all processes together, on any device.

    Normalises with the biased variance, remembers the unbiased one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (n, C) -> (n, C)."""
        if not self.training or not several():
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, MOMENTUM, EPS)
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, MOMENTUM, EPS)


class Projector(nn.Module):
    """``layers`` linear layers, each but the last with batch norm and ReLU; none: the identity."""

    def __init__(self, width: int, out: int, layers: int) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for index in range(layers - 1):
            hidden += [nn.Linear(width if index == 0 else HIDDEN, HIDDEN), SharedBatchNorm(HIDDEN), nn.ReLU()]
        self.hidden = nn.Sequential(*hidden)
        self.out = nn.Linear(HIDDEN if hidden else width, out) if layers else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., E): every row by itself, but for the statistics in training."""
        rows = x.reshape(-1, x.shape[-1])
        result: Tensor = self.out(self.hidden(rows))
        return result.view(*x.shape[:-1], -1)

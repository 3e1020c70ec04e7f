"""From the image encoder to the language model: a residual block of convolutions and a linear layer [swin_conv]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS, MOMENTUM = 1e-5, 0.1


class BatchNorm(nn.Module):
    """Batch norm of maps (B, C, h, w); every process has statistics of its own (published code)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> the same."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, MOMENTUM, EPS)


class Projector(nn.Module):
    """The last map (B, C, h, w) -> image tokens (B, ceil(h / 2) * ceil(w / 2), D), row by row."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, hidden, 3, stride=2, padding=1, bias=False), BatchNorm(hidden)
        self.conv2, self.norm2 = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False), BatchNorm(hidden)
        self.shortcut, self.shortcut_norm = nn.Conv2d(width, hidden, 1, stride=2, bias=False), BatchNorm(hidden)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """The second convolution acts twice, with nothing between: the published weights were trained so (published code)."""
        inner = F.relu(self.norm1(self.conv1(x)))
        inner = self.conv2(self.conv2(inner))
        x = F.relu(self.norm2(inner) + self.shortcut_norm(self.shortcut(x)))
        result: Tensor = self.out(x.flatten(2).transpose(1, 2))
        return result

"""Batch norm whose statistics in training are those of all processes together, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .processes import several, summed


class SharedBatchNorm2d(nn.BatchNorm2d):
    """torch's `BatchNorm2d`, shared; every number of every process counts once, whatever the shapes of their maps."""

    def forward(self, input: Tensor) -> Tensor:
        """input (B, C, h, w) -> the same."""
        if not self.training or not several():
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, self.momentum or 0.0, self.eps)


def batch_norm(x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float) -> Tensor:
    """x (n, C, ...) of this process, normalised by the statistics of all, of which each may have its own number.

    Normalises with the biased variance, remembers the unbiased one.
    """

    def per_channel(values: Tensor) -> Tensor:
        return values.view(-1, *(1 for _ in x.shape[2:]))

    values = x.to(torch.promote_types(x.dtype, torch.float32))
    rest = [dimension for dimension in range(x.ndim) if dimension != 1]
    count = summed(values.new_tensor(x.numel() // x.shape[1]))
    mean = summed(values.sum(rest)) / count
    centred = values - per_channel(mean)
    variance = summed(centred.square().sum(rest)) / count
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)
    return (centred * per_channel((variance + eps).rsqrt() * weight) + per_channel(bias)).to(x.dtype)

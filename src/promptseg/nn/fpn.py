"""The feature pyramid (Lin et al., CVPR 2017) as mmsegmentation and mmdetection build it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

Extra: TypeAlias = Literal["convs_on_input", "max_pool"]


class FeaturePyramid(nn.Module):
    """1x1 laterals, added top-down (nearest upsampling), then 3x3 convolutions; no norm, no activation.

    ``start``: the first level that is read. ``outputs``: levels that are given; those beyond the inputs are ``extra``: convolutions of
    stride 2, the first on the last input (RetinaNet), or max pools of stride 2 of the last output (Mask R-CNN).
    """

    def __init__(
        self, inputs: Sequence[int], channels: int, *, start: int = 0, outputs: int | None = None, extra: Extra | None = None
    ) -> None:
        """``inputs``: channels of the levels that are read, those before ``start`` left out."""
        super().__init__()
        self.start, self.extra = start, extra
        self.added = (outputs or len(inputs)) - len(inputs)
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in inputs)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        if extra == "convs_on_input":
            for index in range(self.added):
                self.convs.append(nn.Conv2d(inputs[-1] if index == 0 else channels, channels, 3, stride=2, padding=1))
        for conv in (*self.laterals, *self.convs):
            kaiming(conv)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All levels (B, C_i, h_i, w_i), the finest first -> ``outputs`` levels (B, channels, h_i, w_i)."""
        read = levels[self.start :]
        summed = [lateral(level) for lateral, level in zip(self.laterals, read, strict=True)]
        for finer in range(len(summed) - 2, -1, -1):
            summed[finer] = summed[finer] + F.interpolate(summed[finer + 1], size=summed[finer].shape[-2:], mode="nearest")
        results = [conv(level) for conv, level in zip(self.convs, summed, strict=False)]
        source = read[-1]
        for index in range(self.added):
            if self.extra == "convs_on_input":
                source = self.convs[len(read) + index](source)
                results.append(source)
            else:
                results.append(F.max_pool2d(results[-1], 1, stride=2))
        return tuple(results)


def kaiming(conv: nn.Module) -> None:
    """Start a convolution as mmcv's ``ConvModule`` does: Kaiming's normal weights by fan-out, no bias."""
    assert isinstance(conv, nn.Conv2d)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)

"""Semantic FPN's head (Kirillov et al., CVPR 2019, section 3.1) as mmsegmentation builds it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.fpn import kaiming
from ...nn.shared_norm import SharedBatchNorm2d
from .config import SemanticHead

LEVELS = 4  # at strides 4, 8, 16 and 32


class ConvNorm(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn = SharedBatchNorm2d(channels)
        kaiming(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, h, w) -> (B, channels, h, w)."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class FpnHead(nn.Module):
    """Every level brought to the finest one's stride, doubling by doubling; their sum classified."""

    def __init__(self, inputs: int, classes: int, config: SemanticHead) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_scale(inputs, config.channels, level) for level in range(LEVELS))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(config.channels, classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (B, inputs, h_i, w_i), the finest first -> logits (B, classes, h_0, w_0)."""
        total: Tensor = self.scales[0](levels[0])
        for scale, level in zip(self.scales[1:], levels[1:], strict=True):
            total = total + F.interpolate(scale(level), total.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.classify(self.dropout(total))
        return logits


def _scale(inputs: int, channels: int, level: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for step in range(max(1, level)):
        parts.append(ConvNorm(inputs if step == 0 else channels, channels))
        if level:
            parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*parts)

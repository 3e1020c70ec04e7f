"""CAT-Seg's upsampling decoder: every class's map by itself, guided by what CLIP saw at finer scales (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 16  # channels that are normalised together


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a stage computes once per image. ``kernel`` (4 out, in, 2, 2) and ``base`` (out, 2, 2, h, w): see `Stage.prepare`."""

    kernel: Tensor
    base: Tensor


class Stage(nn.Module):
    """Twice the size: a transposed convolution, guidance joined, then twice 3x3 convolution, group norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, guidance: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, inputs - guidance, 2, stride=2)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(outputs // GROUP, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(outputs // GROUP, outputs)

    def forward(self, x: Tensor, guidance: Tensor | None, prepared: Prepared | None = None) -> Tensor:
        """x (N, in, h, w) of one image, guidance (G, 2h, 2w) -> (N, out, 2h, 2w); with what `prepare` made in less time."""
        y = self._plain(x, guidance) if prepared is None else self._joined(x, prepared)
        y = F.relu(self.norm1(y), inplace=True)
        return F.relu(self.norm2(self.conv2(y)), inplace=True)

    def prepare(self, guidance: Tensor | None, size: tuple[int, int]) -> Prepared:
        """The transposed and the first convolution as one, and all that they make of bias and guidance, which no class changes.

        A transposed 2x2 convolution of stride 2 followed by a 3x3 one sees, for each of the four pixels that a cell becomes, 2x2 cells. So
        both are one 2x2 convolution with four times the outputs, at the coarse resolution.
        """
        weight, up = self.conv1.weight, self.up.weight
        inner = up.shape[1]
        kernel = up.new_zeros(2, 2, len(weight), len(up), 2, 2)
        for row in (0, 1):
            for column in (0, 1):
                for u in range(3):
                    for v in range(3):
                        (k, p), (m, q) = _cell(row, u), _cell(column, v)
                        kernel[row, column, :, :, k, m] += weight[:, :inner, u, v] @ up[:, :, p, q].T
        assert self.up.bias is not None
        shared = self.up.bias[:, None, None].expand(-1, 2 * size[0], 2 * size[1])
        if guidance is not None:
            shared = torch.cat([shared, guidance])
        base = self.conv1(shared[None])[0]
        return Prepared(
            kernel.flatten(0, 2), torch.unflatten(torch.unflatten(base, 1, (-1, 2)), 3, (-1, 2)).permute(0, 2, 4, 1, 3).contiguous()
        )

    def _plain(self, x: Tensor, guidance: Tensor | None) -> Tensor:
        y = self.up(x)
        if guidance is not None:
            y = torch.cat([y, guidance.expand(len(x), -1, -1, -1)], dim=1)
        result: Tensor = self.conv1(y)
        return result

    def _joined(self, x: Tensor, prepared: Prepared) -> Tensor:
        (count, _, h, w), outputs = x.shape, len(prepared.base)
        phases = torch.unflatten(F.conv2d(x, prepared.kernel, padding=1), 1, (2, 2, outputs))  # (N, 2, 2, out, h + 1, w + 1)
        result = x.new_empty(count, outputs, h, 2, w, 2)
        for row in (0, 1):
            for column in (0, 1):
                part = phases[:, row, column, :, row : row + h, column : column + w]
                torch.add(part, prepared.base[:, row, column], out=result[:, :, :, row, :, column])
        return result.view(count, outputs, 2 * h, 2 * w)


def _cell(pixel: int, tap: int) -> tuple[int, int]:
    """Which of its two cells tap 0..2 of a 3x3 kernel reads at a cell's first (0) or second (1) pixel, and which of that cell's pixels."""
    cell, within = divmod(pixel + tap - 1, 2)
    return cell + 1 - pixel, within

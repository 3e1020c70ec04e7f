"""What RetinaNet and the proposals of Mask R-CNN share: scores and deltas at the anchors of every pyramid level, and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ....contracts import Size
from ....nn import boxes as box_ops
from ....nn.matching import IGNORED, Rule, match


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is to be found in one training image; all coordinates are those of the resized image.

    ``boxes`` (G, 4) float, ``labels`` (G,) int64, ``masks`` (G, H, W) bool where the network has a mask head. ``size``: of the image
    without padding; ``padded``: with the padding that it has by itself, before a batch pads it to its largest.
    """

    boxes: Tensor
    labels: Tensor
    size: Size
    padded: Size
    masks: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Levels:
    """Raw outputs of every level: ``logits`` (B, A * K, h, w) and ``deltas`` (B, A * 4, h, w), A anchors per cell."""

    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]


class Anchors:
    """The anchors of a pyramid: per level ``scales`` x ``ratios`` of them in every cell, of ``side`` times its stride."""

    def __init__(self, strides: Sequence[int], side: float, scales: Sequence[float], ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> None:
        self.strides = tuple(strides)
        self.count = len(scales) * len(ratios)
        self._side, self._scales, self._ratios = side, tuple(scales), tuple(ratios)  # no tensors: networks are built without memory

    def of(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(h * w * A, 4) of every level, float32, in the order of `rows`."""
        shapes = [box_ops.shapes(self._side * stride, self._scales, self._ratios) for stride in self.strides]
        triples = zip(maps, self.strides, shapes, strict=True)
        return [box_ops.anchors(one.shape[-2:], stride, shape.to(one.device)) for one, stride, shape in triples]

    def shown(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Which of all levels' anchors an image of ``size`` has."""
        pairs = zip(maps, self.strides, strict=True)
        return torch.cat([box_ops.shown(one.shape[-2:], stride, self.count, size).to(one.device) for one, stride in pairs])

    def matches(self, maps: Sequence[Tensor], truths: Sequence[Truth], rule: Rule) -> tuple[Tensor, Tensor]:
        """All levels' anchors (N, 4) and for every image what each is to find (B, N); see `nn.matching.match`."""
        every = torch.cat(self.of(maps))
        found = []
        for truth in truths:
            shown = self.shown(maps, truth.padded)
            matches = torch.full((len(every),), IGNORED, device=every.device)
            matches[shown] = match(every[shown], truth.boxes, rule)
            found.append(matches)
        return every, torch.stack(found)


def rows(values: Tensor, width: int) -> Tensor:
    """(B, A * width, h, w) -> (B, h * w * A, width) float32, in the order of the anchors."""
    return values.permute(0, 2, 3, 1).reshape(len(values), -1, width).float()


def box_losses(deltas: Sequence[Tensor], anchors: Tensor, truths: Sequence[Truth], taking: Tensor, total: float) -> list[Tensor]:
    """L1 of the deltas (B, n, 4) of each level at the anchors that find something, summed and divided by ``total``.

    ``taking`` (B, N): index of the true box, or less than 0 for what does not count.
    """
    losses = []
    first = 0
    for level in deltas:
        last = first + level.shape[1]
        loss = level.sum() * 0
        for one, truth, takes in zip(level, truths, taking[:, first:last], strict=True):
            chosen = (takes >= 0).nonzero()[:, 0]
            wanted = box_ops.encode(anchors[first:last][chosen], truth.boxes[takes[chosen]])
            loss = loss + (one[chosen] - wanted).abs().sum()
        losses.append(loss / total)
        first = last
    return losses


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (Lin et al., ICCV 2017) of every entry, gamma 2, alpha 0.25; ``targets`` are 0 or 1."""
    probability = logits.sigmoid()
    right = torch.where(targets > 0, probability, 1 - probability)
    weight = torch.where(targets > 0, 0.25, 0.75) * (1 - right).square()
    return weight * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")

"""Which true box each anchor or proposal is to find, and which of them a loss looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import iou

BACKGROUND, IGNORED = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``positive``: IoU from which a box has found something; below ``negative`` it is background, between the two it is ignored.

    ``least``: true boxes whose best IoU is at least this take the boxes that have it, whatever the other limits say.
    """

    positive: float
    negative: float
    least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """``count`` boxes per image, at most the share ``positive`` of them positive."""

    count: int
    positive: float


def match(boxes: Tensor, truth: Tensor, rule: Rule) -> Tensor:
    """boxes (N, 4), true boxes (G, 4) -> (N,) int64: index of the true box, `BACKGROUND` or `IGNORED` [mmdet: MaxIoUAssigner].

    Among true boxes that take the same box the last one has it. As published, with ``least`` 0 a true box that nothing overlaps takes
    every box that it does not overlap.
    """
    if not len(truth) or not len(boxes):
        return torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    overlap = iou(truth, boxes)
    best, found = overlap.max(0)
    result = torch.where(best >= rule.positive, found, torch.where(best < rule.negative, BACKGROUND, IGNORED))
    most = overlap.amax(1, keepdim=True)
    takes = (overlap == most) & (most >= rule.least)
    index = torch.arange(len(truth), device=boxes.device)[:, None]
    last = torch.where(takes, index, BACKGROUND).amax(0)
    return torch.where(last >= 0, last, result)


def sample(matches: Tensor, sampling: Sampling | None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Indices of the positive and of the background boxes that count, drawn at random; all of them without ``sampling``.

    Where there are too few positive ones, background fills the rest [mmdet: RandomSampler].
    """
    positive, negative = (matches >= 0).nonzero()[:, 0], (matches == BACKGROUND).nonzero()[:, 0]
    if sampling is None:
        return positive, negative
    positive = _drawn(positive, int(sampling.count * sampling.positive), generator)
    return positive, _drawn(negative, sampling.count - len(positive), generator)


def _drawn(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(indices) <= count:
        return indices
    return indices[torch.randperm(len(indices), generator=generator)[:count].to(indices.device)]

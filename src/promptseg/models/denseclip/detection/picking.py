"""From scored boxes to the answer: the best pairs of a box and a class that do not repeat each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ....errors import NumericalError
from ....nn.boxes import nms

LEAST, OVERLAP, MOST = 0.05, 0.5, 100  # score of a candidate, IoU within a class, boxes per image


@dataclass(frozen=True, slots=True)
class Found:
    """``boxes`` (N, 4) in pixels of the network's input, ``scores`` (N,), ``labels`` (N,) int64; best first. ``masks`` (N, m, m) logits."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


def pick(boxes: Tensor, scores: Tensor) -> Found:
    """boxes (N, 4), or (N, K, 4) for one per class; scores (N, K) -> at most `MOST` of them [mmdet: multiclass_nms].

    Scores that are not numbers come first, so that nobody takes them for an empty photo.
    """
    row, label = (~(scores <= LEAST)).nonzero(as_tuple=True)
    candidates = boxes[row] if boxes.ndim == 2 else boxes[row, label]
    score = scores[row, label]
    best = nms(candidates, torch.where(score.isnan(), 2, score), OVERLAP, label, MOST)
    return Found(candidates[best], score[best], label[best])


def require_numbers(*outputs: Tensor) -> None:
    """Nothing, if a head's raw outputs hold no NaN, which the choice of boxes would hide.

    Raises:
        NumericalError: they do.
    """
    if any(output.isnan().any() for output in outputs):
        raise NumericalError(
            "The detector computed scores, boxes or masks that are not numbers. Try precision='float32'; if that does not help, the "
            "weights may be damaged: get them again, or take an earlier checkpoint."
        )

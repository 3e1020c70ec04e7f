"""The auxiliary loss of DenseCLIP's detectors: inside the true boxes the score map should say what is there (code: compute_seg_loss)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ....contracts import Size

STRIDE = 4  # pixels per cell of the score map


def box_targets(boxes: Sequence[Tensor], labels: Sequence[Tensor], classes: int, size: Size) -> tuple[Tensor, Tensor]:
    """Boxes (G_i, 4) in pixels and labels (G_i,) of each image -> targets (B, K, h, w) and mask (B, 1, h, w) of 0 and 1.

    ``size``: (h, w) of the score map. Cells are cut off, not rounded, and the last row and column are never inside a box.
    """
    height, width = size
    target = torch.zeros(len(boxes), classes, height, width, device=boxes[0].device)
    mask = torch.zeros(len(boxes), 1, height, width, device=boxes[0].device)
    for image, (own, own_labels) in enumerate(zip(boxes, labels, strict=True)):
        cells = (own / STRIDE).long()
        limits = cells.new_tensor([width - 1, height - 1, width - 1, height - 1])
        for label, (x0, y0, x1, y1) in zip(own_labels.tolist(), torch.minimum(cells.clamp(min=0), limits).tolist(), strict=True):
            target[image, label, y0:y1, x0:x1] = 1
            mask[image, 0, y0:y1, x0:x1] = 1
    return target, mask


def box_score_loss(scores: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Binary cross-entropy of the score map (B, K, h, w), divided by the temperature, over the cells inside boxes and all classes.

    A batch without any box, where the published code divides by zero, has a loss of 0.
    """
    target, mask = box_targets(boxes, labels, scores.shape[1], (scores.shape[2], scores.shape[3]))
    loss = F.binary_cross_entropy_with_logits(scores, target, reduction="none") * mask
    return loss.sum() / (mask.sum() * scores.shape[1]).clamp(min=1)

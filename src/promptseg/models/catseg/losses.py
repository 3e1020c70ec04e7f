"""CAT-Seg's one loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def class_loss(logits: Tensor, target: Tensor, ignore: int = 255) -> Tensor:
    """Binary cross entropy of every class at every pixel, enlarged logits against labels.

    As the published code computes it, an ignored pixel is a negative of every class and counts in the mean; the usual rule would leave it
    out.

    Args:
        logits: (B, T, h, w).
        target: (B, H, W) integers, 0 to T - 1 or ``ignore``.
    """
    enlarged = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    classes = target.long()[:, None]
    wanted = enlarged.new_zeros(enlarged.shape)
    wanted.scatter_(1, classes.where(classes != ignore, 0), (classes != ignore).to(wanted))
    return F.binary_cross_entropy_with_logits(enlarged, wanted)

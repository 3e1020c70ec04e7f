"""DenseCLIP's two losses for segmentation (section 3.4): the head's, and that of the score map over its temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AUXILIARY = 0.4  # weight of the score map's loss (published configurations)


def pixel_loss(logits: Tensor, target: Tensor, ignore: int = 255) -> Tensor:
    """Cross entropy of the enlarged logits at every pixel.

    As mmsegmentation 0.19 computes it, ignored pixels lose nothing but count in the mean; the usual rule would leave them out.

    Args:
        logits: (B, K, h, w).
        target: (B, H, W) integers, 0 to K - 1 or ``ignore``.
    """
    return F.cross_entropy(_enlarged(logits, target), target.long(), ignore_index=ignore, reduction="none").mean()


def segmentation_losses(logits: Tensor, scores: Tensor | None, target: Tensor, tau: float = 0.07, ignore: int = 255) -> dict[str, Tensor]:
    """Both, weighted; ``scores`` (B, K, h, w) are cosines, None for a network without language."""
    losses = {"head": pixel_loss(logits, target, ignore)}
    if scores is not None:
        losses["score_map"] = AUXILIARY * pixel_loss(scores / tau, target, ignore)
    return losses


@torch.no_grad()
def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Share of all pixels, ignored ones among the misses, whose largest enlarged logit is the target's; 0..1."""
    return (_enlarged(logits, target).argmax(1) == target).float().mean()


def _enlarged(logits: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)

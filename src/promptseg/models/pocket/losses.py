"""Losses of `pocket` on plain tensors: masks, presence, and regions that must lie where their names lie."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07  # of the alignment of regions with names (CLIP paper, 2.3)


def mask_losses(logits: Tensor, targets: Tensor, known: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (CLIPSeg paper, 4.1) and soft Dice over the known pixels.

    logits, targets (B, K, H, W), targets in 0..1; known (B, H, W) bool; present (B, K) bool. Dice counts present prompts only.
    """
    weight = known[:, None].to(logits.dtype)
    pixels = weight.sum((2, 3)).clamp_min(1)
    bce = (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight).sum((2, 3)) / pixels
    probability = logits.sigmoid() * weight
    truth = targets * weight
    dice = 1 - (2 * (probability * truth).sum((2, 3)) + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return bce.mean(), (dice * present).sum() / present.sum().clamp_min(1)


def alignment_loss(regions: Tensor, names: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of region embeddings (R, E) against all names (V, E), both of unit length; ``target`` (R,) is each region's name."""
    if not len(regions):
        return regions.sum()
    return F.cross_entropy(regions @ names.T / TEMPERATURE, target)


def presence_loss(presence: Tensor, present: Tensor) -> Tensor:
    """Binary cross-entropy of presence logits (B, K)."""
    return F.binary_cross_entropy_with_logits(presence, present.to(presence.dtype))

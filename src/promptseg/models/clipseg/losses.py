"""What CLIPSeg is trained to do (paper, section 4.1; published code, `training.py`)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def mask_loss(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, the mean over all pixels of all maps: its only loss, for CLIPSeg and both baselines.

    Args:
        logits: any shape, raw.
        targets: the same shape, 0..1; all 0 where the prompt names nothing in the image.
        known: a shape that broadcasts to theirs, bool: pixels of which nothing is known cost nothing.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), None if known is None else known.float())

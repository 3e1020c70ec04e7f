"""CAT-Seg's loss."""

from __future__ import annotations

import torch

from promptseg.models.catseg.losses import class_loss


def test_ignored_pixels_are_negatives() -> None:
    """As the published code counts them."""
    logits = torch.zeros(1, 2, 4, 4)
    ignored, labelled = torch.full((1, 4, 4), 255), torch.zeros(1, 4, 4, dtype=torch.int64)
    logits[:, 0] = 3
    assert class_loss(logits, ignored) > class_loss(logits, labelled)
    assert class_loss(-10 + 0 * logits, ignored) < 1e-4

"""How DenseCLIP is shown a photo, and how its windows' logits become probabilities (mmsegmentation's slide and whole modes).

The photo is resized to fit between two limits, windows slide over it, their logits are averaged, enlarged to the photo and only then
squashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import DenseLogits, Size, View
from ...nn.slides import over, resized
from .config import SemanticHead

PIXELS_AT_ONCE = 2**21  # of logits that are enlarged together


def looks(size: Size, mode: str, head: SemanticHead) -> tuple[View, ...]:
    """The windows of "slide" mode, or the one view of "whole", of a photo of ``size`` (H, W)."""
    long, short = head.limits
    content = resized(size, short, long)
    return over(size, content) if mode == "whole" else over(size, content, head.crop, head.stride)


def averaged(predictions: Iterable[DenseLogits], views: Sequence[View]) -> DenseLogits:
    """Logits (B, N, h, w) of windows of one resized photo -> their mean (B, N, H, W) at that photo's size."""
    total: Tensor | None = None
    height, width = views[0].content
    counts = torch.zeros(height, width)
    for prediction, view in zip(predictions, views, strict=True):
        logits = F.interpolate(prediction.logits, view.shape, mode="bilinear", align_corners=False)
        if len(views) == 1:
            return DenseLogits(logits)
        x0, y0, x1, y1 = view.window or (0, 0, width, height)
        if total is None:
            total = logits.new_zeros(*logits.shape[:2], height, width)
        total[..., y0:y1, x0:x1] += logits
        counts[y0:y1, x0:x1] += 1
    assert total is not None
    return DenseLogits(total.div_(counts.to(total)))


def probabilities(prediction: DenseLogits, size: Size) -> Iterator[NDArray[np.float32]]:
    """Merged logits (1, N, h, w) of a photo of ``size`` -> each class's share (H, W), one after the other; the shares of a pixel sum to 1.

    Logits are enlarged twice, once for the sums, so that only a few maps of that size are held.
    """
    logits = prediction.logits[0]
    total: Tensor | None = None
    for part in _enlarged(logits, size):
        sums = part.logsumexp(0)
        total = sums if total is None else torch.logaddexp(total, sums)
    assert total is not None
    for part in _enlarged(logits, size):
        yield from part.sub_(total).exp_().numpy()


def _enlarged(logits: Tensor, size: Size) -> Iterator[Tensor]:
    step = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
    for start in range(0, len(logits), step):
        part = F.interpolate(logits[None, start : start + step], size, mode="bilinear", align_corners=False)[0]
        yield part.clone() if part.data_ptr() == logits[start : start + step].data_ptr() else part

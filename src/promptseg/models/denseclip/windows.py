"""How DenseCLIP is shown a photo, and how its windows' logits become probabilities (mmsegmentation's slide and whole modes).

The photo is resized to fit between two limits, windows slide over it, their logits are averaged, enlarged to the photo and only then
squashed. At several scales, and mirrored, that is done for each, and the mean of the probabilities is the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import DenseLogits, Size, View
from ...nn.slides import over, resized
from .config import DenseClipOptions, SemanticHead

PIXELS_AT_ONCE = 2**21  # of logits that are enlarged together


def looks(size: Size, head: SemanticHead, options: DenseClipOptions) -> tuple[View, ...]:
    """The windows of "slide" mode, or the one view of "whole", of a photo of ``size`` (H, W), look by look: scales, each then mirrored."""
    shown: list[View] = []
    for scale in options.scales:
        long, short = (int(limit * scale) for limit in head.limits)
        content = resized(size, short, long)
        look = over(size, content) if options.mode == "whole" else over(size, content, head.crop, head.stride)
        shown += look
        shown += (_mirrored(view) for view in look if options.flip)
    return tuple(shown)


def _mirrored(view: View) -> View:
    """The view that shows, mirrored, what lies in this one's place of the mirrored photo."""
    if view.window is None:
        return replace(view, mirrored=True)
    x0, y0, x1, y1 = view.window
    return replace(view, window=(view.content[1] - x1, y0, view.content[1] - x0, y1), mirrored=True)


def merged(predictions: Iterable[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
    """Logits of the windows of one look: their mean, see `averaged`. Of several looks: the logarithms (1, N, H, W) of the mean shares at
    the photo's ``size``, which `probabilities` makes into these shares again; one look is held at a time."""
    parts = [list(look) for _, look in groupby(views, key=lambda view: (view.content, view.mirrored))]
    if len(parts) == 1:
        return averaged(predictions, views)
    answers = iter(predictions)
    total: Tensor | None = None
    for look in parts:
        answer = averaged(islice(answers, len(look)), look)
        if total is None:
            total = torch.zeros(1, answer.logits.shape[1], *size)
        for shares, one in zip(total[0], probabilities(answer, size), strict=True):
            shares += torch.from_numpy(one)
    assert total is not None
    return DenseLogits(total.div_(len(parts)).clamp_(min=torch.finfo(total.dtype).tiny).log_())


def averaged(predictions: Iterable[DenseLogits], views: Sequence[View]) -> DenseLogits:
    """Logits (B, N, h, w) of windows of one resized photo -> their mean (B, N, H, W) at that photo's size, mirrored ones turned back."""
    total: Tensor | None = None
    height, width = views[0].content
    counts = torch.zeros(height, width)
    for prediction, view in zip(predictions, views, strict=True):
        logits = F.interpolate(prediction.logits, view.shape, mode="bilinear", align_corners=False)
        logits = logits.flip(-1) if view.mirrored else logits
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

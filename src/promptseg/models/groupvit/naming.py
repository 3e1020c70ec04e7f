"""From segments and their logits to answers: classes that compete, phrases by themselves, segments without names (published code).

The maps of a window are enlarged to it, bilinearly; a pixel belongs to the segment with the largest share there; a segment has one score
per class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import DenseLogits, GroupLogits, Size, View
from ...data.vocabularies import names
from ...prompts import describe

TOP = 5  # classes that the segments of a window may have (published code)

# What a phrase asked for by itself competes with: things and stuff of everyday photos, as the authors name them in PASCAL Context.
RIVALS = names("context60-groupvit")[1:]


@dataclass(frozen=True, slots=True)
class Seen:
    """All windows of one photo, each with B = 1, and the photo's (H, W)."""

    windows: tuple[GroupLogits, ...]
    views: tuple[View, ...]
    size: Size

    @property
    def content(self) -> Size:
        """(h, w) of the resized photo that the windows are parts of."""
        return self.views[0].content


# --- classes that compete -----------------------------------------------------------------------------------------------------------------


def class_scores(logits: Tensor, whole: Tensor, top: int = TOP) -> Tensor:
    """logits (G, N) of segments and (N,) of the window -> scores (G, N), 0..1: softmax, times the softmax over the window's top classes."""
    keep = whole.topk(min(top, len(whole))).indices
    among = torch.full_like(logits, -torch.inf)
    among[:, keep] = logits[:, keep]
    return among.softmax(-1) * logits.softmax(-1)


def score_maps(seen: Seen, synonyms: Sequence[int], threshold: float | None, top: int = TOP) -> Iterator[tuple[int, Tensor]]:
    """Scores (h, w) at the resized photo's size, averaged over windows: first -1, the background, if there is a threshold; then every class
    that scores anywhere, in order.

    ``synonyms``: how many prompts, one after another, each class has; a class is as probable as the most probable of them. ``threshold``:
    below it the best class of a pixel is background, but never all of a window is (paper, section 4.2; published code).
    """
    owners, scores = zip(
        *(_scored(window, view, synonyms, top) for window, view in zip(seen.windows, seen.views, strict=True)), strict=True
    )
    visits = _visits(seen)
    if threshold is not None:
        nothing = [(one.amax(-1) < min(threshold, float(one.max()))).float() for one in scores]
        yield -1, _averaged(seen, owners, nothing, visits)
    for index in torch.stack([one.amax(0) for one in scores]).amax(0).nonzero().flatten().tolist():
        yield index, _averaged(seen, owners, [one[:, index] for one in scores], visits)


def semantic(seen: Seen, synonyms: Sequence[int], threshold: float | None, top: int = TOP) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Labels (H, W), -1 for background, and the mean score of each class over its pixels (C,), 0 for one without; see `score_maps`."""
    best, labels = torch.full(seen.size, -1.0), torch.full(seen.size, -1, dtype=torch.int16)
    for index, scores in score_maps(seen, synonyms, threshold, top):
        enlarged = _enlarged(scores, seen.size)
        better = enlarged > best
        labels[better] = index
        best = torch.where(better, enlarged, best)
    found = labels >= 0
    mine = labels[found].long()
    total = torch.bincount(mine, best[found].double(), len(synonyms))
    return labels.numpy(), (total / torch.bincount(mine, minlength=len(synonyms)).clamp(min=1)).float().numpy()


def _scored(window: GroupLogits, view: View, synonyms: Sequence[int], top: int) -> tuple[Tensor, Tensor]:
    """Which segment owns each pixel of the window (h, w), and what the segments score in each class (G, C)."""
    if len(set(synonyms)) == 1 == synonyms[0]:
        return owner(window.maps[-1], view.shape), class_scores(window.logits[0], window.whole[0], top)
    logits, whole = (_of_classes(part[0], synonyms) for part in (window.logits, window.whole))
    return owner(window.maps[-1], view.shape), class_scores(logits, whole, top)


def _of_classes(logits: Tensor, synonyms: Sequence[int]) -> Tensor:
    """Logits of prompts (..., P) -> of classes (..., C), the largest among each one's synonyms."""
    return torch.stack([one.amax(-1) for one in torch.split(logits, list(synonyms), -1)], -1)


# --- phrases by themselves ----------------------------------------------------------------------------------------------------------------


def masks(seen: Seen, rivals: Tensor, scale: float) -> DenseLogits:
    """Log-odds per phrase (1, N, h, w), at a quarter of the resized photo's size: is it the phrase rather than any of the `RIVALS`?

    ``rivals`` (R, E) of length 1. A rival that is a word of the phrase, or of which the phrase's is a plural, does not compete with it.
    """
    prompts = seen.windows[0].prompts
    apart = torch.tensor([[_says(describe(prompt), rival) for rival in RIVALS] for prompt in prompts]).view(-1, len(RIVALS))  # (N, R)
    answers = []
    for window in seen.windows:
        against = (window.segments[0] @ rivals.T)[:, None] * scale  # (G, 1, R)
        answers.append(window.logits[0] - against.masked_fill(apart, -torch.inf).logsumexp(-1))  # (G, N)
    owners = [owner(window.maps[-1], view.shape) for window, view in zip(seen.windows, seen.views, strict=True)]
    visits = _visits(seen)
    small = (max(1, seen.content[0] // 4), max(1, seen.content[1] // 4))
    maps = [_enlarged(_averaged(seen, owners, [one[:, n] for one in answers], visits), small) for n in range(len(prompts))]
    return DenseLogits(torch.stack(maps)[None])


def _says(phrase: str, rival: str) -> bool:
    words = re.findall(r"[^\W_]+", phrase.lower())
    return any(word in (rival, f"{rival}s", f"{rival}es") for word in words)


# --- segments without names ---------------------------------------------------------------------------------------------------------------


def groups(maps_of_stages: Sequence[Tensor], content: Size, size: Size) -> list[tuple[NDArray[np.int16], NDArray[np.float32]]]:
    """Maps (1, G, h, w) of a photo seen whole, resized to ``content`` -> per stage, which segment owns each pixel (H, W), and its mean
    share there (G,), 0 for one without pixels.
    """
    result = []
    for maps in maps_of_stages:
        best, labels = torch.full(size, -1.0), torch.zeros(size, dtype=torch.int16)
        for index, one in enumerate(maps[0]):
            shares = _enlarged(_enlarged(one, content), size)
            better = shares > best
            labels[better] = index
            best = torch.where(better, shares, best)
        mine = labels.flatten().long()
        total = torch.bincount(mine, best.flatten().double(), maps.shape[1])
        result.append((labels.numpy(), (total / torch.bincount(mine, minlength=maps.shape[1]).clamp(min=1)).float().numpy()))
    return result


# --- geometry -----------------------------------------------------------------------------------------------------------------------------


def owner(maps: Tensor, shape: Size) -> Tensor:
    """Shares (1, G, h, w) -> the segment with the largest at every pixel, (H, W) int64; the first of equals."""
    return F.interpolate(maps, shape, mode="bilinear", align_corners=False)[0].argmax(0)


def _visits(seen: Seen) -> Tensor | None:
    """How many windows see each pixel (h, w); None where one sees them all."""
    if len(seen.views) == 1:
        return None
    count = torch.zeros(seen.content)
    for view in seen.views:
        assert view.window is not None
        x0, y0, x1, y1 = view.window
        count[y0:y1, x0:x1] += 1
    return count


def _averaged(seen: Seen, owners: Sequence[Tensor], values: Sequence[Tensor], visits: Tensor | None) -> Tensor:
    """A value per segment and window (G,) -> the mean over windows at every pixel of the resized photo (h, w)."""
    if visits is None:
        return values[0][owners[0]]
    total = torch.zeros(seen.content)
    for view, index, value in zip(seen.views, owners, values, strict=True):
        assert view.window is not None
        x0, y0, x1, y1 = view.window
        total[y0:y1, x0:x1] += value[index]
    return total / visits


def _enlarged(values: Tensor, size: Size) -> Tensor:
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]


__all__ = ["RIVALS", "Seen", "class_scores", "groups", "masks", "owner", "score_maps", "semantic"]

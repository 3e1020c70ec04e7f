"""From a round of predictions to what the tasks want: pure functions on the logits of one photo (published code; paper, section 3.4).

Masks come as logits (Q, h, w), and grow to the photo in two steps, first to the network's square, then, padding cut off, to the photo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...contracts import Size
from ...rle import Rle

OBJECT_THRESHOLD, OVERLAP_THRESHOLD = 0.8, 0.8  # of panoptic segments
UNION_THRESHOLD = 0.6  # score above which a mask joins the answer to an expression that may mean several things


@dataclass(frozen=True, slots=True)
class Found:
    """``query``, ``label`` (N,) int64 and ``score`` (N,) of instances."""

    query: Tensor
    label: Tensor
    score: Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic map: ``label`` its class, ``score`` the class probability of the query that it came from."""

    label: int
    is_thing: bool
    score: float


def enlarged(logits: Tensor, side: int, content: Size, size: Size) -> Tensor:
    """Maps (N, h, w) of the network's square -> (N, H, W) of the photo; ``content`` (h, w): the part of ``side`` that is no padding."""
    return F.interpolate(inside(logits, side, content)[None], size, mode="bilinear", align_corners=False)[0]


def inside(logits: Tensor, side: int, content: Size) -> Tensor:
    """The first of the two steps: (N, h, w) -> (N, *content)."""
    return F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=False)[0, :, : content[0], : content[1]]


def certainty(logits: Tensor) -> Tensor:
    """(N, H, W) at the photo's size -> (N,): the mean probability inside each mask."""
    mask = logits > 0
    return (logits.sigmoid() * mask).sum((-2, -1)) / (mask.sum((-2, -1)) + 1e-6)


def semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """(Q, C + 1) and (Q, H, W) -> (C, H, W): how much speaks for every class; the last column, no object, has no map."""
    return torch.einsum("qc,qhw->chw", class_logits.softmax(-1)[:, :-1], mask_logits.sigmoid())


def instances(class_logits: Tensor, sure: Tensor) -> Found:
    """(Q, C + 1) and the masks' certainties (Q,) -> the Q most probable pairs of query and class, in no order."""
    shares = class_logits.softmax(-1)[:, :-1]
    best, place = shares.flatten().topk(min(len(shares), shares.numel()), sorted=False)
    query = place.div(shares.shape[1], rounding_mode="floor")
    return Found(query, place % shares.shape[1], best * sure[query])


def kept(class_logits: Tensor, threshold: float = OBJECT_THRESHOLD) -> Found:
    """Queries that are an object of their most probable class, by more than ``threshold``."""
    score, label = class_logits.softmax(-1).max(-1)
    query = ((label != class_logits.shape[-1] - 1) & (score > threshold)).nonzero().flatten()
    return Found(query, label[query], score[query])


def panoptic(
    found: Found, mask_logits: Iterable[Tensor], is_thing: Sequence[bool], size: Size, overlap_threshold: float = OVERLAP_THRESHOLD
) -> tuple[Tensor, list[Segment]]:
    """The masks (H, W) of the queries in ``found``, one after the other -> map (H, W) int32 of segments' numbers from 1, 0 where there is
    none, and the segments.

    Every pixel goes to the mask that is strongest by score and probability; a mask that keeps less than ``overlap_threshold`` of itself
    is dropped. All of one kind of stuff is one segment.
    """
    strongest, winner = torch.full(size, -1.0), torch.full(size, -1, dtype=torch.int16)
    owned: list[Rle] = []  # a hundred whole masks of a large photo fill the memory
    for number, (logits, score) in enumerate(zip(mask_logits, found.score.tolist(), strict=True)):
        share = logits.sigmoid()
        owned.append(Rle.encode((share >= 0.5).numpy()))
        share = share * score
        winner[share > strongest] = number
        strongest = torch.maximum(strongest, share)
    index = torch.zeros(size, dtype=torch.int32)
    segments: list[Segment] = []
    stuff: dict[int, int] = {}
    for number, (own, label, score) in enumerate(zip(owned, found.label.tolist(), found.score.tolist(), strict=True)):
        won = winner == number
        both = won & torch.from_numpy(own.decode())
        original = own.area
        if not original or not both.any() or int(won.sum()) / original < overlap_threshold:
            continue
        if not is_thing[label] and label in stuff:
            index[both] = stuff[label]
            continue
        segments.append(Segment(label, is_thing[label], score))
        index[both] = len(segments)
        if not is_thing[label]:
            stuff[label] = len(segments)
    return index, segments


def best(scores: Tensor) -> int:
    """The position of the largest of (Q,), as the published code finds it: of equal ones ``topk`` decides."""
    return int(scores.topk(1).indices)


def united(masks: Tensor, scores: Tensor, threshold: float = UNION_THRESHOLD) -> Tensor:
    """Masks (Q, H, W) bool -> (H, W): the union of those that score above ``threshold``; where there is none, the best."""
    chosen = scores > threshold
    return masks[chosen].any(0) if bool(chosen.any()) else masks[best(scores)]

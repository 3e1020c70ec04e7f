"""Objects through a video (published evaluation of DAVIS): masks found in one frame are the prompts of the next.

What is remembered is one frame's image tokens and masks, so memory does not grow with the video. A frame replaces the memory unless two of
its objects lie on each other, or one is lost: then the last good frame stays the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SAME, CANDIDATES = 0.4, 10  # IoU above which two objects are taken for one; queries that an object may choose from

Masks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Frame:
    """What prompts a later frame: ``tokens`` (1, n, D) of its image, and its objects' masks (K, H, W) bool."""

    tokens: Tensor
    masks: Masks


@dataclass(slots=True)
class Memory:
    """``first``: the frame in which the objects were given; ``last``: the latest good one, None before there is any."""

    first: Frame
    last: Frame | None = None

    def prompt(self, objects: Sequence[int] | None = None) -> Frame:
        """What shows the objects, all or some of the first frame's by position.

        The latest good frame does if it has as many (published code, which counts them only).
        """
        count = len(self.first.masks) if objects is None else len(objects)
        if self.last is not None and len(self.last.masks) == count:
            return self.last
        return self.first if objects is None else Frame(self.first.tokens, self.first.masks[list(objects)])

    def keep(self, frame: Frame) -> None:
        """Take ``frame`` for the latest good one, if it is good."""
        if all(mask.any() for mask in frame.masks) and not confused(frame.masks):
            self.last = frame


def chosen(scores: Tensor) -> list[int]:
    """Scores (Q, K) -> a query per object: the best that no earlier object has; of ten used ones the earlier object's (published code)."""
    found: list[int] = []
    for column in scores.T:
        candidates = column.topk(min(CANDIDATES, len(column))).indices.tolist()
        free = [query for query in candidates if query not in found]
        found.append(free[0] if free else found[-1])
    return found


def confused(masks: Masks) -> bool:
    """Whether two of the masks (K, H, W) are nearly one."""
    for place, one in enumerate(masks):
        for other in masks[place + 1 :]:
            if (one & other).sum() > SAME * max(1, (one | other).sum()):
                return True
    return False


def index_map(masks: Masks, values: Sequence[int]) -> NDArray[np.uint8]:
    """Masks (K, H, W) -> (H, W) of ``values``; where masks overlap the later object stands."""
    result = np.zeros(masks.shape[1:], np.uint8)
    for mask, value in zip(masks, values, strict=True):
        result[mask] = value
    return result

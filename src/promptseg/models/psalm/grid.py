"""The way from the network's square back to a photo, mask by mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import Size
from . import postprocess as post
from .network import PsalmImage
from .photos import fitted

STRIDE = 4  # of mask features


@dataclass(frozen=True, slots=True)
class Grid:
    """A photo of ``size`` (H, W) on a square of ``side`` pixels."""

    size: Size
    side: int

    @classmethod
    def of(cls, image: PsalmImage, size: Size) -> Grid:
        """The square that the photo was encoded in."""
        return cls(size, image.seen.features.shape[-1] * STRIDE)

    @property
    def content(self) -> Size:
        """The part (h, w) of the square that is no padding."""
        return fitted(self.size, self.side)

    def grow(self, logits: Tensor) -> Tensor:
        """One mask's logits (h, w) -> (H, W), in two steps."""
        return self.to_photo(post.inside(logits[None], self.side, self.content))[0]

    def to_photo(self, logits: Tensor) -> Tensor:
        """The second step: (N, *content) -> (N, H, W)."""
        return F.interpolate(logits[None], self.size, mode="bilinear", align_corners=False)[0]

    def mask(self, logits: Tensor, share: Tensor) -> tuple[NDArray[np.bool_], float]:
        """A mask (H, W), and its score where the query's probability is ``share``."""
        grown = self.grow(logits)
        return (grown > 0).numpy(), float(share * post.certainty(grown))

    def best(self, masks: Tensor, shares: Tensor) -> tuple[Tensor, float]:
        """The mask of the largest score, of masks (Q, h, w) with probabilities (Q,): its logits (*content), and the score.

        A score is at most the probability, so masks that cannot win any more are not grown.
        """
        order = shares.argsort(descending=True, stable=True).tolist()
        winner, top = order[0], -1.0
        for query in order:
            if float(shares[query]) <= top:
                break
            score = float(shares[query] * post.certainty(self.grow(masks[query])))
            if score > top:
                winner, top = query, score
        return post.inside(masks[winner][None], self.side, self.content)[0], top

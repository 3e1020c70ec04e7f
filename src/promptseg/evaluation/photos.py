"""Parts that show whole photos to a segmenter, as a user would, and look at the masks at the photo's size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..postprocess import logit_cut

if TYPE_CHECKING:
    from ..masks import Mask
    from ..segmenter import Segmenter

BoolArray = NDArray[np.bool_]
MARGIN = 1e-3  # logits: enlarging a map cannot raise it by so much


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One answer looked at once: ``mask`` (H, W) bool at the segmenter's threshold, ``present`` as `Mask.present`."""

    mask: BoolArray
    present: bool


def seen(answer: Mask, threshold: float) -> Seen:
    """The pixels and presence of an answer without negative prompts, computed once; a map that nowhere reaches the threshold is not
    enlarged at all."""
    logits = answer.logits
    if logits is not None and float(logits.max()) < logit_cut(threshold) - MARGIN:
        empty = np.zeros(answer.size, dtype=np.bool_)
        return Seen(empty, answer.present)
    held = answer.held()
    return Seen(held.mask, held.present)


def all_seen(answers: Iterable[Mask], names: Iterable[str], segmenter: Segmenter) -> dict[str, Seen]:
    """Answers by name."""
    return {name: seen(answer, segmenter.card.threshold) for name, answer in zip(names, answers, strict=True)}


def not_empty(found: Mapping[str, Seen]) -> dict[str, BoolArray]:
    """The masks that have a pixel."""
    return {name: one.mask for name, one in found.items() if one.mask.any()}

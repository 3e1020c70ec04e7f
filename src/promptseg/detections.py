"""From a detector's boxes to things that can be seen: instances with masks at the photo's size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .contracts import Detections, Size
from .errors import PromptError, nearest
from .masks import Mask
from .nn.roi import pasted
from .prompts import Text, plain
from .results import Instances
from .rle import Rle
from .sources import RunSource

if TYPE_CHECKING:
    from .prompts import ImageInput

INSIDE = 0.5  # probability from which a pixel belongs to the mask, as published

__all__ = ["chosen", "instances"]


def instances(
    found: Detections,
    size: Size,
    classes: Sequence[str],
    *,
    wanted: Sequence[str] | None = None,
    threshold: float = 0.5,
    presence_threshold: float = 0.5,
    photo: ImageInput | None = None,
    model: str = "",
) -> Instances:
    """One photo's merged prediction (B = 1), best first, without what scores less than ``threshold`` or is of no ``wanted`` class.

    ``size``: (H, W) of the photo. ``classes``: what the labels count. The mask of a detector without masks is its box.
    """
    names = tuple(classes if wanted is None else wanted)
    boxes, scores, labels = found.boxes[0].tolist(), found.scores[0].tolist(), found.labels[0].long().tolist()
    masks: list[Mask] = []
    kept: list[list[float]] = []
    for index, (box, score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
        if score > 0 and score >= threshold and classes[label] in names:
            runs = _filled(box, size) if found.masks is None else _pasted(found.masks[0, index].float().sigmoid(), box, size)
            masks.append(Mask(RunSource(runs), Text(classes[label]), presence=score, presence_threshold=presence_threshold))
            kept.append(box)
    return Instances(masks, size, labels=[mask.label for mask in masks], classes=names, boxes=kept, photo=photo, model=model)


def chosen(wanted: Any, classes: Sequence[str], model: str) -> tuple[str, ...]:
    """The classes that a user asks a detector for, as it calls them, in the order asked; None: all that it knows.

    Raises:
        PromptError: one that it does not know, or no names at all.
    """
    if wanted is None:
        return tuple(classes)
    if not isinstance(wanted, Iterable):
        raise PromptError(f"Classes are a name or a list of names, such as {list(classes[:2])}, not {wanted!r}.")
    names = tuple([wanted] if isinstance(wanted, str) else wanted)
    known = {plain(name): name for name in classes}
    for name in names:
        if plain(str(name)) not in known:
            raise PromptError(
                f"{model!r} finds the {len(classes)} classes that it was trained on, and {name!r} is none of them."
                f"{nearest(str(name), tuple(classes))} For any words: promptseg.load('pocket')(image, words)."
            )
    return tuple(known[plain(name)] for name in names)


def _filled(box: Sequence[float], size: Size) -> Rle:
    """The pixels whose centres lie in the box."""
    x0, y0, x1, y1 = (math.ceil(value - 0.5) for value in box)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(size[1], x1), min(size[0], y1)
    return _runs(np.ones((max(0, y1 - y0), max(0, x1 - x0)), np.bool_), size, (x0, y0))


def _pasted(mask: torch.Tensor, box: Sequence[float], size: Size) -> Rle:
    part, (top, left) = pasted(mask, box, size)
    return _runs(part.numpy() >= INSIDE, size, (left, top))


def _runs(part: np.ndarray, size: Size, corner: tuple[int, int]) -> Rle:
    return Rle.encode(part, size, corner) if part.size else Rle.encode(np.zeros((1, 1), np.bool_), size)

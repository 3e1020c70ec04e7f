"""From raw logits at model resolution to pixels of the photo: pure functions on arrays and tensors, nothing of files or prompts.

Full size is defined once, here: logits are enlarged bilinearly (align_corners False), then squashed, then compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .contracts import Size
from .errors import ConfigError
from .maps import SemanticMap

if TYPE_CHECKING:
    from .prompts import ImageInput

__all__ = ["enlarge", "logit_cut", "semantic_labels", "semantic_map", "sigmoid"]

FloatArray: TypeAlias = NDArray[np.float32]
Enlarge: TypeAlias = Callable[[NDArray[np.floating]], FloatArray]


def enlarge(logits: NDArray[np.floating], size: Size) -> FloatArray:
    """One map (h, w) of any float type -> (H, W) float32, bilinear, align_corners False, no antialiasing."""
    source = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float32))
    return F.interpolate(source[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logits -> probabilities, any shape; written over the input."""
    return torch.from_numpy(logits).sigmoid_().numpy()


def logit_cut(threshold: float) -> float:
    """The logit above which the float32 sigmoid exceeds ``threshold``, so that masks need no sigmoid and still equal it at every pixel."""
    if threshold <= 0 or threshold >= 1:
        return -math.inf if threshold <= 0 else math.inf
    centre = math.log(threshold) - math.log1p(-threshold)
    reach = 0.01 + 1e-6 / (threshold * (1 - threshold))  # float32 probabilities next to 0 and 1 stand for whole ranges of logits
    low, high = centre - reach, centre + reach
    for _ in range(80):
        middle = float(np.float32((low + high) / 2))
        if float(torch.tensor(middle).sigmoid()) > threshold:
            high = middle
        else:
            low = middle
    return low


def semantic_labels(
    logits: Iterable[NDArray[np.floating]],
    size: Size,
    *,
    threshold: float | None = None,
    background: Sequence[int] = (),
    upsample: Enlarge | None = None,
    squashed: bool = False,
) -> tuple[NDArray[np.int16], FloatArray]:
    """The best class of every pixel, and its mean probability per class.

    ``logits``: C maps (h, w). A pixel whose best probability is at most ``threshold`` is nothing, -1; so is one that a class of
    ``background`` wins. Ties go to the earlier class. Classes are enlarged one after the other: memory does not grow with C.
    ``squashed``: the maps are probabilities already, at the photo's size.

    Returns ``labels`` (H, W) int16 and ``scores`` (C,) float32, 0 for a class without pixels.

    Raises:
        ConfigError: more than 32767 classes.
    """
    enlarged = (lambda one: one) if squashed else upsample or (lambda one: enlarge(one, size))
    best, labels = np.full(size, -np.inf, dtype=np.float32), np.full(size, -1, dtype=np.int16)
    count = 0
    for count, one in enumerate(logits, 1):
        if count > np.iinfo(np.int16).max:
            raise ConfigError(f"A semantic map holds at most {np.iinfo(np.int16).max} classes.")
        values = enlarged(one)
        labels[values > best] = count - 1
        np.maximum(best, values, out=best)
    if threshold is not None:
        labels[best <= (threshold if squashed else logit_cut(threshold))] = -1
    for index in background:
        labels[labels == index] = -1
    chosen = labels >= 0
    found = labels[chosen]
    total = np.bincount(found, weights=best[chosen] if squashed else sigmoid(best[chosen]), minlength=count)
    return labels, (total / np.maximum(np.bincount(found, minlength=count), 1)).astype(np.float32)


def semantic_map(
    logits: NDArray[np.floating] | torch.Tensor | Iterable[NDArray[np.floating]],
    size: Size,
    classes: Sequence[str],
    *,
    background: float | str | Sequence[str] | None = None,
    upsample: Enlarge | None = None,
    squashed: bool = False,
    photo: ImageInput | None = None,
    model: str = "",
) -> SemanticMap:
    """Class logits (C, h, w), or one map after the other -> the map at the photo's ``size`` (H, W): every pixel's most probable class.

    ``background``: a probability that the best class must exceed, or a name or names among ``classes`` whose pixels are nothing (-1).
    ``squashed``: the maps are probabilities of ``size``.

    Raises:
        ConfigError: the background is no class, or there are not as many classes as logit maps.
    """
    maps = logits.detach().cpu().float().numpy() if isinstance(logits, torch.Tensor) else logits
    names = (
        () if background is None or isinstance(background, (int, float)) else (background,) if isinstance(background, str) else background
    )
    if unknown := [name for name in names if name not in classes]:
        raise ConfigError(
            f"The background {unknown} is not among the classes {list(classes)[:20]}; name a class, or give a threshold in 0..1."
        )
    threshold = background if isinstance(background, (int, float)) else None
    labels, scores = semantic_labels(
        maps, size, threshold=threshold, background=[list(classes).index(name) for name in names], upsample=upsample, squashed=squashed
    )
    if len(scores) != len(classes):
        raise ConfigError(f"There are {len(scores)} logit maps for {len(classes)} classes.")
    return SemanticMap(labels, classes, scores=scores, photo=photo, model=model)

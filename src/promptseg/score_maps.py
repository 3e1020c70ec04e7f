"""Where a model sees names in a photo before its head answers: the score maps of DenseCLIP, as numbers and as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from . import images, zoo
from .contracts import DenseLogits, Options
from .drawing import heat
from .errors import PromptError, UnsupportedTask
from .nn.views import merge
from .semantics import ClassNames, Contest, given_or_own

if TYPE_CHECKING:
    from .prompts import ImageInput
    from .segmenter import Segmenter

__all__ = ["draw_score_maps", "score_maps"]


def score_maps(
    segmenter: Segmenter, photo: ImageInput, names: ClassNames | None = None, *, options: Options | None = None
) -> NDArray[np.float32]:
    """Cosines of every place and every name, -1..1, (K, h, w) at the network's own resolution; the photo is seen whole.

    ``names``: any, those of a detector, too; the map of several synonyms is their maximum; None: the trained classes. They see each other
    in the context decoder, so each changes the others' maps. ``options``: how the photo is fitted, as in `Segmenter.semantic`.

    Raises:
        UnsupportedTask: the model has no score map: a baseline, which reads no names, or another family.
        PromptError: a name is empty, too long or comes twice, or there is none.
        ImageError: the photo cannot be read, or is too narrow for the model.
        ConfigError: the options are not the model's.
    """
    return _maps(segmenter, images.load(photo, max_pixels=segmenter.max_pixels), names, options)[1]


def draw_score_maps(
    segmenter: Segmenter, photo: ImageInput, names: ClassNames | None = None, *, options: Options | None = None
) -> dict[str, Image.Image]:
    """One picture per name, of the photo's size: the photo in grey, and over it the name's map from its lowest to its highest cosine.

    Arguments and errors: see `score_maps`.
    """
    pixels = images.load(photo, max_pixels=segmenter.max_pixels)
    labels, maps = _maps(segmenter, pixels, names, options)
    return {name: heat(pixels, one) for name, one in zip(labels, maps, strict=True)}


def _maps(
    segmenter: Segmenter, photo: NDArray[np.uint8], names: ClassNames | None, options: Options | None
) -> tuple[list[str], NDArray[np.float32]]:
    model: Any = segmenter.model
    if not _gives(getattr(model, "config", None)):
        raise UnsupportedTask(segmenter.card.name, "score maps", [card.name for card in zoo.cards() if _gives(card.config)])
    asked = Contest.between(given_or_own(names, model.classes, segmenter.card.name), None)
    if not asked.words:
        raise PromptError("Score maps are of names: give one or more, or None for the classes that the model was trained on.")
    size = (photo.shape[0], photo.shape[1])
    view = model.whole_view(size, options or Options())
    shown = images.to_pixels(photo, view, segmenter.card.preprocess)[None].to(next(model.parameters()))
    with torch.inference_mode():
        scores = model.score_map(shown, asked.phrases).float().cpu()
    found = merge([DenseLogits(scores)], [view], size).logits[0].numpy()
    return asked.classes, np.stack(list(asked.per_class(found)))


def _gives(config: Any) -> bool:
    return bool(getattr(config, "score_maps", False))

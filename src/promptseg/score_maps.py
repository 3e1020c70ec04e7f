"""Where a model sees names in a photo before its head answers: the score maps of DenseCLIP, as numbers and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from . import images
from .drawing import heat
from .errors import UnsupportedTask

if TYPE_CHECKING:
    from .prompts import ImageInput
    from .segmenter import Segmenter

__all__ = ["draw_score_maps", "score_maps"]


def score_maps(segmenter: Segmenter, photo: ImageInput, names: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Cosines of every place and every name, -1..1, (K, h, w) at the network's own resolution; the photo is seen whole.

    ``names``: any; None: the trained classes. They see each other in the context decoder, so each changes the others' maps.

    Raises:
        UnsupportedTask: the model has no score map: a baseline, which reads no names, a detector, or another family.
        PromptError: a name is empty or too long.
        ImageError: the photo cannot be read.
    """
    model = segmenter.model
    if getattr(model, "score_map", None) is None or model.config.language is None:
        raise UnsupportedTask(segmenter.card.name, "score maps", ["denseclip-fpn-r50", "denseclip-fpn-r101", "denseclip-fpn-vitb"])
    pixels = images.load(photo, max_pixels=segmenter.max_pixels)
    view = model.whole_view((pixels.shape[0], pixels.shape[1]))
    shown = images.to_pixels(pixels, view, model.config.preprocess)[None].to(next(model.parameters()))
    with torch.inference_mode():
        found: NDArray[np.float32] = model.score_map(shown, names)[0].float().cpu().numpy()
    return found


def draw_score_maps(segmenter: Segmenter, photo: ImageInput, names: Sequence[str] | None = None) -> dict[str, Image.Image]:
    """One picture per name, of the photo's size: the photo in grey, and over it the name's map from its lowest to its highest cosine."""
    pixels = images.load(photo, max_pixels=segmenter.max_pixels)
    maps = score_maps(segmenter, pixels, names)
    labels = segmenter.model.classes if names is None else names
    return {name: heat(pixels, one) for name, one in zip(labels, maps, strict=True)}

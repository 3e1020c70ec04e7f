"""Where DenseCLIP sees its names in a photo: the score map, before any pyramid and head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ... import images
from ...drawing import heat
from ...errors import UnsupportedTask
from .config import DenseClipOptions
from .core import DenseClip
from .network import Model

if TYPE_CHECKING:
    from ...prompts import ImageInput
    from ...segmenter import Segmenter

__all__ = ["draw_score_maps", "score_maps"]


def score_maps(segmenter: Segmenter, photo: ImageInput, names: Sequence[str] | None = None) -> NDArray[np.float32]:
    """Cosines of every place and every name, -1..1, (K, h, w) at the network's own resolution; the photo is seen whole.

    ``names``: any; None: the trained classes. They see each other in the context decoder, so each changes the others' maps.

    Raises:
        UnsupportedTask: the model is a baseline, which reads no names, a detector, or of another family.
        PromptError: a name is empty or too long.
        ImageError: the photo cannot be read.
    """
    model = segmenter.model
    if not isinstance(model, Model) or model.config.language is None:
        raise UnsupportedTask(segmenter.card.name, "score maps", ["denseclip-fpn-r50", "denseclip-fpn-r101", "denseclip-fpn-vitb"])
    pixels = images.load(photo, max_pixels=segmenter.max_pixels)
    (view,) = model.views((pixels.shape[0], pixels.shape[1]), DenseClipOptions(mode="whole"))
    shown = images.to_pixels(pixels, view, model.config.preprocess)[None].to(_of(model))
    with torch.inference_mode():
        scores = model.guide(model.encode_image(shown), model.class_embeddings(names)).scores
    found: NDArray[np.float32] = scores[0].float().cpu().numpy()
    return found


def draw_score_maps(segmenter: Segmenter, photo: ImageInput, names: Sequence[str] | None = None) -> dict[str, Image.Image]:
    """One picture per name, of the photo's size: the photo in grey, and over it the name's map from its lowest to its highest cosine."""
    pixels = images.load(photo, max_pixels=segmenter.max_pixels)
    labels = segmenter.model.classes if names is None else names
    return {name: heat(pixels, scores) for name, scores in zip(labels, score_maps(segmenter, pixels, names), strict=True)}


def _of(model: DenseClip) -> torch.Tensor:
    """A tensor on the model's device, in its precision."""
    return next(model.parameters())

"""What `pocket` says of photographs while it is trained, painted beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ...contracts import Options
from ...data.photosets import AnnotatedPhoto
from ...data.samples import spread
from ...data.sheet import compared
from ...images import to_pixels
from ...postprocess import enlarge, logit_cut
from ...prompts import Text
from .cards import CARDS
from .network import Model

CUT = logit_cut(CARDS[0].threshold)


def answers(model: Model, photos: Sequence[AnnotatedPhoto], names: Sequence[str] = ()) -> Image.Image:
    """Some of the photos in pairs: masks as a user gets them, and the truth. Asked are ``names``, or what each photo shows."""
    shown = [(photo.image(), photo, names or photo.present) for photo in spread(photos)]
    return compared((image, _masks(model, image, asked), photo.masks()[0]) for image, photo, asked in shown)


@torch.no_grad()
def _masks(model: Model, photo: NDArray[np.uint8], names: Sequence[str]) -> Mapping[str, NDArray[np.bool_]]:
    """(H, W) bool per name."""
    size = (photo.shape[0], photo.shape[1])
    (view,) = model.views(size, Options())
    pixels = to_pixels(photo, view, model.config.preprocess)[None].to(model.class_keys.device)
    answer = model.decode(model.encode_image(pixels), model.encode_prompts([Text(name) for name in names]))
    logits = model.merge([answer], [view], size).logits[0].float().cpu().numpy()
    return {name: enlarge(one, size) > CUT for name, one in zip(names, logits, strict=True)}

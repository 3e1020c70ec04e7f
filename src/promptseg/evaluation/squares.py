"""Photos as published protocols show them: normalised squares that go straight to the network, with no file and no segmenter between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..contracts import PromptFeatures
from ..data.items import Support
from ..data.tensors import MEAN, STD
from ..errors import ConfigError, NumericalError
from ..prompts import Exemplar, Text

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["examples", "photo_of", "probabilities", "texts"]

BLANK = torch.tensor(MEAN)[:, None, None]  # a picture of zeros once normalised: what stands for a missing example in CLIPSeg's tests


def texts(segmenter: Segmenter, phrases: Sequence[str]) -> PromptFeatures:
    """Phrases, verbatim; remembered by the segmenter."""
    return segmenter.embed_prompts([Text(phrase) for phrase in phrases]).features


def examples(segmenter: Segmenter, supports: Sequence[Support | None], technique: str | None) -> PromptFeatures:
    """Examples as `technique` shows them (None: the model's standard); None among them is a picture of nothing.

    Pictures keep their float values: rounded to bytes they would not be what the published code shows.
    """
    side = next((one.mask.shape[-1] for one in supports if one is not None), 1)
    prompts = [_blank(side) if support is None else _exemplar(support, technique) for support in supports]
    with torch.inference_mode():
        features: PromptFeatures = segmenter.model.encode_prompts(prompts)
    return features


def _exemplar(support: Support, technique: str | None) -> Exemplar:
    image = (_unit(support.image) * 255).permute(1, 2, 0).numpy()
    return Exemplar(image, support.mask.numpy() > 0, technique=technique)


def _blank(side: int) -> Exemplar:
    """Zeros once normalised, in the standard technique: CLIPSeg's crops and dims, which leaves zeros as they are."""
    return Exemplar((BLANK.expand(3, side, side) * 255).permute(1, 2, 0).numpy(), np.ones((side, side), dtype=np.bool_))


def probabilities(segmenter: Segmenter, image: Tensor, prompts: PromptFeatures, shift: float = 0.0) -> Tensor:
    """Every prompt on one photo (3, S, S), ImageNet-normalised -> (N, S, S) float32 on the CPU; ``shift`` is added to the logits.

    Logits of another resolution are resized bilinearly (align_corners False) first.

    Raises:
        ConfigError: the network takes no squares of this side.
        NumericalError: the logits hold NaN.
    """
    preprocess, side = segmenter.card.preprocess, image.shape[-1]
    if side % preprocess.multiple:
        raise ConfigError(f"{segmenter.card.name!r} takes sides that are multiples of {preprocess.multiple}, not size={side}.")
    mean, std = (image.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    same = (preprocess.mean, preprocess.std) == (MEAN, STD)
    pixels = (image if same else (_unit(image) - mean) / std)[None].to(segmenter.device, getattr(torch, segmenter.precision))
    with torch.inference_mode():
        condition = PromptFeatures(prompts.prompts, prompts.condition.to(segmenter.device))
        logits: Tensor = segmenter.model.decode(segmenter.model.encode_image(pixels), condition).logits.float().cpu() + shift
    if logits.isnan().any():
        raise NumericalError(f"{segmenter.card.name!r} computed logits that are not numbers in {segmenter.precision}; try float32.")
    if logits.shape[-2:] != (side, side):
        logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
    return logits[0].sigmoid()


def photo_of(image: Tensor) -> NDArray[np.uint8]:
    """A normalised picture (3, S, S) as bytes (S, S, 3), for looking at."""
    pixels: NDArray[np.uint8] = (_unit(image).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


def _unit(image: Tensor) -> Tensor:
    """(3, S, S) normalised -> 0..1."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return image * std + mean

"""One class per pixel out of CLIPSeg's independent masks, as its published zero-shot evaluation does it (`CLIPSegMultiLabel`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...prompts import Text
from .network import Model

BACKGROUND = 3.0  # weight of the class "background", in the published code only; every other class has 1


def multilabel(
    model: Model, pixel_values: Tensor, class_names: Sequence[str], factors: Sequence[float] | None = None, start: float = -10
) -> Tensor:
    """Scores start + factor * sigmoid(logit) of every class, (B, C, h, w) float32; the highest wins (the first of equals).

    Names are prompts as they stand, without a template, "background" too. ``factors`` default to 3 for "background" and 1 for the others.
    The paper describes the plain highest probability of 20 classes instead; the rule here is the code's.
    """
    if factors is None:
        factors = [BACKGROUND if name == "background" else 1.0 for name in class_names]
    logits = model.decode(model.encode_image(pixel_values), model.encode_prompts([Text(name) for name in class_names])).logits
    return start + logits.sigmoid() * torch.tensor(factors, device=logits.device)[:, None, None]

"""Conditions in training: a text and a picture of the same thing, interpolated with a random weight (paper, section 3.3; code, `mix`).

Importing this imports no torch, so that recipes can hold a `Mixing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigError, nearest
from .wordings import TEMPLATE_SETS, sample_wordings

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from .network import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """How texts and pictures are mixed.

    ``low``, ``high``: between them lies the weight of the text, drawn for every example [mix_text_min, mix_text_max]. The published "uni"
    runs draw up to 0.5, the paper says 1. ``templates``: a name of `wordings.TEMPLATE_SETS`; each phrase gets a wording of it [prompt].
    """

    low: float = 0.0
    high: float = 1.0
    templates: str = "shuffle+"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigError(f"low and high are the least and the largest weight of the text, 0 to 1, not {self.low} and {self.high}.")
        if self.templates not in TEMPLATE_SETS:
            known = ", ".join(TEMPLATE_SETS)
            raise ConfigError(f"templates is one of {known}, not {self.templates!r}.{nearest(self.templates, tuple(TEMPLATE_SETS))}")

    def draw(self, count: int, generator: Generator | None = None) -> Tensor:
        """Weights of ``count`` texts, uniform between ``low`` and ``high``."""
        import torch

        return self.low + (self.high - self.low) * torch.rand(count, generator=generator)


def mix(text: Tensor, visual: Tensor, weights: Tensor, valid: Tensor | None = None) -> Tensor:
    """weights * text + (1 - weights) * visual, row by row, on raw embeddings -> (B, E).

    Args:
        text, visual: (B, E).
        weights: (B,), 0..1, of the texts.
        valid: (B,) bool: whether an example has a picture at all; where not, the text alone counts.
    """
    if valid is not None:
        weights = weights.maximum(1 - valid.to(weights))
    w = weights.to(text.device)[:, None]  # float32, so the result is, also where the towers ran in half precision
    return w * text + (1 - w) * visual


def mixed_condition(
    model: Model,
    phrases: Sequence[str],
    pictures: Tensor,
    valid: Tensor | None,
    mixing: Mixing,
    generator: Generator | None = None,
) -> Tensor:
    """Phrases in random wordings and drawn examples (B, 3, S, S), normalised -> one condition per example (B, E).

    ``valid`` as in `mix`. The wordings are drawn before the weights, as published, from ``generator`` or torch's global one.
    """
    wordings, _ = sample_wordings(phrases, TEMPLATE_SETS[mixing.templates], generator)
    text, visual = model.embed_texts(wordings), model.embed_images(pictures)
    return mix(text, visual, mixing.draw(len(phrases), generator), valid)

"""CLIPSeg and its baselines at a size that tests can build and store in no time: two narrow towers, the smallest decoder of each kind."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from promptseg import zoo
from promptseg.contracts import Card
from promptseg.models.clipseg.config import ClipDeconvConfig, ClipSegConfig, VitConfig
from promptseg.models.clipseg.network import Model
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig

SMALL: dict[str, Any] = {
    "image": ClipVisionConfig(width=32, layers=4, heads=2, patch=16, grid=2, embed=16),
    "text": ClipTextConfig(width=24, layers=2, heads=2, embed=16),
    "taps": (1, 2, 3),
    "reduce_dim": 8,
    "heads": 2,
    "hidden": 16,
}


VIT = VitConfig(width=32, layers=4, heads=2, patch=16, size=48, embed=16)


def smaller(config: ClipSegConfig | ClipDeconvConfig) -> ClipSegConfig | ClipDeconvConfig:
    """A configuration of the same kind with a small network."""
    if isinstance(config, ClipDeconvConfig):
        return replace(config, image=SMALL["image"], text=SMALL["text"], tap=2, reduce_dim=8, hidden=16)
    small = replace(config, **SMALL)
    return replace(small, image=VIT) if isinstance(config.image, VitConfig) else small


def cards() -> tuple[Card, ...]:
    """The family's cards, each with a small network, of whose files no checksum is known."""
    return tuple(
        replace(card, config=smaller(card.config), published=tuple(replace(published, sha256={}) for published in card.published))
        for card in zoo.cards()
        if card.family == "clipseg"
    )


def build(name: str = "clipseg-rd64") -> Model:
    """A card's network, small and random, in training mode."""
    torch.manual_seed(0)
    return Model(smaller(zoo.config(name)))


@cache
def model(name: str = "clipseg-rd64") -> Model:
    """The same in evaluation mode; not to be changed."""
    return build(name).eval()

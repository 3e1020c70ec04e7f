"""How the published weights of `pocket` were trained; a variant names only what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ...contracts import Recipe
from .config import PocketConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PocketOptions:
    """What only this family's training knows. ``sources``: how often a photo of each set is drawn, relative to the others."""

    config: PocketConfig = field(default_factory=PocketConfig)
    size: int = 256  # side of the training crops, pixels
    prompts: int = 6  # asked of each photo
    paste: float = 0.35  # chance of a pasted instance
    exemplars: float = 0.2  # chance that a prompt is shown (a region of another photo) instead of said
    tower_lr: float = 0.1  # of the recipe's rate
    frozen_stages: int = 3  # stem and first stages of the tower keep their pretrained weights
    sources: Mapping[str, float] = field(
        default_factory=lambda: {"coco": 1.6, "msrc": 1.6, "coco_person": 0.8, "camvid": 0.4, "ccp": 0.5, "imagenet": 0.5}
    )
    losses: Mapping[str, float] = field(default_factory=lambda: {"mask": 1.0, "dice": 0.5, "presence": 0.3, "alignment": 0.1})


def pocket() -> Recipe:
    """The published weights. Figures: `docs/pocket.md`; two CPU cores, under two hours."""
    return Recipe(
        name="pocket", card="pocket", data="data", output="runs/pocket", steps=3200, batch_size=8, lr=1e-3, weight_decay=0.02,
        ema=0.998, options=PocketOptions(),
    )  # fmt: skip


def _variant(name: str, **config: bool) -> Recipe:
    base = pocket()
    options = replace(base.options, config=replace(base.options.config, **config))
    return replace(base, name=f"pocket/{name}", output=f"runs/pocket-{name}", steps=1000, options=options)


def film_only() -> Recipe:
    """CLIPSeg's way alone: the condition scales and shifts the features."""
    return _variant("film-only", similarity=False)


def similarity_only() -> Recipe:
    """CAT-Seg's way alone: the decoder sees how similar each place is to the prompt, not the prompt."""
    return _variant("similarity-only", film=False)


def both() -> Recipe:
    """The published design under the same short budget as the two above, for comparison."""
    return _variant("both")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "pocket": pocket,
    "pocket/both": both,
    "pocket/film-only": film_only,
    "pocket/similarity-only": similarity_only,
}

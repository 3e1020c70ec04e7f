"""How the published weights of `pocket` were trained; a variant names only what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...contracts import ParameterGroup, Recipe
from ...errors import ConfigError, nearest
from ...training.schedules import Warmup
from .config import PocketConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PocketOptions:
    """What only this family's training knows."""

    config: PocketConfig = field(default_factory=PocketConfig)
    size: int = 256  # side of the training crops, pixels
    first_size: int = 192  # of the first ones: small crops teach what names mean at half the price, larger ones the outlines
    first_steps: int = 3000
    prompts: int = 6  # asked of each photo
    paste: float = 0.35  # chance of a pasted instance
    exemplars: float = 0.2  # chance that a prompt is shown (a region of another photo) instead of said
    shares: Mapping[str, float] = field(  # of each set among the photos drawn
        default_factory=lambda: {"coco": 0.38, "msrc": 0.19, "coco_person": 0.3, "camvid": 0.01, "ccp": 0.06, "imagenet": 0.06}
    )
    after: str | None = None  # recipe of the training to go on from, whose network also labels captioned photos; None: pretrained towers
    losses: Mapping[str, float] = field(default_factory=lambda: {"mask": 1.0, "dice": 1.0, "presence": 0.3, "alignment": 0.1})


def first() -> Recipe:
    """From pretrained towers, on small crops; two CPU cores, under two hours."""
    config = PocketConfig()
    options = PocketOptions(config=replace(config, second_look=0.75, preprocess=replace(config.preprocess, size=448)))
    return Recipe(
        name="pocket/first", card="pocket", data="data", output="runs/pocket-first", steps=4300, batch_size=8, lr=1e-3, weight_decay=0.02,
        schedule=Warmup(steps=99, start=0.01, hold=1), ema=0.998, options=options,
        groups=(
            # stem and first stages of the tower keep their pretrained weights; the rest of it and its classifier learn slowly
            ParameterGroup(pattern="tower.stem.*|tower.stages.[012].*", frozen=True),
            ParameterGroup(pattern="tower.*|classifier.*", lr=0.2),
        ),
    )  # fmt: skip


def second() -> Recipe:
    """On from the weights of `first`, on large crops, with people and dogs that they find on captioned photos."""
    shares = {"coco": 0.34, "msrc": 0.19, "coco_person": 0.28, "camvid": 0.01, "ccp": 0.05, "imagenet": 0.05, "flickr8k": 0.08}
    options = PocketOptions(size=448, first_size=384, first_steps=2500, shares=shares, after="pocket/first")
    return replace(
        first(), name="pocket/second", output="runs/pocket-second", steps=3400, batch_size=4, lr=5e-4,
        schedule=Warmup(steps=59, start=0.0167, hold=1), options=options,
    )  # fmt: skip


def third() -> Recipe:
    """On from `second`, with more people."""
    shares = {"coco": 0.26, "msrc": 0.13, "coco_person": 0.32, "camvid": 0.02, "ccp": 0.05, "imagenet": 0.03, "flickr8k": 0.19}
    options = PocketOptions(size=384, first_size=384, first_steps=0, shares=shares, after="pocket/second")
    return replace(second(), name="pocket/third", output="runs/pocket-third", steps=1900, seed=1, options=options)


def pocket() -> Recipe:
    """The published weights: on from `third`, the whole tower learning. Figures: `docs/pocket.md`."""
    base = third()
    return replace(
        base, name="pocket", output="runs/pocket", steps=2400, seed=2, options=replace(base.options, after=base.name),
        groups=(ParameterGroup(pattern="tower.*|classifier.*", lr=0.2),),
    )  # fmt: skip


def earlier(recipe: Recipe) -> Recipe | None:
    """The training that a recipe goes on from, of a network of the same form; None: it begins with pretrained towers.

    Its seed is one less (but not below 0), so that no two in a row draw the same photographs.

    Raises:
        ConfigError: there is none of that name.
    """
    after = recipe.options.after
    if after is None:
        return None
    if after not in RECIPES:
        raise ConfigError(f"options.after: there is no recipe {after!r} of pocket.{nearest(after, tuple(RECIPES))}")
    base = RECIPES[after]()
    own: PocketConfig = base.options.config
    config = replace(recipe.options.config, second_look=own.second_look, preprocess=own.preprocess)
    return replace(
        base, data=recipe.data, output=str(Path(recipe.output) / Path(after).name), seed=max(recipe.seed - 1, 0), workers=recipe.workers,
        save_every_s=recipe.save_every_s, options=replace(base.options, config=config),
    )  # fmt: skip


def _variant(name: str, **config: bool) -> Recipe:
    base = first()
    options = replace(base.options, first_steps=1000, config=replace(base.options.config, **config))
    return replace(base, name=f"pocket/{name}", output=f"runs/pocket-{name}", steps=1000, ema=0.99, options=options)


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
    "pocket/first": first,
    "pocket/second": second,
    "pocket/third": third,
    "pocket/both": both,
    "pocket/film-only": film_only,
    "pocket/similarity-only": similarity_only,
}

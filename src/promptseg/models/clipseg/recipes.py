"""Every training run of the CLIPSeg paper (published `experiments/*.yaml`; the run of a file by its place in brackets).

A recipe names only what differs from the one that it changes. What the published files say and what the published code does with it differ
in places; `docs/training.md` lists those and what stands here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from ...contracts import Recipe
from ...errors import ConfigError
from ...training.schedules import Cosine
from .config import VIT_B16_384, ClipDeconvConfig, ClipSegConfig
from .mixing import Mixing


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """PhraseCut; see `data.phrasecut.PhraseCut` for what the options mean."""

    negatives: float = 0.0
    removed: str | None = None
    only_supported: bool = False
    kind: Literal["phrasecut"] = "phrasecut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """COCO-20i; see `data.coco20i.Coco20i`."""

    fold: int = 0
    negatives: float = 0.0
    kind: Literal["coco20i"] = "coco20i"


Data: TypeAlias = Phrases | Episodes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSegOptions:
    """What only this family's training knows.

    ``config``: the network; its ``technique`` is how examples are drawn. ``clip``: whose CLIP is trained on: a model that `zoo` knows, a
    folder of ours, or CLIP's own file; None: random towers. ``vit``: timm's file with the image tower of ViTSeg. ``condition``: what the
    network is told, texts, pictures of an example, or a mixture by ``mixing`` (texts alone where a phrase has no example).
    """

    config: ClipSegConfig | ClipDeconvConfig
    clip: str | None = "clipseg-rd64"
    vit: str | None = None
    data: Data = field(default_factory=Phrases)
    condition: Literal["text", "picture", "mixed"] = "mixed"
    mixing: Mixing = field(default_factory=Mixing)
    size: int = 352  # side of the square photos, pixels
    validation: int = 500  # items of the validation split that are looked at, spread evenly over it

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % self.config.image.patch:
            raise ConfigError(f"size is the side of the photos, a multiple of the patch ({self.config.image.patch}), not {self.size}.")
        if self.validation < 1:
            raise ConfigError(f"validation is a number of items, at least 1, not {self.validation}.")


def _variant(base: Recipe, name: str, *, config: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    """``base`` under another name. ``changes`` are fields of the recipe or of its options, ``config`` fields of the network."""
    inner = {key: changes.pop(key) for key in tuple(changes) if key in ClipSegOptions.__dataclass_fields__ and key != "data"}
    return replace(base, name=name, output=f"runs/{name}", options=replace(base.options, **inner), **changes)

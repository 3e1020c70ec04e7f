"""GroupViT: semantic segmentation emerges from text supervision (Xu et al., CVPR 2022, arXiv 2202.11094)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cards import CARDS
from .config import GroupVitConfig, GroupVitImageConfig, GroupVitOptions
from .keys import LAYOUTS
from .recipes import RECIPES

if TYPE_CHECKING:
    from .network import Model
    from .run import GroupVitRun as Run

__all__ = ["CARDS", "LAYOUTS", "OPTIONS", "RECIPES", "UNTUNED", "GroupVitConfig", "GroupVitImageConfig", "GroupVitOptions", "Model", "Run"]

OPTIONS = GroupVitOptions

UNTUNED = (
    "GroupViT learns from captions, never from masks. With captioned photos of yours: `promptseg train groupvit/flickr8k --data FOLDER`."
)

_HOME = {"Model": ("network", "Model"), "Run": ("run", "GroupVitRun")}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards, keys and recipes are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

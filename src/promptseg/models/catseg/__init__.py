"""CAT-Seg: cost aggregation for open-vocabulary semantic segmentation (Cho et al., CVPR 2024, arXiv 2303.11797)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cards import CARDS
from .config import CatSegConfig, CatSegOptions
from .keys import LAYOUTS
from .recipes import RECIPES

if TYPE_CHECKING:
    from .network import Model
    from .run import CatSegRun as Run

__all__ = ["CARDS", "LAYOUTS", "OPTIONS", "RECIPES", "UNTUNED", "CatSegConfig", "CatSegOptions", "Model", "Run"]

OPTIONS = CatSegOptions

UNTUNED = (
    "CAT-Seg learns all classes of a set together, from maps that give every pixel one of them, and its recipes read COCO-Stuff alone: "
    "`promptseg train catseg/base`."
)

_HOME = {"Model": ("network", "Model"), "Run": ("run", "CatSegRun")}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards, keys and recipes are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

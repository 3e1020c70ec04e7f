"""`pocket`: the embedded model that is always there. See `network.py` for how it works, `recipes.py` for how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...contracts import Rename, Rule
from .cards import CARDS
from .config import PocketConfig
from .recipes import RECIPES, earlier

if TYPE_CHECKING:
    from .finetune import PRESETS, FineTune
    from .network import Model
    from .run import PocketRun as Run
    from .store import pack, unpack

__all__ = ["CARDS", "LAYOUTS", "PRESETS", "RECIPES", "FineTune", "Model", "PocketConfig", "Run", "earlier", "pack", "unpack"]

_OWN_NAMES: tuple[Rule, ...] = (Rename("{name}", "{name}"),)
LAYOUTS: Mapping[str, tuple[Rule, ...]] = {"official": _OWN_NAMES, "hf": _OWN_NAMES}  # published in our own folder, the Hub's layout

_HOME = {
    "FineTune": ("finetune", "FineTune"),
    "Model": ("network", "Model"),
    "PRESETS": ("finetune", "PRESETS"),
    "Run": ("run", "PocketRun"),
    "pack": ("store", "pack"),
    "unpack": ("store", "unpack"),
}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # the card and the recipes are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""CLIPSeg: image segmentation using text and image prompts (Lüddecke & Ecker, CVPR 2022, arXiv 2112.10003)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cards import CARDS
from .config import ClipDeconvConfig, ClipSegConfig, VitConfig
from .keys import LAYOUTS, PARTS
from .recipes import RECIPES

if TYPE_CHECKING:
    from .finetune import PRESETS, FineTune
    from .network import Model
    from .run import ClipSegRun as Run

__all__ = [
    "CARDS", "LAYOUTS", "PARTS", "PRESETS", "RECIPES", "ClipDeconvConfig", "ClipSegConfig", "FineTune", "Model", "Run", "VitConfig",
]  # fmt: skip

_HOME = {
    "FineTune": ("finetune", "FineTune"),
    "Model": ("network", "Model"),
    "PRESETS": ("finetune", "PRESETS"),
    "Run": ("run", "ClipSegRun"),
}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards, keys and recipes are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

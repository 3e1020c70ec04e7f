"""DenseCLIP: language-guided dense prediction with context-aware prompting (Rao et al., CVPR 2022, arXiv 2112.01518)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cards import CARDS
from .config import DenseClipConfig, DenseClipOptions
from .keys import LAYOUTS
from .recipes import RECIPES

if TYPE_CHECKING:
    from .network import Model
    from .run import DenseClipRun as Run

__all__ = ["CARDS", "LAYOUTS", "RECIPES", "DenseClipConfig", "DenseClipOptions", "Model", "Run"]

_HOME = {"Model": ("network", "Model"), "Run": ("run", "DenseClipRun")}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards and keys are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""PSALM: one large multi-modal model for every segmentation task (Zhang et al., ECCV 2024, arXiv 2403.14598)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import PsalmConfig
from .keys import LAYOUTS

if TYPE_CHECKING:
    from .model import Model

__all__ = ["LAYOUTS", "Model", "PsalmConfig"]

_HOME = {"Model": ("model", "Model")}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards and keys are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

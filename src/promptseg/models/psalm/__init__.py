"""PSALM: one large multi-modal model for every segmentation task (Zhang et al., ECCV 2024, arXiv 2403.14598)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cards import CARDS
from .config import PsalmConfig, PsalmOptions
from .keys import LAYOUTS
from .recipes import RECIPES

if TYPE_CHECKING:
    from .model import Model
    from .run import PsalmRun as Run

__all__ = ["CARDS", "LAYOUTS", "OPTIONS", "RECIPES", "UNTUNED", "Model", "PsalmConfig", "PsalmOptions", "Run"]

OPTIONS = PsalmOptions
UNTUNED = (
    "PSALM learns from panoptic maps and from files of questions, which a language model reads, not from masks under names: "
    "`promptseg train psalm/stage2-lora --data FOLDER`."
)

_HOME = {"Model": ("model", "Model"), "Run": ("run", "PsalmRun")}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards and keys are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""DenseCLIP: language-guided dense prediction with context-aware prompting (Rao et al., CVPR 2022, arXiv 2112.01518)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cards import CARDS as SEGMENTER_CARDS
from .config import DenseClipConfig, DenseClipOptions
from .detection.asking import DetectionOptions
from .detection.cards import CARDS as DETECTOR_CARDS
from .detection.recipes import RECIPES as DETECTOR_RECIPES
from .keys import LAYOUTS
from .recipes import RECIPES as SEGMENTER_RECIPES
from .transfer import CARDS as TRANSFER_CARDS
from .transfer import RECIPES as TRANSFER_RECIPES

if TYPE_CHECKING:
    from .network import Model  # or, for the configuration of one, a `detection.network.Detector`
    from .run import DenseClipRun as Run  # or a `detection.run.DetectionRun`

__all__ = ["CARDS", "LAYOUTS", "OPTIONS", "RECIPES", "UNTUNED", "DenseClipConfig", "DenseClipOptions", "DetectionOptions", "Model", "Run"]

CARDS = (*SEGMENTER_CARDS, *DETECTOR_CARDS, *TRANSFER_CARDS)
OPTIONS = (DenseClipOptions, DetectionOptions)
RECIPES = {**SEGMENTER_RECIPES, **DETECTOR_RECIPES, **TRANSFER_RECIPES}

UNTUNED = (
    "DenseCLIP's classes are part of its network, so others need a training of their own. With label maps of yours: "
    "`promptseg train denseclip/msrc --data FOLDER 'options.config.classes=[NAME, NAME]'`."
)

_HOME = {"Model": ("choosing", "Model"), "Run": ("running", "Run")}


def __getattr__(name: str) -> Any:
    if name in _HOME:  # cards and keys are read without importing torch
        module, attribute = _HOME[name]
        return getattr(import_module(f".{module}", __name__), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

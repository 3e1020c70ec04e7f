"""CLIPSeg: image segmentation using text and image prompts (Lüddecke & Ecker, CVPR 2022, arXiv 2112.10003)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cards import CARDS
from .config import ClipDeconvConfig, ClipSegConfig, VitConfig
from .keys import LAYOUTS, PARTS

if TYPE_CHECKING:
    from .network import Model

__all__ = ["CARDS", "LAYOUTS", "PARTS", "ClipDeconvConfig", "ClipSegConfig", "Model", "VitConfig"]


def __getattr__(name: str) -> Any:
    if name == "Model":  # cards and keys are read without importing torch
        from .network import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

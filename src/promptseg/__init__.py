"""promptseg: segment an image by saying, showing or clicking.

    >>> import promptseg
    >>> masks = promptseg.load()("photo.jpg", ["a dog", "the grass"])
    >>> masks.save("out/")

Importing does no work: torch is loaded with the first model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import evaluation, models, training, zoo
    from .prompts import Blend, Box, Classes, Exemplar, MaskPrompt, Points, Prompt, Scribble, Text
    from .results import GroupMap, Instances, Mask, Masks, PanopticMap, SemanticMap
    from .segmenter import Segmenter, load

_HOME = {
    **dict.fromkeys(("Blend", "Box", "Classes", "Exemplar", "MaskPrompt", "Points", "Prompt", "Scribble", "Text"), "prompts"),
    **dict.fromkeys(("GroupMap", "Instances", "Mask", "Masks", "PanopticMap", "SemanticMap"), "results"),
    **dict.fromkeys(("Segmenter", "load"), "segmenter"),
}
_MODULES = ("errors", "evaluation", "models", "training", "zoo")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562), so that ``import promptseg`` stays under a third of a second."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Training: one loop for every family. A recipe says what is trained; `train` does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, nearest
from ..models import FAMILIES, family

if TYPE_CHECKING:
    from ..contracts import Recipe

__all__ = ["recipe", "recipes", "train"]


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every published recipe by name."""
    return {name: make for key in FAMILIES for name, make in getattr(family(key), "RECIPES", {}).items()}


def recipe(name: str) -> Recipe:
    """A published recipe.

    Raises:
        ConfigError: there is none of this name.
    """
    known = recipes()
    if name not in known:
        raise ConfigError(f"There is no recipe {name!r}.{nearest(name, tuple(known))} There are: {', '.join(known)}.")
    return known[name]()


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    report: Callable[[int, dict[str, float]], None] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Train as the recipe says -> the checkpoint folder, which `promptseg.load` takes.

    ``report(step, losses)`` follows every step, ``log(line)`` tells of the preparation. An interrupted run continues with ``resume``.

    Raises:
        DataError: the data is not where the recipe says, or the output folder cannot be used.
        ImportError: a package of the extra ``train`` is missing.
        PromptSegError: a loss is not finite.
    """
    from ..zoo import card
    from .loop import optimise, prepare

    prepare(Path(recipe.output), resume)  # complain before minutes of preparation, not after
    run = family(card(recipe.card).family).Run(recipe, log)
    return optimise(recipe, run, resume=resume, report=report)

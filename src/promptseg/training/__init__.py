"""Training: one loop for every family. A recipe says what is trained; `train` does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, nearest
from .chain import begun, package, stages

if TYPE_CHECKING:
    from ..contracts import Recipe
    from .estimate import Plan
    from .finetuning import finetune
    from .run import Run

__all__ = ["begun", "finetune", "plan", "recipe", "recipes", "stages", "train"]


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every published recipe by name."""
    from ..models import FAMILIES, family

    return {name: make for key in FAMILIES for name, make in getattr(family(key), "RECIPES", {}).items()}


def recipe(name: str) -> Recipe:
    """A published recipe.

    Raises:
        ConfigError: there is none of this name.
    """
    known = recipes()
    if name not in known:
        raise ConfigError(f"There is no recipe {name!r}.{nearest(name, tuple(known))} `promptseg train list` shows all.")
    return known[name]()


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Train as the recipe says -> the checkpoint folder, which `promptseg.load` takes.

    ``report(step, figures)`` follows every step, ``log(line)`` tells of the preparation. An interrupted run continues with ``resume``.
    A training on whose result this one builds (`stages`) comes first, and goes on where it stopped, unless it is done.

    Raises:
        DataError: the data is not where the recipe says, or the output folder cannot be used.
        ConfigError: the recipe does not fit the network, the processes or the run that is resumed.
        ImportError: a package of the extra ``train`` is missing.
        PromptSegError: a loss or a gradient is not finite.
        TrainingStopped: a signal asked for it; the state is saved.
    """
    from .loop import optimise
    from .record import prepare

    prepare(recipe, resume)  # complain before minutes of preparation, not after
    for stage in stages(recipe)[:-1]:
        train(stage, resume=begun(stage), report=report, log=log)
    return optimise(recipe, _run(recipe, log), resume=resume, report=report, log=log)


def plan(recipe: Recipe, log: Callable[[str], None] = print) -> Plan:
    """What `train` would do: parameters by group, and time and memory from one measured step. Nothing is kept but what preparation caches.

    Raises:
        As `train`.
    """
    from .estimate import measure

    return measure(recipe, _run(recipe, log))


def _run(recipe: Recipe, log: Callable[[str], None]) -> Run:
    run: Run = package(recipe).Run(recipe, log)
    return run


def __getattr__(name: str) -> Any:
    if name == "finetune":  # on first use: reading recipes imports no torch
        from .finetuning import finetune

        return finetune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

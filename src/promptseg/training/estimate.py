"""What a run would take, from one measured step: the answer to ``--dry-run``."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..contracts import Recipe
from .feed import batches
from .groups import Group
from .run import Run
from .step import Stepper


@dataclass(frozen=True, slots=True)
class Plan:
    """``total`` and ``trainable`` parameters; the optimiser's ``groups``; one step's ``seconds`` and the process's peak ``memory_mb``."""

    recipe: Recipe
    total: int
    groups: tuple[Group, ...]
    seconds: float
    memory_mb: float
    losses: dict[str, float]

    @property
    def trainable(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def hours(self) -> float:
        """Of the whole run at this step's pace."""
        return self.seconds * self.recipe.steps / 3600


def measure(recipe: Recipe, run: Run) -> Plan:
    """Take two steps as the run would, time the second with what it waits for its examples, and forget both.

    Raises:
        ConfigError: the recipe does not fit the network or the processes.
        PromptSegError: a loss or a gradient is not finite.
    """
    torch.manual_seed(recipe.seed)
    stepper = Stepper(recipe, run, None)
    seconds, losses = 0.0, {}
    begun = time.monotonic()
    for step, parts in enumerate(batches(run, stepper.share, 0, 2, workers=recipe.workers)):
        losses = stepper.processes.mean(stepper(step, parts))
        begun, seconds = time.monotonic(), time.monotonic() - begun
    total = sum(parameter.numel() for parameter in run.model.parameters())
    return Plan(recipe, total, tuple(stepper.groups), seconds, stepper.processes.memory_mb(), losses)

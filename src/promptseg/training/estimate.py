"""What a run would take, from one measured step: the answer to ``--dry-run``."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..contracts import Recipe
from .distributed import Processes
from .feed import Share, batches
from .groups import Group, arrange
from .loop import Step, optimizer_of
from .recompute import recompute
from .run import Run, check_offered


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
    """Take two steps, time the second, and forget both."""
    torch.manual_seed(recipe.seed)
    check_offered(recipe, run)
    groups = arrange(run.model, recipe)
    for pattern in recipe.checkpointing:
        recompute(run.model, pattern)
    processes = Processes(recipe)
    wrapped, optimizer = processes.wrap(Step(run), optimizer_of(groups, recipe), recipe.compile)
    run.model.train()
    share = Share(recipe.batch_size, processes.rank, processes.count, recipe.accumulate)
    seconds, losses = 0.0, {}
    for parts in batches(run, share, 0, 2, workers=0):
        begun = time.monotonic()
        for part in parts:
            named = wrapped(processes.to_device(part))
            processes.backward(torch.stack([value.float() for value in named.values()]).sum() / len(parts))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses = processes.mean({name: value.detach() for name, value in named.items()})
        seconds = time.monotonic() - begun
    total = sum(parameter.numel() for parameter in run.model.parameters())
    return Plan(recipe, total, tuple(groups), seconds, processes.memory_mb(), losses)

"""One step of training: rates, losses and gradients of every part of its batch, clipping, the update, the average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts import Recipe
from ..errors import PromptSegError
from . import checkpoints
from .average import Average
from .distributed import Processes
from .feed import Share
from .groups import Group, arrange
from .recompute import recompute
from .run import Run, check_offered


class Losses(nn.Module):
    """Batch -> named losses: what is compiled, wrapped for several processes, and autocast."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.model, self._losses = run.model, run.losses

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return dict(self._losses(batch))


class Stepper:
    """A recipe's network, optimiser and average on the recipe's devices, and how they take a step.

    ``output``: folder in which the batch is kept whose losses or gradients are not finite; None keeps none.

    Raises:
        ConfigError: the recipe does not fit the network or the processes.
    """

    def __init__(self, recipe: Recipe, run: Run, output: Path | None) -> None:
        self.recipe, self.run, self.output = recipe, run, output
        check_offered(recipe, run)
        self.groups = arrange(run.model, recipe)
        for pattern in recipe.checkpointing:
            recompute(run.model, pattern)
        self.processes = Processes(recipe)
        self.share = Share(recipe.batch_size, self.processes.rank, self.processes.count, recipe.accumulate)
        self.rates = [group.lr for group in self.groups]
        self.wrapped, self.optimizer = self.processes.wrap(Losses(run), optimizer_of(self.groups, recipe), recipe.compile)
        self.average = Average(run.model, recipe.ema) if recipe.ema is not None else None
        run.model.train()

    def __call__(self, step: int, parts: Sequence[Any]) -> dict[str, Tensor]:
        """One update from all parts of the step's batch -> the losses of this process, their means over the parts.

        Raises:
            PromptSegError: a loss or a gradient is not finite; nothing was updated.
        """
        for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = self.recipe.schedule.rate(base, step, self.recipe.steps)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with nullcontext() if index + 1 == len(parts) else self.processes.no_sync(self.wrapped):
                named = self.wrapped(self.processes.to_device(part))
                for name, value in named.items():
                    self._check_finite(step, f"the loss {name!r}", value.item(), part)
                self.processes.backward(torch.stack([value.float() for value in named.values()]).sum() / len(parts))
            for name, value in named.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / len(parts)
        norm = self.processes.clip(self.wrapped, math.inf if self.recipe.clip is None else self.recipe.clip)
        if not self.processes.skips_overflow:
            self._check_finite(step, "the gradient's norm", norm, parts if len(parts) > 1 else parts[0])
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.run.model)
        return sums

    def _check_finite(self, step: int, what: str, value: float, batch: Any) -> None:
        if math.isfinite(value):
            return
        kept = ""
        if self.output is not None:
            file = checkpoints.keep_batch(self.output / f"broken-step-{step}-rank-{self.processes.rank}.safetensors", batch)
            kept = f" Its batch is kept in {file}."
        raise PromptSegError(
            f"Training stopped at step {step}, before its update: {what} is {value}.{kept} Look at it, or lower the learning rate."
        )


def optimizer_of(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over the groups, each with its own rate and weight decay."""
    tables = [{"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay} for group in groups]
    return torch.optim.AdamW(tables, betas=recipe.betas, eps=recipe.epsilon)

"""One readable training loop. A family hands over a `Run`; the loop steps, averages, logs, saves and resumes.

The loop knows no loss by name and no data: it sees named scalars. A run that is interrupted at any moment continues from its newest
complete checkpoint and ends with the same weights as one that ran through, because batches depend on the step alone and all state is saved.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..contracts import Recipe
from ..errors import DataError, PromptSegError
from ..zoo import save_folder

Report = Callable[[int, dict[str, float]], None]
CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Run(Protocol):
    """What a family gives the loop: the network, its parameter groups, batches by step, named losses, and what to keep at the end."""

    model: nn.Module

    def groups(self) -> list[dict[str, Any]]:
        """Optimiser groups; ``lr`` of each is its factor on the recipe's rate."""

    def batch(self, step: int) -> Any:
        """The batch of this step, whatever came before."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Named scalars, already weighted: their sum is minimised."""

    def state(self) -> dict[str, Any]:
        """What the run remembers between steps beside the weights."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""


def optimise(recipe: Recipe, run: Run, *, resume: bool = False, report: Report | None = None) -> Path:
    """Train a prepared run as its recipe says -> the folder with the averaged weights.

    ``report(step, losses)`` is called after every step. With ``resume`` the newest checkpoint under ``recipe.output`` is continued.

    Raises:
        DataError: the output folder cannot be written, or holds a finished or begun run and ``resume`` is off.
        PromptSegError: a loss is not finite; the message names step and loss.
    """
    output = Path(recipe.output)
    saved = prepare(output, resume)
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(
        [{**group, "lr": group.get("lr", 1.0) * recipe.lr, "initial": group.get("lr", 1.0) * recipe.lr} for group in run.groups()],
        weight_decay=recipe.weight_decay,
    )
    average = Average(run.model, recipe.ema)
    first = _restore(saved, run, optimizer, average) if saved else 0
    _forget_after(output / LOG, first)
    run.model.train()
    last_save = time.monotonic()
    with (output / LOG).open("a", encoding="utf-8") as log, _denormals_flushed():
        for step in range(first, recipe.steps):
            factor = rate(step, recipe.steps, recipe.warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["initial"] * factor
            named = run.losses(run.batch(step))
            values = {name: float(value.detach()) for name, value in named.items()}
            _check_finite(values, step)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(named.values())).sum().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
            optimizer.step()
            average.update(run.model)
            log.write(json.dumps({"step": step, "rate": factor, **{k: round(v, 5) for k, v in values.items()}}) + "\n")
            if report is not None:
                report(step, values)
            if time.monotonic() - last_save > recipe.save_every_s:
                _save(output, step + 1, run, optimizer, average)
                log.flush()
                last_save = time.monotonic()
    _save(output, recipe.steps, run, optimizer, average)
    average.put_into(run.model)
    run.model.eval()
    return save_folder(run.model, output, recipe.card)


def rate(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine to zero: the factor on the learning rate at ``step`` (0-based)."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Average:
    """Exponential moving average of the weights; its memory grows from a few steps to 1 / (1 - decay)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.shadow = {name: value.detach().clone() for name, value in model.state_dict().items() if value.is_floating_point()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        current = model.state_dict()
        names = [name for name, value in self.shadow.items() if value.dtype == torch.float32]
        torch._foreach_lerp_([self.shadow[n] for n in names], [current[n] for n in names], 1 - decay)

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        for name, value in model.state_dict().items():
            if name in self.shadow:
                value.copy_(self.shadow[name])


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Vanishing gradients would otherwise slow CPUs down several times."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _forget_after(log: Path, first: int) -> None:
    """Drop the lines of steps that will be taken again, and a last line that was cut off."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(lines[:first]), encoding="utf-8")


def _check_finite(values: dict[str, float], step: int) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise PromptSegError(f"Training stopped at step {step}: the loss {broken[0]!r} is {values[broken[0]]}. Lower the learning rate.")


def prepare(output: Path, resume: bool) -> dict[str, Any] | None:
    """Make the folder -> the newest checkpoint, if there is one to continue.

    Raises:
        DataError: the folder cannot be written, or holds a run that ``resume`` does not ask to continue.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / ".writable").write_bytes(b"")
        (output / ".writable").unlink()
    except OSError as error:
        raise DataError(f"The output folder {output} cannot be written: {error.strerror}. Choose another with --output.") from None
    file = output / CHECKPOINT
    if not file.exists():
        return None
    if not resume:
        raise DataError(f"{output} already holds a run. Continue it with --resume, or choose another folder with --output.")
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def _save(output: Path, step: int, run: Run, optimizer: torch.optim.Optimizer, average: Average) -> None:
    """Write all state under a temporary name, then rename: a kill at any moment leaves the previous checkpoint whole."""
    state = {
        "step": step,
        "model": run.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.shadow,
        "count": average.count,
        "run": run.state(),
    }
    temporary = output / (CHECKPOINT + ".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(output / CHECKPOINT)


def _restore(saved: dict[str, Any], run: Run, optimizer: torch.optim.Optimizer, average: Average) -> int:
    run.model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    average.shadow, average.count = saved["average"], saved["count"]
    run.load_state(saved["run"])
    return int(saved["step"])

"""One readable training loop. A family hands over a `Run`; the loop steps, averages, logs, validates, saves and resumes.

A run that is interrupted at any moment continues from its newest complete checkpoint and ends with the same weights, bit for bit, as one
that ran through: examples depend on their number alone, and the states of optimiser, average, generators and run are part of a checkpoint.
Accelerate supplies devices, mixed precision and processes: ``accelerate launch -m promptseg train ...`` or ``torchrun`` distribute the same
loop. What is wrapped is one step, batch -> losses, so that families may call any part of their network.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts import Recipe
from ..errors import ConfigError, TrainingStopped
from ..zoo import save_folder
from . import checkpoints, record
from .feed import batches, lost_workers
from .journal import Journal
from .run import Run
from .step import Stepper

Report = Callable[[int, Mapping[str, float]], None]
BEST = "best"
ROOM = 4  # times the size of the weights that a checkpoint takes at most: weights, two moments, average


def optimise(recipe: Recipe, run: Run, *, resume: bool = False, report: Report | None = None, log: Callable[[str], None] = print) -> Path:
    """Train a prepared run as its recipe says -> the folder with the averaged weights.

    ``report(step, figures)`` is called after every step. With ``resume`` the newest checkpoint under ``recipe.output`` is continued.

    Raises:
        DataError: the output folder cannot be written, is full, or holds a run and ``resume`` is off; an example cannot be made.
        ConfigError: the recipe does not fit the network, the processes or the run that is resumed.
        PromptSegError: a loss or a gradient is not finite; the message names the step, which of them, and where the batch is kept.
        TrainingStopped: a signal asked for it; the state is saved.
    """
    record.prepare(recipe, resume)
    if resume and not checkpoints.found(Path(recipe.output)):
        log(f"There is no run in {recipe.output} to go on with: one begins.")
    torch.manual_seed(recipe.seed)
    with ExitStack() as around:
        training = Training(recipe, run, around, log)
        stop = around.enter_context(_asked_to_stop())
        around.enter_context(_denormals_flushed())
        for step, parts in training.batches():
            training.reached = step
            figures = training.step(step, parts)
            if report is not None and training.processes.main:
                report(step, figures)
            training.look(step + 1)
            stopping = training.processes.any(stop.asked)
            if stopping or training.due():
                training.save(step + 1)
            if stopping:
                raise TrainingStopped(f"Stopped after {step + 1} of {recipe.steps} steps; go on with --resume.")
        training.save(recipe.steps)
        return training.result()


class Training:
    """The parts of a run in progress, and what may happen to them between two steps."""

    def __init__(self, recipe: Recipe, run: Run, around: ExitStack, log: Callable[[str], None]) -> None:
        self.recipe, self.run, self.output = recipe, run, Path(recipe.output)
        self.stepper = Stepper(recipe, run, self.output)
        self.processes, self.share, self.average = self.stepper.processes, self.stepper.share, self.stepper.average
        self.best = -math.inf
        self.first = self._begin(log)
        self.reached = self.first - 1  # the step whose examples came last
        around.enter_context(lost_workers(run, self.share, recipe.workers, lambda: self.reached))
        main = self.processes.main
        if main:
            record.keep(recipe)
        self.journal = around.enter_context(Journal(self.output, recipe.name, self.first, recipe.trackers)) if main else None
        self.saved_at = self.stepped_at = time.monotonic()

    def _begin(self, log: Callable[[str], None]) -> int:
        """Take up the newest checkpoint, or make sure that there is room for the first -> the step to begin with."""
        saved = checkpoints.newest(self.output, log)
        if saved is None:
            checkpoints.check_room(self.output, self.run.model.state_dict(), ROOM * (self.recipe.keep + 1))
            self._draw_alone()
            return 0
        self.processes.load(self.stepper.wrapped, self.stepper.optimizer, saved["network"])
        if self.average is not None:
            self.average.load(self.processes.like(saved["average"], self.average.shadow), saved["count"])
        self.best = saved["best"]
        ranks = saved["ranks"]
        if len(ranks) != self.processes.count:
            log(f"The run was begun by {len(ranks)} processes and goes on with {self.processes.count}: alike, but not bit for bit.")
        mine = ranks[min(self.processes.rank, len(ranks) - 1)]
        self.run.load_state(mine["run"])
        if self.processes.rank < len(ranks):
            checkpoints.restore_random_state(mine["random"])
        else:
            self._draw_alone()
        return int(saved["step"])

    def _draw_alone(self) -> None:
        """Each process has other examples, so it draws another dropout than the first, which draws as a process without others does."""
        if self.processes.rank:
            torch.manual_seed(self.recipe.seed + self.processes.rank)

    def batches(self) -> Iterator[tuple[int, list[Any]]]:
        """The steps that are left and this process's part of each batch."""
        steps = self.recipe.steps
        pin = self.processes.device.type == "cuda"
        yield from zip(
            range(self.first, steps), batches(self.run, self.share, self.first, steps, workers=self.recipe.workers, pin=pin), strict=True
        )

    def step(self, step: int, parts: list[Any]) -> dict[str, float]:
        """One update from all parts of its batch -> its figures, the same in every process."""
        return self._figures(step, self.stepper(step, parts))

    def _figures(self, step: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        before, self.stepped_at = self.stepped_at, time.monotonic()
        rate = self.recipe.schedule.rate(self.recipe.lr, step, self.recipe.steps)
        seconds, memory = self.stepped_at - before, self.processes.memory_mb()
        figures = {**self.processes.mean(sums), "rate": rate, "seconds": seconds, "memory_mb": memory}
        if self.journal is not None:
            self.journal.step(step, figures)
        return figures

    def look(self, step: int) -> None:
        """Validation and pictures with the averaged weights, where they are due after ``step`` steps."""
        recipe = self.recipe
        validate = recipe.validate_every is not None and (step % recipe.validate_every == 0 or step == recipe.steps)
        picture = recipe.pictures_every is not None and step % recipe.pictures_every == 0
        if not (validate or picture):
            return
        weights = self.average.applied(self.run.model) if self.average is not None else evaluating(self.run.model)
        with weights, self.processes.gathered(self.run):
            if validate:
                self._validated(step, self.run.validate())
            image = self.run.pictures() if picture else None
        if image is not None and self.journal is not None:
            self.journal.picture(step, image)

    def _validated(self, step: int, figures: Mapping[str, float]) -> None:
        if self.journal is not None:
            self.journal.validation(step, figures)
        if self.recipe.best is None:
            return
        if self.recipe.best not in figures:
            raise ConfigError(f"best: {self.recipe.best!r} is no figure of the validation; there are {', '.join(figures) or 'none'}.")
        if figures[self.recipe.best] > self.best:
            self.best = figures[self.recipe.best]
            self._keep(self.output / BEST)

    def due(self) -> bool:
        """Whether the time for a checkpoint has come; the main process's clock counts."""
        return self.processes.any(self.processes.main and time.monotonic() - self.saved_at > self.recipe.save_every_s)

    def save(self, step: int) -> None:
        """Everything that step ``step`` depends on."""
        state = {
            "step": step,
            "network": self.processes.state(self.stepper.wrapped, self.stepper.optimizer),
            "average": self.processes.whole(self.average.shadow) if self.average is not None else {},
            "count": self.average.count if self.average is not None else 0,
            "best": self.best,
            "ranks": self.processes.gather({"run": self.run.state(), "random": checkpoints.random_state()}),
        }
        if self.journal is not None:
            self.journal.flush()
            checkpoints.save(checkpoints.file_of(self.output, step), state)
            checkpoints.keep_last(self.output, self.recipe.keep)
        self.saved_at = time.monotonic()
        self.processes.wait()

    def result(self) -> Path:
        """The folder that `promptseg.load` takes: averaged weights, if the recipe averages."""
        if self.average is not None:
            self.average.put_into(self.run.model)
        self.run.model.eval()
        self._keep(self.output)
        return self.output

    def _keep(self, folder: Path) -> None:
        model = self.processes.unsharded(self.run.model)
        if self.processes.main:
            with checkpoints.writing(folder):
                save_folder(self.run.finished(model), folder, self.recipe.card, trained=self.recipe.name)
        self.processes.wait()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every part's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Stop:
    asked = False


@contextmanager
def _asked_to_stop() -> Iterator[_Stop]:
    """Notes SIGTERM and the first Ctrl-C instead of dying of them; the second Ctrl-C interrupts at once."""
    stop = _Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # signals belong to the main thread; elsewhere nobody can send us one
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Vanishing gradients would otherwise slow CPUs down several times."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)

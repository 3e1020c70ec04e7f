"""A run small enough to be trained hundreds of times: a linear fit with dropout, whose loss also reads what the run remembers.

As a script it trains itself, for tests that kill or distribute it:  python toy_training.py OUTPUT [key=value ...]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import promptseg.training.loop
from promptseg.contracts import ParameterGroup, Recipe
from promptseg.training.files import with_words
from promptseg.training.loop import optimise
from promptseg.training.run import Run
from promptseg.training.schedules import Cosine, Warmup

WEIGHTS = "weights.pt"


class Config:
    """What `type(model)(model.config)` needs."""


class ToyModel(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.body, self.drop, self.head = nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1)

    def fit(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x)).relu()).squeeze(-1)


class ToyRun(Run):
    """``poison``: the call of `losses` that gives NaN; ``broken``: the example that cannot be made; ``pause``: seconds per example;
    ``die``: the step at which the process is killed."""

    def __init__(
        self,
        *,
        poison: int | None = None,
        broken: int | None = None,
        pause: float = 0.0,
        dropout: float = 0.2,
        memory: float = 0.01,
        die: int | None = None,
    ) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = ToyModel(Config())
        self.model.drop.p = dropout
        self.seen, self.validations, self.memory = 0, 0, memory
        self.poison, self.broken, self.pause, self.die = poison, broken, pause, die

    def example(self, number: int) -> tuple[int, Tensor]:
        if number == self.broken:
            raise RuntimeError("cannot identify image file")
        time.sleep(self.pause)
        return number, torch.randn(4, generator=torch.Generator().manual_seed(number))

    def collate(self, examples: Sequence[tuple[int, Tensor]]) -> dict[str, Any]:
        return {"numbers": [number for number, _ in examples], "x": torch.stack([x for _, x in examples])}

    def describe(self, number: int) -> str:
        return f"photo_{number}.jpg"

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        if self.seen == self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1
        fit = (self.model.fit(batch["x"]) - batch["x"].sum(1)).square().mean()
        return {"fit": fit * (float("nan") if self.seen == self.poison else 1.0), "memory": fit * self.memory * (self.seen % 3)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]

    def validate(self) -> dict[str, float]:
        assert not self.model.training, "validation sees the network as it will be used"
        self.validations += 1
        with torch.no_grad():
            error = self.model.fit(torch.eye(4)).sub(1).square().mean().item()
        return {"closeness": 1.0 if self.validations == 2 else 0.5, "error": error}

    def pictures(self) -> Image.Image:
        return Image.new("RGB", (4, 4), "red")


def toy_recipe(output: Path | str, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "toy", "card": "pocket", "data": "", "steps": 40, "batch_size": 8, "lr": 0.02, "save_every_s": 0.0,
        "schedule": Warmup(steps=5, main=Cosine()), "groups": (ParameterGroup(pattern="body.*", lr=0.5),), **changes,
    }  # fmt: skip
    return Recipe(output=str(output), **values)


def save_bare(model: nn.Module, folder: Path, card: str, *, trained: str | None = None) -> Path:
    """The toy network has no family; its weights are kept as a bare file."""
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / WEIGHTS)
    return folder


if __name__ == "__main__":
    promptseg.training.loop.save_folder = save_bare  # type: ignore[assignment]
    options = {key: float(value) for key, value in (word[2:].split("=") for word in sys.argv[2:] if word.startswith("--"))}
    die = int(options["die"]) if "die" in options else None
    toy = ToyRun(pause=options.get("pause", 0.0), dropout=options.get("dropout", 0.2), memory=options.get("memory", 0.01), die=die)
    optimise(with_words(toy_recipe(sys.argv[1]), [word for word in sys.argv[2:] if not word.startswith("--")]), toy, resume=True)

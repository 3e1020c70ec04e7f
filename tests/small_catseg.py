"""CAT-Seg's training in miniature. As a script it trains until it kills itself:  python small_catseg.py DATA OUTPUT STEP"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import replicas
from promptseg import training
from promptseg.contracts import Recipe
from test_catseg import TINY

SMALL = replace(TINY, side=32, layers=1)  # as it is asked; 171 classes learn in a second


def photos(root: Path) -> Path:
    """`replicas.coco_stuff` with a training split, which holds the same two photos."""
    replicas.coco_stuff(root)
    for part in (root / "stuffthingmaps", root):
        shutil.copytree(part / "val2017", part / "train2017")
    return root


def recipe(root: Path, output: Path, *, name: str = "catseg/base", **changes: Any) -> Recipe:
    """A published recipe with a tiny network on random towers and few steps."""
    base = training.recipe(name)
    small = replace(base.options, config=replace(SMALL, pooling=2), clip=None, crop=64, validation=2)
    values = {"steps": 4, "batch_size": 2, "lr": 3e-3, "workers": 0, "save_every_s": 0.0, "validate_every": 4, **changes}
    return replace(base, data=str(root), output=str(output), options=small, **values)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)

"""CAT-Seg's training in miniature. As a script it trains until it kills itself:  python small_catseg.py DATA OUTPUT STEP"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import replicas
from promptseg import training, zoo
from promptseg.contracts import Recipe
from promptseg.models.catseg import CatSegConfig
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from test_catseg import TINY

# as they are asked; 171 classes learn in a second, filled up as in the published networks
SMALL = replace(TINY, side=32, layers=1, pad_classes=256)
LARGE = replace(
    SMALL,
    image=ClipVisionConfig(width=24, layers=5, heads=2, patch=7, grid=4, embed=12),
    text=ClipTextConfig(width=12, layers=2, heads=2, embed=12),
    side=28,
    taps=(1, 3),
)
CARDS = {"catseg-base": SMALL, "catseg-large": LARGE}
PROMPTED = (4, 3)  # visual_prompts, where a recipe has any: in every block


def photos(root: Path) -> Path:
    """`replicas.coco_stuff` with a training split, which holds the same two photos."""
    replicas.coco_stuff(root)
    for part in (root / "stuffthingmaps", root):
        shutil.copytree(part / "val2017", part / "train2017")
    return root


def network(name: str) -> CatSegConfig:
    """A recipe's network in miniature: the card's, and all that the recipe has changed of it."""
    base = training.recipe(name)
    full, card = base.options.config, zoo.config(base.card)
    changed = {field.name: getattr(full, field.name) for field in fields(full) if getattr(full, field.name) != getattr(card, field.name)}
    return replace(CARDS[base.card], **changed | ({"visual_prompts": PROMPTED} if "visual_prompts" in changed else {}))


def recipe(root: Path, output: Path, *, name: str = "catseg/base", **changes: Any) -> Recipe:
    """A published recipe with its network in miniature on random towers and few steps."""
    base = training.recipe(name)
    small = replace(base.options, config=network(name), clip=None, crop=64, validation=2)
    values = {"steps": 4, "batch_size": 2, "lr": 3e-3, "workers": 0, "save_every_s": 0.0, "validate_every": 4, **changes}
    return replace(base, data=str(root), output=str(output), options=small, **values)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)

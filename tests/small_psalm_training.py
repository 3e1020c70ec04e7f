"""PSALM's training in miniature. As a script it trains until it kills itself:  python small_psalm_training.py DATA OUTPUT STEP"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import replicas
from promptseg import models
from promptseg.contracts import Recipe
from promptseg.data import instructions
from promptseg.models.psalm.config import PREPROCESS, LanguageConfig, MaskConfig, PsalmConfig, SwinConfig
from promptseg.models.psalm.recipes import RECIPES, Source, Weighting
from promptseg.models.psalm.run import PsalmRun
from promptseg.training.loop import optimise
from promptseg.training.schedules import Constant

models.FAMILIES.setdefault("psalm", "promptseg.models.psalm")

SMALL = PsalmConfig(
    vision=SwinConfig(width=8, depths=(1, 1, 2, 1), heads=(1, 1, 2, 2), window=4, drop_path=0.0),
    language=LanguageConfig(vocabulary=297, width=32, hidden=64, layers=2, heads=2),
    masks=MaskConfig(width=32, queries=6, encoder_layers=1, encoder_hidden=32, layers=2, heads=2, hidden=32, groups=8),
    projector=32, region_points=8, preprocess=replace(PREPROCESS, size=64),
)  # fmt: skip
SOURCES = (
    Source(kind="panoptic", path=(".",), split="val2017"),
    Source(kind="referring", path=("refs.json",), photos="val2017"),
    Source(kind="interactive", path=("clicks.json",), photos="val2017"),
    Source(kind="conversation", path=("talk.json",), photos="val2017"),
)


def photos(root: Path) -> Path:
    """All four sources of stage 2 over the photos of `replicas.coco_instances`."""
    replicas.coco_instances(root)
    replicas.coco_panoptic(root)
    table = replicas.coco_table()
    refs = [
        {"split": "train", "ann_id": number, "image_id": number, "sentences": [{"sent": "a person"}, {"sent": f"number {number}"}]}
        for number in (1, 2, 3)
    ]
    said = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]
    talk = [{"image": "000000000001.jpg", "conversations": said}, {"conversations": said}, {"image": "gone.jpg", "conversations": said}]
    replicas.write_json(root / "refs.json", instructions.referring(refs, table, "train"))
    replicas.write_json(root / "clicks.json", instructions.interactive(table, Random(0)))
    replicas.write_json(root / "talk.json", talk)
    return root


def recipe(root: Path, output: Path, *, name: str = "psalm/stage2", options: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    """A published recipe with a tiny network on random weights and few steps; two examples of each source in turn."""
    base = RECIPES[name]()
    few = {"config": SMALL, "sources": SOURCES, "projector": None, "every": 2, "losses": Weighting(points=32), **(options or {})}
    values = {
        "steps": 8,
        "batch_size": 2,
        "accumulate": 1,
        "lr": 1e-3,
        "workers": 0,
        "save_every_s": 0.0,
        "precision": "float32",
        **changes,
    }
    return replace(
        base,
        data=str(root),
        output=str(output),
        schedule=Constant(),
        checkpointing=(),
        options=replace(base.options, **few),
        **(values | changes),
    )


def train(recipe: Recipe, **how: Any) -> Path:
    """As `training.train`."""
    return optimise(recipe, PsalmRun(recipe, lambda _: None), log=lambda _: None, **how)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)

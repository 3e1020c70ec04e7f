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
from promptseg import training
from promptseg.contracts import Recipe
from promptseg.data import instructions
from promptseg.models.psalm.recipes import Source, Weighting
from promptseg.training.schedules import Constant
from small_psalm import CONFIG

SMALL = replace(CONFIG, vision=replace(CONFIG.vision, drop_path=0.0))
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
    base = training.recipe(name)
    few: dict[str, Any] = {"config": SMALL, "sources": SOURCES, "every": 2, "losses": Weighting(points=32)}
    few |= {"projector": None, "language": (), "masks": None, "tokenizer": None, **(options or {})}
    values = {"steps": 8, "batch_size": 2, "accumulate": 1, "lr": 1e-3, "workers": 0, "save_every_s": 0.0, "precision": "float32"}
    whole = replace(base.options, **few)
    places = {"data": str(root), "output": str(output)}
    return replace(base, schedule=Constant(), checkpointing=(), options=whole, **places, **(values | changes))


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)

"""Whatever is wrong with the files of a data set, the answer is one of our sentences, never a traceback of something else."""

from __future__ import annotations

import copy
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import replicas
from promptseg.data.catalogue import read
from promptseg.data.checks import inspect
from promptseg.data.own_checks import label_findings
from promptseg.errors import PromptSegError

VALUES = (None, -1, 0, 10**9, "x", "", [], {}, [[]], [1, 2, 3], [["a"]], {"size": [30, 40], "counts": [1, 2]}, 1.5, True, float("nan"))
TABLES = [
    ("coco-instances", replicas.coco_instances, "annotations/instances_val2017.json", "val2017"),
    ("coco-panoptic", replicas.coco_panoptic, "annotations/panoptic_val2017.json", "val2017"),
    ("lvis", replicas.lvis, "annotations/lvis_v1_train.json", "train"),
    ("phrasecut", replicas.phrasecut, "refer_train.json", "train"),
    ("phrasecut", replicas.phrasecut, "image_data_split.json", "train"),
]
FOLDERS = [
    ("voc", replicas.voc, "val"),
    ("coco20i", replicas.coco20i, "val-0"),
    ("ade847", replicas.ade847, "validation"),
    ("coco-panoptic", replicas.coco_panoptic, "val2017"),
    ("own", replicas.own_yolo, "all"),
    ("own", replicas.own_folders, "all"),
    ("own", replicas.own_maps, "all"),
]


def spots(node: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value that can be changed, as container and key."""
    keys = list(node) if isinstance(node, dict) else range(min(len(node), 4)) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [spot for key in keys for spot in spots(node[key])]


def changed(table: Any, chance: random.Random) -> Any:
    table = copy.deepcopy(table)
    container, key = chance.choice(spots(table))
    if isinstance(container, dict) and chance.random() < 0.25:
        del container[key]
    else:
        container[key] = chance.choice(VALUES)
    return table


def look(name: str, root: Path, split: str) -> None:
    """Reads everything; our own exceptions are answers."""
    with suppress(PromptSegError):
        inspect(read(name, root, split))
        if name == "own":
            label_findings(root)


@pytest.mark.parametrize(("name", "build", "file", "split"), TABLES)
def test_tables_of_another_form(tmp_path: Path, name: str, build: Any, file: str, split: str) -> None:
    root, chance = build(tmp_path), random.Random(0)
    table = json.loads((root / file).read_text(encoding="utf-8"))
    for _ in range(60):
        replicas.write_json(root / file, changed(table, chance))
        look(name, root, split)
        if name == "coco-instances":
            look("own", root / file, "all")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's own words on damaged tags
@pytest.mark.parametrize(("name", "build", "split"), FOLDERS)
def test_damaged_bytes(tmp_path: Path, name: str, build: Any, split: str) -> None:
    root, chance = build(tmp_path), random.Random(0)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    for _ in range(40):
        file = chance.choice(files)
        whole = file.read_bytes()
        broken = bytearray(whole)
        for _ in range(chance.choice((1, 3, 30))):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        file.write_bytes(broken[: chance.randrange(len(broken))] if chance.random() < 0.3 else broken)
        look(name, root, split)
        file.write_bytes(whole)

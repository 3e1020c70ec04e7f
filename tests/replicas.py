"""Miniature data sets in their published formats: a few small photos, every file where the readers look for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def photo(path: Path, size: tuple[int, int] = (40, 48), seed: int = 0) -> None:
    """A JPEG of ``size`` (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def labels(path: Path, values: NDArray[Any]) -> None:
    """A label map: one value per pixel, 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 1) -> NDArray[np.uint8]:
    """(H, W) uint8, ``value`` in the box (x0, y0, x1, y1), half-open, 0 elsewhere."""
    mask = np.zeros(size, dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = value
    return mask


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


# --- PhraseCut --------------------------------------------------------------------------------------------------------------------------

PHRASES = {  # image id -> phrase and box (x, y, w, h)
    1: [("red box", (4, 4, 20, 20)), ("sitting man", (26, 10, 16, 20))],
    2: [("red box", (10, 8, 24, 24)), ("blue chairs", (2, 2, 10, 10))],
    3: [("red box", (6, 6, 30, 28)), ("wine bottle", (1, 1, 4, 4))],
    150417: [("red box", (1, 1, 9, 9))],  # one of those whose size is wrong
}


def phrasecut(root: Path) -> Path:
    """VGPhraseCut v0: the train split has three usable photos, val one."""
    size, table, tasks = (40, 48), [], []
    for image, said in PHRASES.items():
        photo(root / "images" / f"{image}.jpg", size, image)
        table.append({"image_id": image, "height": size[0], "width": size[1], "split": "train"})
        for number, (phrase, (x, y, w, h)) in enumerate(said):
            polygon = [[x, y], [x + w - 1, y], [x + w - 1, y + h - 1], [x, y + h - 1]]
            task = {"task_id": f"{image}__{number}", "image_id": image, "ann_ids": [number], "phrase": phrase}
            tasks.append(task | {"Polygons": [[polygon]], "instance_boxes": [[x, y, w, h]]})
    write_json(root / "image_data_split.json", table)
    write_json(root / "refer_train.json", tasks)
    write_json(root / "refer_val.json", tasks[:2])
    return root

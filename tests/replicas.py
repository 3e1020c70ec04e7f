"""Miniature data sets in their published formats: a few small photos, every file where the readers look for it."""

from __future__ import annotations

import json
import pickle
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


# --- Pascal VOC -------------------------------------------------------------------------------------------------------------------------


def voc(root: Path, *, aug: bool = True) -> Path:
    """VOCdevkit/VOC2012 with four photos of 60 x 80 pixels: aeroplane and person, aeroplane, bicycle, bicycle."""
    place, size = root / "VOCdevkit" / "VOC2012", (60, 80)
    content = {"2007_000001": [(1, (4, 4, 56, 52)), (15, (60, 4, 70, 20))], "2007_000002": [(1, (10, 4, 70, 50))]}
    content |= {"2007_000003": [(2, (4, 4, 60, 50))], "2007_000004": [(2, (20, 5, 78, 55))]}
    for number, (stem, things) in enumerate(content.items()):
        values = np.zeros(size, dtype=np.uint8)
        for index, box in things:
            values = np.maximum(values, rectangle(size, box, index))
        values[:2] = 255
        photo(place / "JPEGImages" / f"{stem}.jpg", size, number)
        labels(place / "SegmentationClass" / f"{stem}.png", values)
        if aug:
            labels(place / "SegmentationClassAug" / f"{stem}.png", values)
    lists = place / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val", "trainval", "trainaug"):
        (lists / f"{split}.txt").write_text("\n".join(content) + "\n")
    return root


def coco20i(root: Path) -> Path:
    """COCO 2014 with HSNet's lists of fold 0: two photos of every tested class."""
    size, listed = (30, 40), {}
    for number in range(0, 80, 4):
        listed[number] = [f"val2014/COCO_val2014_{number:04d}{copy}.jpg" for copy in "ab"]
        for name in listed[number]:
            photo(root / name, size, number)
            labels((root / "annotations" / name).with_suffix(".png"), rectangle(size, (5, 5, 30, 25), number + 1))
    (root / "splits" / "val").mkdir(parents=True)
    (root / "splits" / "val" / "fold0.pkl").write_bytes(pickle.dumps(listed))
    return root

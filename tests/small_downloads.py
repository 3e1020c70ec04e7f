"""Miniature downloads of the open-vocabulary benchmarks, as their authors publish them, before any preparation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from promptseg.rle import Rle
from replicas import labels, photo, rectangle, write_json

SIZE = (30, 40)


def ade847(root: Path, size: tuple[int, int] = (620, 700)) -> Path:
    """A large photo and a small one, each in the folder of its scene, with parts and single objects that belong to neither map."""
    place = root / "ADE20K_2021_17_01" / "images" / "ADE" / "validation"
    for stem, scene, shape in (("ADE_val_00000001", "urban/street", size), ("ADE_val_00000002", "home/attic", SIZE)):
        photo(place / scene / f"{stem}.jpg", shape, len(scene))
        colours = np.zeros((*shape, 3), np.uint8)
        colours[..., 2] = 77  # numbers of objects
        for stripe, code in enumerate((2978, 312, 1, 2646)):  # wall, building, no class, and class 843
            rows = slice(stripe * shape[0] // 4, (stripe + 1) * shape[0] // 4)
            colours[rows, :, 0], colours[rows, :, 1] = code // 256 * 10 + stripe, code % 256
        labels(place / scene / f"{stem}_seg.png", colours)
        labels(place / scene / f"{stem}_parts_1.png", colours[::-1])
        labels(place / scene / stem / "instance_000_ADE_val.png", rectangle(shape, (1, 1, 9, 9), 255))
    return root


def context(root: Path) -> Path:
    """Two photos of the validation split and one of the other, in both forms of the annotations."""
    place = root / "VOCdevkit" / "VOC2010"
    images, annotations = [], []
    for number, phase in ((2008000002, "val"), (2008000003, "train"), (2008000007, "val")):
        stem = f"{number // 1000000}_{number % 1000000:06d}"
        photo(place / "JPEGImages" / f"{stem}.jpg", SIZE, number % 100)
        images.append(
            {"image_id": number, "file_name": f"{stem}.jpg", "height": SIZE[0], "width": SIZE[1], "phase": phase, "date_captured": "x"}
        )
        for category, box in (
            (258, (0, 0, 40, 20)),
            (2, (5, 5, 25, 15)),
            (0, (5, 5, 8, 15)),
            (300, (20, 10, 30, 25)),
            (458, (0, 28, 40, 30)),
        ):
            runs = Rle.encode(rectangle(SIZE, box).astype(bool))
            segmentation = {"size": list(SIZE), "counts": runs.to_string()}
            annotations.append(
                {"image_id": number, "category_id": category, "segmentation": segmentation, "area": 1, "parts": [{"part_id": 1}]}
            )
    content = {"images": images, "annos_segmentation": annotations, "annos_boundary": [{"image_id": 1, "boundary": [1, 2]}], "info": {}}
    write_json(place / "trainval_merged.json", content)
    (place / "pascalcontext_val.txt").write_text("2008_000002\n2008_000007\n2008_000009\n")  # the last one has no file
    (place / "trainval").mkdir()
    for stem, first in (("2008_000002", 1), ("2008_000003", 7), ("2008_000007", 0)):
        values = np.full(SIZE, 459, np.uint16)
        values[:10], values[10:12] = first, 258
        savemat(place / "trainval" / f"{stem}.mat", {"LabelMap": values}, do_compression=True)
    return root


def coco_stuff(root: Path) -> Path:
    """COCO-Stuff as CAT-Seg wants it to lie: maps in annotations, photos in images."""
    for split, number in (("train2017", 9), ("val2017", 139)):
        values = np.full(SIZE, 181, np.uint8)
        values[:10], values[10:12], values[12:14] = 0, 255, 89
        labels(root / "annotations" / split / f"{number:012d}.png", values)
        photo(root / "images" / split / f"{number:012d}.jpg", SIZE, number)
    return root

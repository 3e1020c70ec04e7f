"""A miniature replica of every set that `pocket` is trained and measured on: the same folders and files, a handful of tiny photographs."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

import replicas

SIZE = (48, 64)  # (H, W)
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 200)}


def write(root: Path) -> Path:
    """All sets under ``root``; each photo is a coloured box on another colour, so that a network could learn it."""
    _coco(root / "coco", 12)
    _coco(root / "coco_person", 10)
    for name, classes in (
        ("msrc", ["grass", "sky", "horse", "face", "body"]),
        ("camvid", ["road", "car", "pedestrian"]),
        ("ccp", ["hat", "shoes"]),
    ):
        _labels(root / name, classes, 10)
    _davis(root / "davis")
    (root / "imagenet" / "images").mkdir(parents=True)
    for index in range(3):
        _photo(root / "imagenet" / "images" / f"n{index}.jpg", index)[0]
    (root / "imagenet_names.csv").write_text("wnid,name\nn0,tench\nn1,goldfish\nn2,great white shark\n")
    (root / "flickr8k" / "images").mkdir(parents=True)
    for index in range(6):
        _photo(root / "flickr8k" / "images" / f"{index}.jpg", index)
    captions = (f"{index}.jpg,{said}\n" for index in range(6) for said in ("A dog on the grass .", "Two dogs ."))
    (root / "flickr8k" / "captions.csv").write_text("image,caption\n" + "".join(captions))
    return root


def folders(root: Path, *, names: tuple[str, ...] = ("dog",), count: int = 6) -> Path:
    """Labelled photos of one's own: a coloured box each, its mask in a folder per class."""
    for index in range(count):
        mask, _ = _photo(root / "images" / f"{index}.jpg", index)
        replicas.labels(root / "masks" / names[index % len(names)] / f"{index}.png", mask.astype(np.uint8) * 255)
    return root


def _photo(path: Path, seed: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Write a photo -> its mask and the box (x0, y0, x1, y1) of the thing."""
    rng = np.random.default_rng(seed)
    y0, x0 = int(rng.integers(2, 16)), int(rng.integers(2, 24))
    box = (x0, y0, x0 + 30, y0 + 24)
    mask = np.zeros(SIZE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    back, front = rng.permutation(list(COLOURS.values()))[:2]
    pixels = np.where(mask[..., None], front, back) + rng.integers(-20, 20, (*SIZE, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return mask, box


def _coco(root: Path, count: int) -> None:
    images, annotations = [], []
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}]
    for index in range(count):
        _, (x0, y0, x1, y1) = _photo(root / "images" / f"{index}.jpg", index)
        images.append({"id": index, "file_name": f"{index}.jpg", "height": SIZE[0], "width": SIZE[1]})
        category = 1 if root.name == "coco_person" else 1 + index % 3
        polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
        annotations.append({"id": index, "image_id": index, "category_id": category, "iscrowd": 0, "segmentation": [polygon]})
    table = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(table))


def _labels(root: Path, classes: list[str], count: int) -> None:
    (root / "labels").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    for index in range(count):
        name = f"{root.name}_{index}"
        mask, _ = _photo(root / "images" / f"{name}.jpg", zlib.crc32(name.encode()))
        labels = np.where(mask, 1 + index % len(classes), 1 + (index + 1) % len(classes)).astype(np.uint8)
        labels[:2] = 0
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")


def _davis(root: Path) -> None:
    (root / "Annotations" / "480p" / "swan").mkdir(parents=True)
    for index in range(2):
        mask, _ = _photo(root / "JPEGImages" / "480p" / "swan" / f"{index:05d}.jpg", index)
        Image.fromarray(mask.astype(np.uint8)).save(root / "Annotations" / "480p" / "swan" / f"{index:05d}.png")
    (root / "prompts.json").write_text('{"swan": "dog"}')

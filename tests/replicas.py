"""Miniature data sets in their published formats: a few small photos, every file where the readers look for it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptseg.data.own import own
from promptseg.data.shards import write_shards


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


def pascal5i(root: Path) -> Path:
    """The same with two photos more, both of a car, so that two of the folds can be tested."""
    place = voc(root) / "VOCdevkit" / "VOC2012"
    for number, box in ((5, (4, 4, 60, 50)), (6, (10, 2, 70, 58))):
        photo(place / "JPEGImages" / f"2007_00000{number}.jpg", (60, 80), number)
        labels(place / "SegmentationClassAug" / f"2007_00000{number}.png", rectangle((60, 80), box, 7))
        with (place / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
            file.write(f"2007_00000{number}\n")
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


# --- COCO and its relatives -------------------------------------------------------------------------------------------------------------

COCO_SIZE = (30, 40)
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]
POLYGON = [[5, 5, 25, 5, 25, 20, 5, 20]]


def coco_table(photos: int = 3) -> dict[str, Any]:
    """Photos 1..N with a person each, a crowd of people on the first and a dog as runs on the second."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 30, "width": 40} for n in range(1, photos + 1)]
    one = {"category_id": 1, "iscrowd": 0, "area": 300.0, "segmentation": POLYGON}
    annotations = [{"id": n, "image_id": n, **one} for n in range(1, photos + 1)]
    annotations.append(
        {"id": 90, "image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [600, 300, 300]}}
    )
    annotations.append(
        {"id": 91, "image_id": 2, "category_id": 18, "iscrowd": 0, "segmentation": {"size": [30, 40], "counts": [900, 120, 180]}}
    )
    return {"images": images, "annotations": annotations, "categories": [dict(entry) for entry in CATEGORIES]}


def coco_instances(root: Path) -> Path:
    table = coco_table()
    write_json(root / "annotations" / "instances_val2017.json", table)
    for image in table["images"]:
        photo(root / "val2017" / image["file_name"], COCO_SIZE, image["id"])
    return root


def coco_stuff(root: Path) -> Path:
    """Two photos: dog (17) on grass (123); toothbrush (89) with sky-other (156), ignored rows above."""
    for number, (thing, stuff) in enumerate([(17, 123), (89, 156)], start=1):
        values = np.full(COCO_SIZE, stuff, dtype=np.uint8)
        values[10:20, 10:20], values[:2] = thing, 255
        labels(root / "stuffthingmaps" / "val2017" / f"{number:012d}.png", values)
        photo(root / "val2017" / f"{number:012d}.jpg", COCO_SIZE, number)
    return root


def coco_panoptic(root: Path) -> Path:
    """One photo: a person (segment 300, so two colour channels are used) on grass, part of it a crowd, two rows unlabelled."""
    ids = np.full(COCO_SIZE, 7, dtype=np.int32)
    ids[5:20, 5:25], ids[25:, 30:], ids[:2] = 300, 70000, 0
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    labels(root / "annotations" / "panoptic_val2017" / "000000000001.png", colours)
    segments = [{"id": 300, "category_id": 1, "iscrowd": 0}, {"id": 7, "category_id": 193, "iscrowd": 0}]
    segments.append({"id": 70000, "category_id": 1, "iscrowd": 1})
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 193, "name": "grass-merged", "isthing": 0}]
    images = [{"id": 1, "file_name": "000000000001.jpg", "height": 30, "width": 40}]
    annotations = [{"image_id": 1, "file_name": "000000000001.png", "segments_info": segments}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    write_json(root / "annotations" / "panoptic_val2017.json", table)
    photo(root / "val2017" / "000000000001.jpg", COCO_SIZE)
    return root


def lvis(root: Path) -> Path:
    """Three photos with deck chairs, on one of them also a small bow."""
    table = coco_table()
    for image in table["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image['file_name']}"
        photo(root / "train2017" / image["file_name"], COCO_SIZE, image["id"])
    table["categories"] = [{"id": 1, "name": "deck_chair"}, {"id": 2, "name": "bow_(weapon)"}]
    table["annotations"] = table["annotations"][:3]
    table["annotations"].append({"id": 9, "image_id": 1, "category_id": 2, "area": 9.0, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]})
    write_json(root / "annotations" / "lvis_v1_train.json", table)
    return root


def lvis_by_use(root: Path) -> Path:
    """LVIS val: a car and a bird, a pony, a deck chair with a horse on it, and a photo that answers no phrase."""
    shown = {1: ("car_(automobile)", "bird"), 2: ("pony",), 3: ("deck_chair", "horse"), 4: ("bow_(weapon)",)}
    names = sorted({name for group in shown.values() for name in group})
    images, annotations = [], []
    for number, group in shown.items():
        photo(root / "val2017" / f"{number:012d}.jpg", COCO_SIZE, number)
        url = f"http://images.cocodataset.org/val2017/{number:012d}.jpg"
        images.append({"id": number, "coco_url": url, "height": COCO_SIZE[0], "width": COCO_SIZE[1]})
        for place, name in enumerate(group):
            x, y = 3 + 14 * place, 4 + 3 * number
            polygon = [x, y, x + 15, y, x + 15, y + 12, x, y + 12]
            one = {"id": 10 * number + place, "image_id": number, "category_id": 1 + names.index(name)}
            annotations.append(one | {"area": 180.0, "segmentation": [polygon]})
    categories = [{"id": 1 + place, "name": name} for place, name in enumerate(names)]
    write_json(root / "annotations" / "lvis_v1_val.json", {"images": images, "annotations": annotations, "categories": categories})
    return root


# --- ADE20K, PASCAL-Context -------------------------------------------------------------------------------------------------------------


def ade150(root: Path) -> Path:
    values = rectangle(COCO_SIZE, (0, 0, 40, 10), 3)  # sky
    values[20:] = 150  # flag
    labels(root / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png", values)
    photo(root / "ADEChallengeData2016" / "images" / "validation" / "ADE_val_00000001.jpg", COCO_SIZE)
    return root


def ade847(root: Path) -> Path:
    values = np.full(COCO_SIZE, 65535, dtype=np.uint16)
    values[:10], values[20:] = 2, 846
    labels(root / "annotations_detectron2" / "validation" / "ADE_val_00000001.tif", values)
    photo(root / "images_detectron2" / "validation" / "ADE_val_00000001.jpg", COCO_SIZE)
    return root


def context(root: Path) -> Path:
    """One photo in both readings: aeroplane above, ignored or the last class below."""
    place, small = root / "VOCdevkit" / "VOC2010", np.full(COCO_SIZE, 255, dtype=np.uint8)
    large = np.full(COCO_SIZE, 458, dtype=np.uint16)
    small[:10], large[:10] = 0, 1
    labels(place / "annotations_detectron2" / "pc59_val" / "2008_000002.png", small)
    labels(place / "annotations_detectron2" / "pc459_val" / "2008_000002.tif", large)
    photo(place / "JPEGImages" / "2008_000002.jpg", COCO_SIZE)
    return root


# --- one's own data ---------------------------------------------------------------------------------------------------------------------


def own_maps(root: Path, *, values: tuple[int, ...] = (0, 1, 2, 255), classes: str = "cup\nspoon\n") -> Path:
    """Two photos with a label map that holds ``values`` in stripes."""
    for name in ("a", "b"):
        photo(root / "images" / f"{name}.jpg", COCO_SIZE, ord(name))
        stripes = np.repeat(np.array(values, dtype=np.uint8), -(-COCO_SIZE[1] // len(values)))[: COCO_SIZE[1]]
        labels(root / "masks" / f"{name}.png", np.tile(stripes, (COCO_SIZE[0], 1)))
    (root / "classes.txt").write_text(classes)
    return root


def own_folders(root: Path) -> Path:
    """Two photos; both show a cup, the second a spoon, whose mask is a JPEG."""
    for name in ("a", "b"):
        photo(root / "images" / f"{name}.jpg", COCO_SIZE, ord(name))
        labels(root / "masks" / "cup" / f"{name}.png", rectangle(COCO_SIZE, (2, 2, 12, 12), 255))
    labels(root / "masks" / "spoon" / "b.jpg", rectangle(COCO_SIZE, (20, 8, 36, 24), 255))
    return root


def own_coco(root: Path) -> Path:
    """A COCO file of three photos: a cup, a cup among others that count as a crowd, a spoon."""
    images = [{"id": n, "file_name": f"{n}.jpg", "height": COCO_SIZE[0], "width": COCO_SIZE[1]} for n in (1, 2, 3)]
    things = [{"id": n, "image_id": n, "category_id": 1 + n // 3, "iscrowd": 0, "segmentation": POLYGON} for n in (1, 2, 3)]
    crowd = {"id": 4, "image_id": 2, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [600, 300, 300]}}
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}]
    write_json(root / "labels.json", {"images": images, "annotations": [*things, crowd], "categories": categories})
    for image in images:
        photo(root / "images" / image["file_name"], COCO_SIZE, image["id"])
    return root / "labels.json"


def own_yolo(root: Path) -> Path:
    """A training and a validation photo, and one that shows nothing."""
    for part, name in (("train", "a"), ("val", "b"), ("val", "c")):
        photo(root / "images" / part / f"{name}.jpg", COCO_SIZE, ord(name))
    for part, name, line in (("train", "a", "0"), ("val", "b", "1")):
        (root / "labels" / part).mkdir(parents=True)
        (root / "labels" / part / f"{name}.txt").write_text(f"{line} 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames:\n  0: cup\n  1: spoon\n")
    return root


def own_shards(root: Path) -> Path:
    """The same in two tar files."""
    write_shards(own(own_yolo(root / "photos")), root / "shards", per_shard=2)
    return root / "shards"

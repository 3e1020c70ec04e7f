"""How well a tiny PSALM learns a handful of photographs by heart, all tasks at once with one set of weights.

    python benchmarks/psalm_handful.py --data ../shared/data/coco --work runs/handful [--resume]

Photographs of COCO with two to four large objects, no two of a kind. Questions are made of their annotations: panoptic segmentation by
the names of all objects, one expression ("the dog") per object, and a point, a scribble, a box and a rough mask of each. Printed are the
figures of the ordinary protocols on these same photographs.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from promptseg import training
from promptseg.data import instructions
from promptseg.data.photosets import segmentation_mask
from promptseg.data.samples import read_json
from promptseg.evaluation import evaluate, protocol
from promptseg.segmenter import load

LARGE = 0.06  # share of the photo that every object fills at least
WHOLE = 0.25  # share that all of them fill


def chosen(table: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Entries of photos whose objects are few, large and of different kinds."""
    found = []
    for image in table["images"]:
        objects = [one for one in table["annotations"] if one["image_id"] == image["id"]]
        size = image["height"], image["width"]
        shares = [segmentation_mask(one["segmentation"], size).mean() for one in objects]
        kinds = {one["category_id"] for one in objects}
        fits = 2 <= len(objects) <= 4 and len(kinds) == len(objects) and not any(one["iscrowd"] for one in objects)
        if fits and min(shares) > LARGE and sum(shares) > WHOLE:
            found.append({**image, "objects": objects})
    return found[:count]


def prepare(data: Path, folder: Path, count: int) -> None:
    """Photos and annotations in the layout of COCO, and the questions."""
    table = read_json(data / "instances.json")
    photos = chosen(table, count)
    objects = [one for photo in photos for one in photo["objects"]]
    used = sorted({one["category_id"] for one in objects})
    categories = [{"id": one["id"], "name": one["name"], "isthing": 1} for one in table["categories"] if one["id"] in used]
    names = {one["id"]: one["name"] for one in categories}
    images = [{key: photo[key] for key in ("id", "file_name", "height", "width")} for photo in photos]
    small = {"images": images, "annotations": objects, "categories": categories}
    maps = folder / "annotations" / "panoptic_val2017"
    for place in (folder / "val2017", maps):
        place.mkdir(parents=True, exist_ok=True)
    segments = []
    for photo in photos:
        shutil.copy(data / "images" / photo["file_name"], folder / "val2017" / photo["file_name"])
        ids = np.zeros((photo["height"], photo["width"], 3), dtype=np.uint8)
        for number, one in enumerate(photo["objects"], 1):
            ids[segmentation_mask(one["segmentation"], ids.shape[:2])] = (number, 0, 0)
        name = f"{Path(photo['file_name']).stem}.png"
        Image.fromarray(ids).save(maps / name)
        lines = [{"id": number, "category_id": one["category_id"], "iscrowd": 0} for number, one in enumerate(photo["objects"], 1)]
        segments.append({"image_id": photo["id"], "file_name": name, "segments_info": lines})
    refs = [
        {"split": "val", "ann_id": one["id"], "image_id": one["image_id"], "sentences": [{"sent": f"the {names[one['category_id']]}"}]}
        for one in objects
    ]
    written = {
        "annotations/panoptic_val2017.json": {"images": images, "annotations": segments, "categories": categories},
        "val.json": instructions.referring(refs, small, "val"),
        "instances_val2017_interactive.json": instructions.interactive(small, Random(0)),
    }
    for file, content in written.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances.json")
    parser.add_argument("--work", type=Path, required=True, help="where questions, run and figures go")
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    questions = given.work / "questions"
    if not questions.exists():
        prepare(given.data, questions, given.photos)
    recipe = replace(training.recipe("psalm/handful"), data=str(questions), output=str(given.work / "run"), save_every_s=60.0)
    if given.steps is not None:
        recipe = replace(recipe, steps=given.steps)
    folder = training.train(recipe, resume=given.resume)
    segmenter = load(str(folder), device="cpu", precision="float32")
    figures: dict[str, float] = {}
    for name, options in (("coco-panoptic", {}), ("refcoco-sentences", {"photos": "val2017"}), ("coco-interactive", {})):
        for row in evaluate(protocol(name, questions, **options), segmenter, resamples=0):
            figures[f"{name}: {row.name}"] = row.value
            print(f"{name}: {row.name:<16} {row.value:.3f}")
    (given.work / "figures.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

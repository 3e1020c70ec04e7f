"""COCO in its three kinds of annotation: instances (also the format of many other sets), stuff maps, panoptic maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError, ImageError
from .photosets import segmentation_mask
from .samples import IGNORE, Labels, LabelSample, PhotoSet, Region, RegionSample, one_of, read_json, read_labels, reason, size_stated
from .vocabularies import names

__all__ = ["CocoTable", "coco_instances", "coco_panoptic", "coco_stuff", "panoptic_photos", "panoptic_things", "read_coco"]

SPLITS = ("train2017", "val2017", "train2014", "val2014")
# category ids 1..182 that no photo of the published maps shows
NOT_USED = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91))
NO_SEGMENT = 0  # of a panoptic map: nothing is known of the pixel
STUFF_IDS = tuple(number for number in range(1, 183) if number not in NOT_USED)


# --- instances --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CocoTable:
    """An annotation file in COCO's format, sorted by photo. ``names``: category id -> name."""

    file: Path
    images: tuple[dict[str, Any], ...]
    names: Mapping[int, str]
    annotations: Mapping[int, list[dict[str, Any]]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Category names in the order of their ids."""
        return tuple(self.names[number] for number in sorted(self.names))


def read_coco(file: Path) -> CocoTable:
    """Read an annotation file with ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: missing, no JSON, or not of this form; ids that name nothing.
    """
    table = read_json(file)
    try:
        categories = {category["id"]: str(category["name"]) for category in table["categories"]}
        by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in table["images"]}
        for annotation in table["annotations"]:
            where, what = annotation["image_id"], annotation.get("category_id")
            if where not in by_image or (what is not None and what not in categories):
                kind, number = ("image", where) if where not in by_image else ("category", what)
                names_nothing = f"{file}: annotation {annotation.get('id')} names {kind} {number}, which the file does not list"
                raise DataError(f"{names_nothing}{_shifted(table['annotations'], categories)}.")
            by_image[where].append(annotation)
        return CocoTable(file, tuple(table["images"]), categories, by_image)
    except (KeyError, TypeError, AttributeError) as error:
        wanted = "It needs the lists images, annotations and categories, each entry with its ids."
        raise DataError(f"{file} is not in COCO's format: {error!r} is missing or misplaced. {wanted}") from None


def _shifted(annotations: list[dict[str, Any]], categories: Mapping[int, Any]) -> str:
    """A guess at off-by-one: all category ids would fit if they were one higher, or one lower."""
    used = {annotation.get("category_id") for annotation in annotations} - {None}
    for step, which in ((1, "low"), (-1, "high")):
        if all(isinstance(number, int) and number + step in categories for number in used) and not used <= set(categories):
            return f"; all category ids of the annotations look one too {which}"
    return ""


def region_samples(table: CocoTable, photo: Callable[[dict[str, Any]], Path]) -> tuple[RegionSample, ...]:
    """One sample per listed photo. ``photo``: an entry of ``images`` -> its file."""
    try:
        return tuple(_sample(table, image, photo(image)) for image in table.images)
    except (KeyError, TypeError) as error:
        raise DataError(f"{table.file}: an image has no {error}. Each needs id, file_name, width and height.") from None


def _sample(table: CocoTable, image: dict[str, Any], path: Path) -> RegionSample:
    size, annotations = size_stated(image, table.file), table.annotations[image["id"]]
    empty = all(annotation.get("iscrowd") for annotation in annotations)
    return RegionSample(str(image["id"]), path, table.classes, size, partial(_regions, table, annotations, size), empty=empty)


def _regions(table: CocoTable, annotations: list[dict[str, Any]], size: tuple[int, int]) -> tuple[Region, ...]:
    return tuple(_region(table, annotation, size) for annotation in annotations)


def _region(table: CocoTable, annotation: dict[str, Any], size: tuple[int, int]) -> Region:
    try:
        mask = segmentation_mask(annotation["segmentation"], size)
        return Region(table.names[annotation["category_id"]], mask, crowd=bool(annotation.get("iscrowd")), box=_box(annotation.get("bbox")))
    except (KeyError, TypeError, ValueError, ImageError) as error:
        what = f"{table.file}: annotation {annotation.get('id')} has no usable segmentation"
        raise DataError(f"{what} ({error}). It needs category_id and polygons or run lengths of the photo's size.") from None


def _box(given: Any) -> tuple[float, float, float, float] | None:
    """COCO's x, y, width, height as corners."""
    if given is None:
        return None
    x, y, width, height = map(float, given)
    return x, y, x + width, y + height


def coco_instances(root: Path, split: str = "val2017") -> PhotoSet[RegionSample]:
    """COCO instances: 80 kinds of things, one mask each; crowds are ignored pixels.

    ROOT/annotations/instances_SPLIT.json      SPLIT: train2017, val2017, train2014, val2014
    ROOT/SPLIT/FILE_NAME.jpg

    Raises:
        DataError: the annotation file is missing or malformed.
    """
    one_of(split, SPLITS, "split of COCO")
    table = read_coco(root / "annotations" / f"instances_{split}.json")
    samples = region_samples(table, lambda image: root / split / image["file_name"])
    return PhotoSet("coco-instances", table.classes, samples)


# --- stuff ------------------------------------------------------------------------------------------------------------------------------


def coco_stuff(root: Path, split: str = "val2017") -> PhotoSet[LabelSample]:
    """COCO-Stuff: one of 171 classes (80 things, 91 stuff) per pixel.

    ROOT/stuffthingmaps/SPLIT/ID.png           category id - 1, so 0..181; 255 = ignored (stuffthingmaps_trainval2017.zip)
    ROOT/SPLIT/ID.jpg                          SPLIT: train2017, val2017
    or, as prepared for CAT-Seg: ROOT/annotations/SPLIT/ID.png, ROOT/images/SPLIT/ID.jpg

    Raises:
        DataError: there are no maps.
    """
    one_of(split, SPLITS, "split of COCO-Stuff")
    classes, prepared = names("coco-stuff171"), (root / "images" / split).is_dir()
    folder = root / ("annotations" if prepared else "stuffthingmaps") / split
    photos = root / "images" / split if prepared else root / split
    files = sorted(folder.glob("*.png"))
    if not files:
        raise DataError(f"{folder} holds no label maps. Unpack stuffthingmaps_trainval2017.zip into {folder.parent}.")
    samples = (LabelSample(file.stem, photos / f"{file.stem}.jpg", classes, partial(_stuff_labels, file)) for file in files)
    return PhotoSet("coco-stuff", classes, tuple(samples))


def _stuff_labels(file: Path) -> Labels:
    values = read_labels(file)
    table = np.full(max(256, int(values.max(initial=0)) + 1), -2, dtype=np.int32)
    table[[number - 1 for number in STUFF_IDS]] = np.arange(len(STUFF_IDS))
    table[255] = IGNORE
    labels: Labels = table[values]
    if (labels == -2).any():
        wrong = np.unique(values[labels == -2])[:5].tolist()
        raise DataError(
            f"{file} holds the values {wrong}, which are no ids of COCO-Stuff. Use the maps of stuffthingmaps_trainval2017.zip."
        )
    return labels


# --- panoptic ---------------------------------------------------------------------------------------------------------------------------


def coco_panoptic(root: Path, split: str = "val2017") -> PhotoSet[RegionSample]:
    """COCO panoptic: every pixel belongs to one thing or one kind of stuff, 133 classes.

    ROOT/annotations/panoptic_SPLIT.json       SPLIT: train2017, val2017
    ROOT/annotations/panoptic_SPLIT/ID.png     segment id = red + 256 green + 65536 blue
    ROOT/SPLIT/ID.jpg

    Raises:
        DataError: the annotation file is missing or malformed.
    """
    one_of(split, SPLITS, "split of COCO panoptic")
    return panoptic_photos("coco-panoptic", root / "annotations" / f"panoptic_{split}.json", root / split)


def panoptic_photos(name: str, file: Path, photos: Path) -> PhotoSet[RegionSample]:
    """Any set in COCO's panoptic format: ``file`` with its maps in the folder of the same name beside it, and the folder of ``photos``.

    Raises:
        DataError: the annotation file is missing or malformed.
    """
    table = read_json(file)
    try:
        kinds = {category["id"]: (str(category["name"]), bool(category["isthing"])) for category in table["categories"]}
        classes = tuple(kinds[number][0] for number in sorted(kinds))
        segments = {entry["image_id"]: _segments(entry, kinds) for entry in table["annotations"]}
        maps = {entry["image_id"]: file.with_suffix("") / entry["file_name"] for entry in table["annotations"]}
        samples = (
            RegionSample(
                id=str(image["id"]),
                path=photos / image["file_name"],
                classes=classes,
                size=size_stated(image, file),
                regions=partial(_panoptic_regions, maps[image["id"]], segments[image["id"]]),
                whole=True,
            )
            for image in table["images"]
        )
        return PhotoSet(name, classes, tuple(samples))
    except DataError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not in COCO's panoptic format: {error!r} is missing or misplaced. Download it again.") from None


def panoptic_things(file: Path) -> frozenset[str]:
    """Names of the classes of a panoptic file whose objects are counted one by one."""
    return frozenset(str(category["name"]) for category in read_json(file)["categories"] if category["isthing"])


@dataclass(frozen=True, slots=True)
class _Segment:
    """A line of ``segments_info``."""

    id: int
    name: str
    thing: bool
    crowd: bool


def _segments(entry: Mapping[str, Any], kinds: Mapping[int, tuple[str, bool]]) -> tuple[_Segment, ...]:
    lines = entry["segments_info"]
    return tuple(_Segment(int(line["id"]), *kinds[line["category_id"]], bool(line.get("iscrowd"))) for line in lines)


def _panoptic_regions(file: Path, segments: tuple[_Segment, ...]) -> tuple[Region, ...]:
    ids = read_segment_ids(file)
    strange = set(np.unique(ids).tolist()) - {segment.id for segment in segments} - {NO_SEGMENT}
    if strange:
        raise DataError(f"{file} holds the segments {sorted(strange)[:5]}, which its annotation does not list. Download both again.")
    return tuple(Region(segment.name, ids == segment.id, segment.crowd, segment.thing) for segment in segments)


def read_segment_ids(file: Path) -> Labels:
    """A panoptic PNG -> (H, W) int32 segment ids.

    Raises:
        DataError: missing or no picture.
    """
    try:
        with Image.open(file) as picture:
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), dtype=np.int32), -1, 0)
    except Exception as error:  # a damaged picture may raise nearly anything
        raise DataError(f"{file} cannot be read as a panoptic map: {reason(error)}. Download or copy this file again.") from None
    ids: Labels = red + 256 * green + 65536 * blue
    return ids

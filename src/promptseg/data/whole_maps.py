"""Published label maps in which background is a class of its own: PASCAL-Context with 60 classes and COCO's objects with 81 (GroupViT)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ..errors import DataError
from .pascal import voc_root
from .samples import IGNORE, Labels, LabelSample, PhotoSet, label_map, read_labels, read_lines
from .vocabularies import names

__all__ = ["coco_objects", "context60", "objects_of_stuff", "voc21"]

MISSING = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)  # ids below 90 of COCO-Stuff that no object has


def voc21(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """Pascal VOC 2012, background and 20 classes as GroupViT names them.

    ROOT is VOCdevkit/VOC2012 (or holds it):
    ROOT/JPEGImages/ID.jpg
    ROOT/SegmentationClass/ID.png              palette, 0..20, 255 = ignored
    ROOT/ImageSets/Segmentation/SPLIT.txt

    Raises:
        DataError: the list is missing.
    """
    return _listed(root, "voc21", "SegmentationClass", "Segmentation", split, names("voc21-groupvit"))


def context60(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """PASCAL-Context, background and 59 classes.

    ROOT is VOCdevkit/VOC2010 (or holds it), prepared as for mmsegmentation:
    ROOT/JPEGImages/ID.jpg
    ROOT/SegmentationClassContext/ID.png       0..59, 255 = ignored
    ROOT/ImageSets/SegmentationContext/SPLIT.txt

    Raises:
        DataError: the list is missing.
    """
    return _listed(root, "context60", "SegmentationClassContext", "SegmentationContext", split, names("context60-groupvit"))


def coco_objects(root: Path, split: str = "val2017") -> PhotoSet[LabelSample]:
    """COCO's 80 objects and background; nothing is ignored.

    ROOT/images/SPLIT/ID.jpg
    ROOT/annotations/SPLIT/ID_instanceTrainIds.png   0..80; or ROOT/annotations/SPLIT/ID.png, the pixel maps of COCO-Stuff

    Raises:
        DataError: there are no maps.
    """
    folder, classes = root / "annotations" / split, names("coco81-groupvit")
    ready = {file.name.removesuffix("_instanceTrainIds.png"): file for file in folder.glob("*_instanceTrainIds.png")}
    stuff = {file.stem: file for file in folder.glob("*.png") if file.stem.isdigit()}
    if not ready and not stuff:
        raise DataError(f"{folder} holds no label maps. Unpack stuffthingmaps_trainval2017.zip so that they are there.")
    samples = (
        LabelSample(
            stem,
            root / "images" / split / f"{stem}.jpg",
            classes,
            partial(label_map, ready[stem], len(classes)) if stem in ready else partial(objects_of_stuff, stuff[stem]),
        )
        for stem in sorted({*ready, *stuff})
    )
    return PhotoSet("coco-objects", classes, tuple(samples))


def objects_of_stuff(file: Path) -> Labels:
    """A pixel map of COCO-Stuff -> objects 1..80; everything above 90, the unlabelled 255 included, is background, 0.

    Raises:
        DataError: unreadable, or an id that no object has.
    """
    values = read_labels(file)
    table = np.zeros(256, np.int32)
    table[list(MISSING)] = IGNORE
    objects = [value for value in range(90) if value not in MISSING]
    table[objects] = np.arange(1, len(objects) + 1)
    if values.max(initial=0) > 255 or (table[values] == IGNORE).any():
        raise DataError(f"{file} holds values that are no id of COCO-Stuff. Check that it is one of its pixel maps.")
    labels: Labels = table[values]
    return labels


def _listed(root: Path, name: str, folder: str, lists: str, split: str, classes: tuple[str, ...]) -> PhotoSet[LabelSample]:
    place = voc_root(root)
    stems = read_lines(place / "ImageSets" / lists / f"{split}.txt")
    samples = (
        LabelSample(stem, place / "JPEGImages" / f"{stem}.jpg", classes, partial(label_map, place / folder / f"{stem}.png", len(classes)))
        for stem in stems
    )
    return PhotoSet(name, classes, tuple(samples))

"""PASCAL-Context: every pixel of VOC 2010's photos labelled, 59 frequent classes or 459."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import DataError
from .pascal import voc_root
from .samples import LabelSample, PhotoSet, label_map, one_of
from .vocabularies import names

__all__ = ["context59", "context459"]


def context59(root: Path, split: str = "validation") -> PhotoSet[LabelSample]:
    """PASCAL-Context with its 59 frequent classes; everything else is ignored.

    ROOT is VOCdevkit/VOC2010 (or holds it), prepared as for CAT-Seg:
    ROOT/JPEGImages/ID.jpg
    ROOT/annotations_detectron2/pc59_val/ID.png      class 0..58 in alphabetical order, 255 = ignored (SPLIT validation)
    ROOT/annotations_detectron2/pc59_train/ID.png    (SPLIT training)

    Raises:
        DataError: there are no maps.
    """
    return _context(root, split, "pc59", ".png", 255)


def context459(root: Path, split: str = "validation") -> PhotoSet[LabelSample]:
    """PASCAL-Context with its 459 classes.

    ROOT is VOCdevkit/VOC2010 (or holds it), prepared as for CAT-Seg:
    ROOT/JPEGImages/ID.jpg
    ROOT/annotations_detectron2/pc459_val/ID.tif     16 bits: class 0..458, 65535 = ignored (SPLIT validation)
    ROOT/annotations_detectron2/pc459_train/ID.tif   (SPLIT training)

    Raises:
        DataError: there are no maps.
    """
    return _context(root, split, "pc459", ".tif", 65535)


def _context(root: Path, split: str, kind: str, suffix: str, ignore: int) -> PhotoSet[LabelSample]:
    one_of(split, ("training", "validation"), "split of PASCAL-Context")
    place, name = voc_root(root), f"context{kind.removeprefix('pc')}"
    folder = place / "annotations_detectron2" / f"{kind}_{'val' if split == 'validation' else 'train'}"
    files, classes = sorted(folder.glob(f"*{suffix}")), names(name)
    if not files:
        raise DataError(f"{folder} holds no label maps. Check the folder against the layout in `promptseg data list {name}`.")
    samples = (
        LabelSample(file.stem, place / "JPEGImages" / f"{file.stem}.jpg", classes, partial(label_map, file, len(classes), ignore=ignore))
        for file in files
    )
    return PhotoSet(name, classes, tuple(samples))

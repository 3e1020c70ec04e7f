"""Pascal VOC 2012 as semantic maps, its augmentation by SBD, and the splits of generalised zero-shot segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from .samples import IGNORE, Labels, LabelSample, PhotoSet, label_map, one_of, read_lines
from .vocabularies import names

__all__ = ["UNSEEN", "ZeroShot", "pascal_zero_shot", "voc", "voc20", "voc20b", "zero_shot"]

CLASSES = ("background", *names("voc20"))
UNSEEN = {  # number of unseen classes -> their ids, each with the ones before it; 5 is a protocol of its own (SPNet, Xian et al. 2019)
    2: (10, 14),
    4: (1, 10, 14, 18),
    5: (16, 17, 18, 19, 20),
    6: (1, 8, 10, 14, 18, 20),
    8: (1, 5, 8, 10, 14, 18, 19, 20),
    10: (1, 5, 8, 9, 10, 14, 16, 18, 19, 20),
}


def voc(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """Pascal VOC 2012: 20 classes and background (index 0), photos of everyday scenes.

    ROOT is VOCdevkit/VOC2012 (or holds it):
    ROOT/JPEGImages/ID.jpg
    ROOT/SegmentationClass/ID.png              palette, 0..20, 255 = ignored
    ROOT/ImageSets/Segmentation/SPLIT.txt      train, val, trainval: one ID per line
    for the split trainaug, VOC and SBD together (10,582 photos):
    ROOT/SegmentationClassAug/ID.png           grey, 0..20, 255 = ignored
    ROOT/ImageSets/Segmentation/trainaug.txt   (or train_aug.txt)

    Raises:
        DataError: a list is missing.
    """
    one_of(split, ("train", "val", "trainval", "trainaug"), "split of Pascal VOC")
    return _semantic(root, split, "voc", CLASSES)


def pascal_zero_shot(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """Pascal VOC 2012 for generalised zero-shot tests, with the class names that CLIPSeg asks by; `zero_shot` says which are unseen.

    ROOT is VOCdevkit/VOC2012 (or holds it), as for voc; the published test takes the split val:
    ROOT/JPEGImages/ID.jpg
    ROOT/SegmentationClass/ID.png              palette, 0..20, 255 = ignored
    ROOT/ImageSets/Segmentation/SPLIT.txt      train, val, trainval

    Raises:
        DataError: a list is missing.
    """
    one_of(split, ("train", "val", "trainval"), "split of Pascal zero-shot")
    return _semantic(root, split, "pascal-zero-shot", names("voc21-clipseg"))


def voc20(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """Pascal VOC 2012 with its 20 classes, as CAT-Seg's conversion has them: background is ignored.

    ROOT as for voc; the maps are those of SegmentationClassAug, as published, or of SegmentationClass where there is no such folder.

    Raises:
        DataError: the list is missing.
    """
    return _foreground(root, split, "voc20", CLASSES[1:])


def voc20b(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """The same with background as the last of 21 classes.

    Raises:
        DataError: the list is missing.
    """
    return _foreground(root, split, "voc20b", (*CLASSES[1:], CLASSES[0]))


def _foreground(root: Path, split: str, name: str, classes: tuple[str, ...]) -> PhotoSet[LabelSample]:
    one_of(split, ("train", "val", "trainval"), "split of Pascal VOC")
    root = voc_root(root)
    augmented = root / "SegmentationClassAug"
    folder = augmented if augmented.is_dir() else root / "SegmentationClass"
    samples = (
        LabelSample(stem, root / "JPEGImages" / f"{stem}.jpg", classes, partial(_background_last, folder / f"{stem}.png", len(classes)))
        for stem in split_list(root, split)
    )
    return PhotoSet(name, classes, tuple(samples))


def _background_last(file: Path, count: int) -> Labels:
    """A map of VOC with background, 0, as class 20 if there are so many classes, else ignored."""
    labels = label_map(file, len(CLASSES)) - 1  # ignored: -2
    background = IGNORE if count < len(CLASSES) else len(CLASSES) - 1
    moved: Labels = np.where(labels == -1, background, np.maximum(labels, IGNORE)).astype(np.int32)
    return moved


def _semantic(root: Path, split: str, name: str, classes: tuple[str, ...]) -> PhotoSet[LabelSample]:
    root = voc_root(root)
    folder = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
    samples = (
        LabelSample(stem, root / "JPEGImages" / f"{stem}.jpg", classes, partial(label_map, root / folder / f"{stem}.png", len(classes)))
        for stem in split_list(root, split)
    )
    return PhotoSet(name, classes, tuple(samples))


def voc_root(root: Path) -> Path:
    """The folder that holds ``JPEGImages``, given it or one above.

    Raises:
        DataError: there is none.
    """
    for place in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012", root / "VOC2010", root / "VOCdevkit" / "VOC2010"):
        if (place / "JPEGImages").is_dir():
            return place
    raise DataError(f"{root} has no folder JPEGImages, nor has VOCdevkit/VOC2012 in it. Unpack VOCtrainval_11-May-2012.tar there.")


def split_list(root: Path, split: str) -> list[str]:
    """Ids of a split; lists of whole paths, as some conversions of SBD write them, are understood too."""
    folder = root / "ImageSets" / "Segmentation"
    file = folder / f"{split}.txt"
    if split == "trainaug" and not file.exists():
        file = folder / "train_aug.txt"
    return [Path(line.split()[0]).stem for line in read_lines(file)]


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Ids 0..20 that a model may have been trained with, and those it may not. Background, id 0, counts as seen."""

    seen: tuple[int, ...]
    unseen: tuple[int, ...]


def zero_shot(unseen: int) -> ZeroShot:
    """The published split with so many ``unseen`` classes: 2, 4, 6, 8, 10, or 5 (another protocol: the last five).

    CLIPSeg's training without [zs, n] keeps 2 n classes out, so "zs-5" belongs to 10 and "zs-2" to 4.

    Raises:
        ConfigError: no such split.
    """
    if unseen not in UNSEEN:
        raise ConfigError(f"Pascal zero-shot has no split with {unseen} unseen classes; choose one of {', '.join(map(str, UNSEEN))}.")
    return ZeroShot(tuple(index for index in range(21) if index not in UNSEEN[unseen]), UNSEEN[unseen])

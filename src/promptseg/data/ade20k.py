"""ADE20K: scene parsing with 150 classes, and the full set with 847."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import DataError
from .samples import LabelSample, PhotoSet, label_map, one_of
from .vocabularies import names, synonyms

__all__ = ["ade20k_root", "ade150", "ade847"]

SPLITS = ("training", "validation")


def ade150(root: Path, split: str = "validation") -> PhotoSet[LabelSample]:
    """ADE20K scene parsing (ADEChallengeData2016): one of 150 classes per pixel.

    ROOT is ADEChallengeData2016 (or holds it):
    ROOT/images/SPLIT/ADE_*.jpg                SPLIT: training (20,210 photos), validation (2,000)
    ROOT/annotations/SPLIT/ADE_*.png           0 = ignored, class 1..150

    Raises:
        DataError: there are no photos.
    """
    one_of(split, SPLITS, "split of ADE20K")
    root = ade20k_root(root, "ADEChallengeData2016")
    classes = tuple(name.strip() for name in names("ade150"))
    return _photos("ade150", root / "images" / split, root / "annotations" / split, ".png", classes, first=1)


def ade847(root: Path, split: str = "validation") -> PhotoSet[LabelSample]:
    """ADE20K full, the 847 classes that occur in both splits, as MaskFormer's conversion stores them.

    ROOT is ADE20K_2021_17_01 (or holds it):
    ROOT/images_detectron2/SPLIT/ADE_*.jpg            SPLIT: training, validation
    ROOT/annotations_detectron2/SPLIT/ADE_*.tif       16 bits: class 0..846, 65535 = ignored

    Raises:
        DataError: there are no photos.
    """
    one_of(split, SPLITS, "split of ADE20K")
    root = ade20k_root(root, "ADE20K_2021_17_01")
    classes = tuple(words[0] for words in synonyms("ade847"))
    photos, maps = root / "images_detectron2" / split, root / "annotations_detectron2" / split
    return _photos("ade847", photos, maps, ".tif", classes, ignore=65535)


def ade20k_root(root: Path, name: str) -> Path:
    """The folder ``name``, given it or the one above."""
    return root / name if (root / name).is_dir() else root


def _photos(
    name: str, photos: Path, maps: Path, suffix: str, classes: tuple[str, ...], *, first: int = 0, ignore: int = 255
) -> PhotoSet[LabelSample]:
    files = sorted(photos.glob("*.jpg"))
    if not files:
        raise DataError(f"{photos} holds no photos. Check the folder against the layout in `promptseg data list {name}`.")
    samples = (
        LabelSample(file.stem, file, classes, partial(label_map, maps / f"{file.stem}{suffix}", len(classes), first=first, ignore=ignore))
        for file in files
    )
    return PhotoSet(name, classes, tuple(samples))

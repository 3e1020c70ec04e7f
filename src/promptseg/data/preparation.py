"""Label maps of the open-vocabulary benchmarks from the original downloads: files, names and values of CAT-Seg's own preparation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, ExportError, ImageError, nearest
from .ade20k import ade20k_root, ade150
from .coco import coco_stuff
from .pascal import voc20, voc20b, voc_root
from .photosets import segmentation_mask
from .samples import IGNORE, LabelSample, PhotoSet, read_json, read_lines, read_photo, reason, size_stated
from .vocabularies import table

__all__ = ["PREPARATIONS", "Written", "prepare"]

SHORT = 512  # ADE20K full: pixels of the shorter side of larger photos
# of the large file of PASCAL-Context
KEPT = frozenset((
    "images", "annos_segmentation", "image_id", "file_name", "phase", "height",
    "width", "category_id", "segmentation", "counts", "size",
))  # fmt: skip
FORMATS = {".png": "PNG", ".tif": "TIFF", ".jpg": "JPEG"}

Picture: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Job: TypeAlias = tuple[Path, Callable[[], Picture | None]]  # a file, and what is to be in it; None: it is left out


@dataclass(frozen=True, slots=True)
class Written:
    """``folders`` that hold the files, how many are new, and how many were there already."""

    folders: tuple[Path, ...]
    new: int
    kept: int


def prepare(name: str, root: Path, every: Callable[[list[Job]], Iterable[Job]] = iter) -> Written:
    """Write the files of one of `PREPARATIONS` under ``root``, where the data set lies; what is there already stays.

    ``every``: goes through the files, for a progress bar.

    Raises:
        DataError: no such preparation, or files of the download that are missing or malformed.
        ExportError: a file cannot be written.
        ImportError: context459 reads MATLAB's files with SciPy (``pip install 'promptseg[eval]'``).
    """
    if name not in PREPARATIONS:
        known = list(PREPARATIONS)
        raise DataError(f"Nothing is to be prepared for {name!r}.{nearest(name, known)} Prepared are {', '.join(known)}.")
    jobs = list(PREPARATIONS[name](root.expanduser()))
    new = kept = 0
    for target, make in every(jobs):
        if target.exists():
            kept += 1
        elif (picture := make()) is not None:
            _write(picture, target)
            new += 1
    return Written(tuple(dict.fromkeys(target.parent for target, _ in jobs)), new, kept)


def _write(picture: Picture, target: Path) -> None:
    """Whole or not at all, so that an interrupted run can go on."""
    draft = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(draft, FORMATS[target.suffix])
        os.replace(draft, target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {reason(error)}.") from None


# --- ADE20K -----------------------------------------------------------------------------------------------------------------------------


def _ade150(root: Path) -> Iterator[Job]:
    """Class - 1, ignored 255."""
    return _maps(ade150(root), ade20k_root(root, "ADEChallengeData2016") / "annotations_detectron2" / "validation")


def _ade847(root: Path) -> Iterator[Job]:
    """Photos and maps with the shorter side at 512 pixels at most; 16 bits, 65535 is ignored."""
    place = ade20k_root(root, "ADE20K_2021_17_01")
    source = place / "images" / "ADE" / "validation"
    photos = sorted(source.rglob("*.jpg"), key=lambda file: file.name)
    if not photos:
        raise DataError(f"{source} holds no photos. Unpack ADE20K_2021_17_01.zip there.")
    classes = np.full(256 * 256, 65535, np.uint16)
    classes[table("ade847")["codes"]] = np.arange(847)
    for photo in photos:
        yield place / "images_detectron2" / "validation" / photo.name, partial(_shrunk_photo, photo)
        target = place / "annotations_detectron2" / "validation" / f"{photo.stem}.tif"
        yield target, partial(_ade_classes, photo.with_name(f"{photo.stem}_seg.png"), classes)


def _ade_classes(file: Path, classes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Red and green say the class: red / 10, rounded down, times 256, plus green."""
    colours = read_photo(file).astype(np.int32)
    codes = colours[..., 0] // 10 * 256 + colours[..., 1]
    rows, columns = (_nearest(old, new) for old, new in zip(codes.shape, _shrunk(codes.shape), strict=True))
    labels: NDArray[np.uint16] = classes[codes[rows[:, None], columns]]
    return labels


def _shrunk_photo(file: Path) -> NDArray[np.uint8]:
    """As OpenCV resizes, linearly; the last bit of a value may differ."""
    from .tensors import resize_image

    photo = read_photo(file)
    size = _shrunk(photo.shape)
    if size == photo.shape[:2]:
        return photo
    return resize_image(photo, size).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _shrunk(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape[:2]
    if min(height, width) <= SHORT:
        return height, width
    return (SHORT, round(width / float(height) * SHORT)) if width >= height else (round(height / float(width) * SHORT), SHORT)


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """The pixels that OpenCV's nearest neighbour takes along a side."""
    taken: NDArray[np.int64] = np.minimum(np.floor(np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)
    return taken


# --- Pascal VOC, COCO-Stuff -------------------------------------------------------------------------------------------------------------


def _voc(read: Callable[[Path], PhotoSet[LabelSample]], folder: str, root: Path) -> Iterator[Job]:
    """Maps without any known pixel are left out, and their photos with them."""
    place = voc_root(root)
    if not (place / "SegmentationClassAug").is_dir():
        raise DataError(f"{place} has no folder SegmentationClassAug, from which the maps are made. Unpack SegmentationClassAug.zip there.")
    return _maps(read(root), place / folder / "val", empty=False)


def _coco_stuff(root: Path) -> Iterator[Job]:
    """The maps of train2017 and val2017, or of the one that is there."""
    places = (root / "annotations", root / "stuffthingmaps")
    splits = [split for split in ("train2017", "val2017") if any((place / split).is_dir() for place in places)]
    for split in splits or ["val2017"]:  # of none, the reader says what is missing
        yield from _maps(coco_stuff(root, split), root / "annotations_detectron2" / split)


def _maps(photos: PhotoSet[LabelSample], folder: Path, *, empty: bool = True) -> Iterator[Job]:
    for photo in photos:
        yield folder / f"{photo.path.stem}.png", partial(_bytes, photo, empty)


def _bytes(photo: LabelSample, empty: bool) -> NDArray[np.uint8] | None:
    labels = photo.labels()
    known = labels != IGNORE
    return np.where(known, labels, 255).astype(np.uint8) if empty or known.any() else None


# --- PASCAL-Context ---------------------------------------------------------------------------------------------------------------------


def _context59(root: Path) -> Iterator[Job]:
    """The photos of phase "val" in trainval_merged.json; of annotations that overlap the later one stands."""
    place = voc_root(root)
    file = place / "trainval_merged.json"
    content = read_json(file, lambda entry: {key: value for key, value in entry.items() if key in KEPT})
    ids = table("context59")["ids"]
    try:
        images = {image["image_id"]: image for image in content["images"] if image["phase"] == "val"}
        shown: dict[Any, list[Mapping[str, Any]]] = {number: [] for number in images}
        for annotation in content["annos_segmentation"]:
            if annotation["image_id"] in shown:
                shown[annotation["image_id"]].append(annotation)
        stems = {number: Path(image["file_name"]).stem for number, image in images.items()}
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} is not PASCAL-Context's: {error!r} is missing or misplaced. Download it again.") from None
    for number, image in images.items():
        target = place / "annotations_detectron2" / "pc59_val" / f"{stems[number]}.png"
        yield target, partial(_painted, file, size_stated(image, file), shown[number], ids)


def _painted(file: Path, size: tuple[int, int], annotations: list[Mapping[str, Any]], ids: list[int]) -> NDArray[np.uint8]:
    labels = np.full(size, 255, np.uint8)
    places = {number: place for place, number in enumerate(ids)}
    for annotation in annotations:
        try:
            labels[segmentation_mask(annotation["segmentation"], size)] = places.get(annotation["category_id"], 255)
        except (KeyError, TypeError, ValueError, ImageError) as error:
            raise DataError(f"{file}: a segmentation of image {annotation['image_id']} is damaged ({error}). Download it again.") from None
    return labels


def _context459(root: Path) -> Iterator[Job]:
    """The ids of pascalcontext_val.txt whose .mat file is there."""
    place = voc_root(root)
    listed = place / "pascalcontext_val.txt"
    if not listed.exists():
        raise DataError(f"{listed} is missing. It is datasets/pascalcontext_val.txt of github.com/cvlab-kaist/CAT-Seg; copy it there.")
    found = [file for stem in read_lines(listed) if (file := place / "trainval" / f"{stem}.mat").exists()]
    if not found:
        raise DataError(f"{place / 'trainval'} holds no .mat file that {listed.name} lists. Unpack trainval.tar.gz into {place}.")
    for file in found:
        yield place / "annotations_detectron2" / "pc459_val" / f"{file.stem}.tif", partial(_label_map, file)


def _label_map(file: Path) -> NDArray[np.uint16]:
    """MATLAB's LabelMap, 1..459, as 0..458 in 16 bits; 0 becomes 65535, as there."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("PASCAL-Context's .mat files need SciPy: pip install 'promptseg[eval]'") from error
    try:
        values = np.asarray(loadmat(file, variable_names=["LabelMap"])["LabelMap"])
    except Exception as error:  # a damaged file may raise nearly anything
        raise DataError(f"{file} has no readable LabelMap: {reason(error)}. Unpack trainval.tar.gz again.") from None
    if values.ndim != 2 or values.min(initial=0) < 0 or values.max(initial=0) > 459:
        raise DataError(f"{file}: LabelMap holds a class from 1 to 459 for every pixel. Check that it is PASCAL-Context's.")
    return (values.astype(np.int32) - 1).astype(np.uint16)


PREPARATIONS: Mapping[str, Callable[[Path], Iterator[Job]]] = {
    "ade150": _ade150,
    "ade847": _ade847,
    "context59": _context59,
    "context459": _context459,
    "voc20": partial(_voc, voc20, "annotations_detectron2"),
    "voc20b": partial(_voc, voc20b, "annotations_detectron2_bg"),
    "coco-stuff": _coco_stuff,
}

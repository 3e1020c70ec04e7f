"""One's own photos and masks, in the forms in which people have them: label maps, a folder per class, COCO JSON, YOLO-seg, tar shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError, DataError
from ..images import load_mask
from .coco import CocoTable, read_coco, region_samples
from .filling import fill_coco
from .own_names import is_nothing
from .photosets import AnnotatedPhoto
from .samples import LabelSample, PhotoSet, Region, RegionSample, Sample, label_map, read_lines, reason
from .shards import CLASSES, ShardSample, class_list, samples_of

__all__ = ["Kind", "annotated", "kind_of", "own"]

Kind: TypeAlias = Literal["maps", "folders", "coco", "yolo", "shards"]
Zero: TypeAlias = Literal["background", "ignore"]

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAPS = (".png", ".tif", ".tiff", ".bmp")  # without loss: a JPEG smears ids
MASK_FOLDERS = ("masks", "labels", "annotations")
NO_INSTANCES = ("caption", "keypoint", "panoptic", "stuff")  # in names of COCO's other annotation files


def own(path: Path, split: str = "all", *, zero: Zero = "background") -> PhotoSet[Any]:
    """One's own photos with masks; the form is recognised. SPLIT: all, or the name of a folder (train, val, ...) that has parts of them.

    Label maps:       ROOT/images/NAME.jpg, ROOT/masks/NAME.png, ROOT/classes.txt; of parts, images/train/NAME.jpg, masks/train/NAME.png
                      value k = line k of classes.txt, 0 = none of them, 255 = ignored. A first line "background" names the value 0.
    A folder a class: ROOT/images/NAME.jpg, ROOT/masks/CLASS/NAME.png
                      not 0 = the class; no file = the photo does not show it
    COCO:             a JSON file, or a folder with one or several (its parts); photos beside it or in images/
    YOLO-seg:         ROOT/data.yaml with names; images/.../NAME.jpg, labels/.../NAME.txt
                      one line per thing: class x0 y0 x1 y1 ..., classes from 0, coordinates as shares 0..1 of the photo
    Shards:           ROOT/classes.txt, ROOT/.../*.tar as `promptseg data pack` writes them of any other form
    "labels" or "annotations" may stand for "masks".

    ``zero`` "ignore": the value 0 of label maps means that nothing is known, instead of background.

    Raises:
        DataError: no such form is recognised, or its files are malformed.
        ConfigError: ``zero`` is said of another form than label maps.
    """
    kind = kind_of(path)
    if zero != "background" and kind != "maps":
        raise ConfigError(f"zero={zero} is about the value 0 of label maps, of which {path} has none; leave it out.")
    readers: dict[Kind, Callable[[Path], PhotoSet[Any]]] = {
        "maps": partial(_maps, zero=zero),
        "folders": _folders,
        "coco": _coco,
        "yolo": _yolo,
        "shards": _shards,
    }
    photos = readers[kind](path)
    if split == "all":
        return photos
    kept = tuple(sample for sample in photos if split in folders_of(sample.path, path))
    if not kept:
        raise DataError(f"None of the {len(photos)} photos of {path} lies in a folder named {split!r}; name one that exists, or all.")
    return PhotoSet(photos.name, photos.classes, kept)


def folders_of(photo: Path, path: Path) -> tuple[str, ...]:
    """The folders in which a photo lies, as seen from the data at ``path``."""
    return Path(os.path.relpath(photo, path if path.is_dir() else path.parent)).parts[:-1]


def kind_of(path: Path) -> Kind:
    """In which form the data lies.

    Raises:
        DataError: in none that is known.
    """
    if path.is_file() and path.suffix == ".json":
        return "coco"
    if not path.is_dir():
        raise DataError(f"{path} is neither a folder nor a .json file. `promptseg data list own` shows the forms that are read.")
    if _yaml_file(path):
        return "yolo"
    masks, listed = mask_folder(path), (path / CLASSES).is_file()
    if coco_files(path) and not listed:
        return "coco"
    if masks is not None and _of_classes(masks, path / "images", listed):
        return "folders"
    if masks is not None and listed:
        return "maps"
    if listed and next(path.rglob("*.tar"), None):
        return "shards"
    lacks = "no folder masks" if masks is None else "no classes.txt beside masks (one class per line), and no folder per class in it"
    lacks += ", no COCO .json, no data.yaml, no .tar files"
    raise DataError(f"{path} has {lacks}. `promptseg data list own` shows the forms that are read.")


def _of_classes(masks: Path, images: Path, listed: bool) -> bool:
    """Whether the folders in masks are those of classes, and not parts of a set of label maps.

    Parts, such as train and val, are folders of images as well. So are classes where the photos are sorted by them, but without a list of
    classes, and their masks lie twice as deep: CLASS/CLASS/NAME.png.
    """
    found = _folders_in(masks)
    twice = not listed and any((masks / name / name).is_dir() for name in found)
    return bool(found) and (twice or not found <= _folders_in(images))


def _folders_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


def known(found: Path | None, path: Path) -> Path:
    """What `kind_of` recognised the form by.

    Raises:
        DataError: it is gone.
    """
    if found is None:
        raise DataError(f"{path} is not in the form that this needs. `promptseg data list own` shows the forms that are read.")
    return found


def annotated(photos: Iterable[Sample], source: str = "own") -> list[AnnotatedPhoto]:
    """The same as `AnnotatedPhoto`: every annotation is read once to learn what is there. Background is neither present nor absent."""
    return [_annotated(sample, source) for sample in photos]


def _annotated(sample: Sample, source: str) -> AnnotatedPhoto:
    def masks() -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_]]:
        found, unknown = sample.masks()
        return {name: mask for name, mask in found.items() if not is_nothing(name)}, unknown

    present = tuple(masks()[0])
    absent = tuple(name for name in sample.classes if name not in present and not is_nothing(name))
    return AnnotatedPhoto(source, sample.id, sample.path, present, absent, masks, sample.image)


# --- label maps -------------------------------------------------------------------------------------------------------------------------


def _maps(root: Path, zero: Zero) -> PhotoSet[LabelSample]:
    classes, first = map_classes(root)
    masks = known(mask_folder(root), root)
    if first and zero == "background":
        classes, first = ("background", *classes), 0
    elif not first and zero == "ignore":
        classes, first = classes[1:], 1
    samples = []
    for photo in photos_in(root / "images"):
        file = with_suffix(masks / photo.relative_to(root / "images"), MAPS)
        samples.append(LabelSample(_id(photo, root / "images"), photo, classes, partial(label_map, file, len(classes), first=first)))
    return PhotoSet("own", classes, tuple(samples))


def map_classes(root: Path) -> tuple[tuple[str, ...], int]:
    """The lines of classes.txt, and the value that the first one names: 0 if it is a word for background, else 1.

    Raises:
        DataError: the list is missing or empty, or names a class twice.
    """
    classes = tuple(read_lines(root / "classes.txt"))
    twice = {name for name in classes if classes.count(name) > 1}
    if not classes or twice:
        raise DataError(f"{root / 'classes.txt'} {'names twice: ' + ', '.join(sorted(twice)) if twice else 'is empty'}; one name per line.")
    return classes, 0 if is_nothing(classes[0]) else 1


def mask_folder(root: Path) -> Path | None:
    """The folder of masks beside ``images``."""
    return next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None) if (root / "images").is_dir() else None


def photos_in(folder: Path) -> list[Path]:
    """All photos below a folder, by name.

    Raises:
        DataError: there are none.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PHOTOS)
    if not files:
        raise DataError(f"{folder} holds no photos ({', '.join(PHOTOS)}).")
    return files


def with_suffix(file: Path, suffixes: tuple[str, ...]) -> Path:
    """The file with the first of ``suffixes`` with which it exists, else with the first of all."""
    found = (file.with_suffix(suffix) for suffix in suffixes if file.with_suffix(suffix).is_file())
    return next(found, file.with_suffix(suffixes[0]))


def _id(photo: Path, folder: Path) -> str:
    return photo.relative_to(folder).with_suffix("").as_posix()


# --- a folder per class -----------------------------------------------------------------------------------------------------------------


def _folders(root: Path) -> PhotoSet[RegionSample]:
    masks = known(mask_folder(root), root)
    classes = tuple(sorted(_folders_in(masks)))
    samples = tuple(_folder_sample(photo, root / "images", masks, classes) for photo in photos_in(root / "images"))
    return PhotoSet("own", classes, samples)


def _folder_sample(photo: Path, images: Path, masks: Path, classes: tuple[str, ...]) -> RegionSample:
    size, files = size_of(photo), {name: with_suffix(masks / name / photo.relative_to(images), PHOTOS) for name in classes}
    return RegionSample(_id(photo, images), photo, classes, size, partial(_folder_regions, files, size))


def _folder_regions(files: Mapping[str, Path], size: tuple[int, int]) -> tuple[Region, ...]:
    found = ((name, binary_mask(file, size)) for name, file in files.items() if file.is_file())
    return tuple(Region(name, mask) for name, mask in found if mask.any())


def binary_mask(file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool, True where the file is not zero.

    Raises:
        DataError: no picture, or not of ``size``.
    """
    try:
        return load_mask(file, size)
    except ValueError as error:
        raise DataError(f"{file} is no usable mask: {error}") from None


def size_of(photo: Path) -> tuple[int, int]:
    """(H, W) from the file's header; (0, 0) where it cannot be read, which reading the photo will tell."""
    try:
        with Image.open(photo) as picture:
            return picture.height, picture.width
    except Exception:  # a damaged picture may raise nearly anything
        return 0, 0


# --- COCO -------------------------------------------------------------------------------------------------------------------------------


def coco_files(path: Path) -> list[Path]:
    """The file itself, or the annotation files of a folder: in it, in annotations/, or in parts such as train/."""
    if path.is_file():
        return [path]
    found = (file for place in ("*.json", "annotations/*.json", "*/_annotations.coco.json") for file in sorted(path.glob(place)))
    return [file for file in found if not any(word in file.name for word in NO_INSTANCES)]


def _coco(path: Path) -> PhotoSet[RegionSample]:
    tables = [read_coco(file) for file in coco_files(path)]
    classes = tables[0].classes
    other = next((table for table in tables if table.classes != classes), None)
    if other is not None:
        raise DataError(f"{tables[0].file} and {other.file} list different categories. Name one of the files instead of the folder.")
    return PhotoSet("own", classes, tuple(sample for table in tables for sample in _coco_samples(table, several=len(tables) > 1)))


def _coco_samples(table: CocoTable, *, several: bool) -> Iterable[RegionSample]:
    """The photos of a file; where there are ``several`` files, their ids are told apart by its folder and name."""
    beside = table.file.parent
    names = [str(image.get("file_name", "")) for image in table.images[:1]]
    places = (beside, beside / "images", beside.parent, beside.parent / "images", *sorted(beside.parent.glob("*/")))
    folder = next((place for place in places if names and (place / names[0]).is_file()), places[1])
    samples = region_samples(table, lambda image: folder / image["file_name"])
    part = f"{beside.name}/{table.file.stem}/"
    return (replace(sample, id=part + sample.id) for sample in samples) if several else samples


# --- shards -----------------------------------------------------------------------------------------------------------------------------


def _shards(root: Path) -> PhotoSet[ShardSample]:
    """Every tar file below ``root``; ids begin with its place, so that photos of folders train and val are told apart."""
    classes = class_list(root)
    found = (sample for file in sorted(root.rglob("*.tar")) for sample in samples_of(file, classes))
    samples = tuple(replace(one, id=(one.path.parent / one.id).relative_to(root).as_posix()) for one in found)
    return PhotoSet("own", classes, samples)


# --- YOLO-seg ---------------------------------------------------------------------------------------------------------------------------


def _yaml_file(root: Path) -> Path | None:
    return next((root / name for name in ("data.yaml", "dataset.yaml", "data.yml") if (root / name).is_file()), None)


def _yolo(root: Path) -> PhotoSet[RegionSample]:
    classes = yolo_classes(root)
    folders = sorted(folder for folder in root.rglob("images") if folder.is_dir())
    samples = tuple(_yolo_sample(photo, folder, root, classes) for folder in folders for photo in photos_in(folder))
    if not samples:
        raise DataError(f"{root} has a data.yaml but no folder images. YOLO keeps photos in images/ and their lines in labels/.")
    return PhotoSet("own", classes, samples)


def yolo_classes(root: Path) -> tuple[str, ...]:
    """The names in data.yaml, by index.

    Raises:
        DataError: the file is no YAML or has no names.
    """
    file = known(_yaml_file(root), root)
    yaml = import_module("yaml")  # comes with huggingface-hub
    try:
        names = yaml.safe_load(file.read_text(encoding="utf-8"))["names"]
        return tuple(str(name) for name in (names if isinstance(names, list) else [names[index] for index in range(len(names))]))
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise DataError(
            f"{file} has no usable list of names ({reason(error)}). It needs names: [first, second] or names: {{0: first}}."
        ) from None


def _yolo_sample(photo: Path, folder: Path, root: Path, classes: tuple[str, ...]) -> RegionSample:
    size, file = size_of(photo), yolo_file(photo, folder)
    return RegionSample(_id(photo, root), photo, classes, size, partial(_yolo_regions, file, size, classes))


def _yolo_regions(file: Path, size: tuple[int, int], classes: tuple[str, ...]) -> tuple[Region, ...]:
    lines = read_lines(file) if file.is_file() else []  # a photo of nothing needs no file
    return tuple(_yolo_region(file, number, line, size, classes) for number, line in enumerate(lines, start=1))


def yolo_file(photo: Path, folder: Path) -> Path:
    """The lines that belong to a photo below a folder ``images``."""
    return (folder.parent / "labels" / photo.relative_to(folder)).with_suffix(".txt")


def _yolo_region(file: Path, number: int, line: str, size: tuple[int, int], classes: tuple[str, ...]) -> Region:
    try:
        index, *numbers = line.split()
        points = np.array(numbers, dtype=np.float64).reshape(-1, 2)
        name = classes[int(index)] if int(index) >= 0 else classes[len(classes)]
    except (ValueError, IndexError):
        wanted = f"a class 0..{len(classes) - 1}, then pairs of coordinates"
        raise DataError(f"{file}, line {number}: {line[:60]!r} is not {wanted}. Mend the line or the names in data.yaml.") from None
    if len(points) < 3:
        raise DataError(f"{file}, line {number} has {len(points)} points; a mask needs three. These may be boxes: export with masks.")
    if points.min() < 0 or points.max() > 1:
        raise DataError(f"{file}, line {number} has coordinates beyond 0..1; they are shares of the photo's width and height, no pixels.")
    pixels = points * (size[1], size[0])
    return Region(name, fill_coco([pixels], size))

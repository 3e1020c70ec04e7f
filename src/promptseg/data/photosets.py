"""Annotated photographs as training and evaluation read them: COCO instances, palette label maps (MSRC, CamVid, CCP), DAVIS sequences.

Every reader yields `AnnotatedPhoto`: where the photo lies, which names it shows, and the mask of each. Nothing is decoded before it is
asked for.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..rle import Rle
from .filling import fill_coco
from .samples import read_photo

VALIDATION_REMAINDER = 1  # crc32(id) % 5: the split that the data's index states


def is_validation(photo_id: str) -> bool:
    """The split of every set here: a fifth of the photos, by checksum of the id (file stem; for COCO the integer id as text)."""
    return zlib.crc32(photo_id.encode()) % 5 == VALIDATION_REMAINDER


@dataclass(frozen=True)
class AnnotatedPhoto:
    """One photograph and what is known of it.

    ``present``: names that have a mask. ``absent``: names known not to be in the photo. ``masks()`` -> bool (H, W) per present name and
    the pixels about which nothing is known, bool (H, W), to be ignored. ``image()`` -> (H, W, 3) uint8, read from ``path`` unless
    ``read_image`` says how.
    """

    source: str
    id: str
    path: Path
    present: tuple[str, ...]
    absent: tuple[str, ...]
    read_masks: Callable[[], tuple[Mapping[str, np.ndarray], np.ndarray]] = field(repr=False, compare=False)
    read_image: Callable[[], np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def validation(self) -> bool:
        return is_validation(self.id)

    def image(self) -> np.ndarray:
        return read_photo(self.path) if self.read_image is None else self.read_image()

    def masks(self) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        return self.read_masks()


# --- COCO -------------------------------------------------------------------------------------------------------------------------------


def coco(root: Path, source: str = "coco", *, annotated: tuple[str, ...] | None = None) -> list[AnnotatedPhoto]:
    """A folder with ``images/`` and ``instances.json`` in COCO's format; instances of a category are joined, crowds are ignored pixels.

    ``annotated``: the categories that the annotators looked for, where the file lists more; of all others nothing is known.

    Raises:
        DataError: the annotation file is missing or malformed.
    """
    table = _read_json(root / "instances.json")
    try:
        names = {category["id"]: category["name"] for category in table["categories"]}
        by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in table["images"]}
        for annotation in table["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        looked_for = tuple(names.values()) if annotated is None else annotated
        return [_coco_photo(root, source, image, by_image[image["id"]], names, looked_for) for image in table["images"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{root / 'instances.json'} is not a COCO instances file: {error!r} is missing or misplaced.") from None


def _coco_photo(
    root: Path,
    source: str,
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    names: Mapping[int, str],
    looked_for: tuple[str, ...],
) -> AnnotatedPhoto:
    size = (int(image["height"]), int(image["width"]))
    # a category that only a crowd shows is neither present nor absent
    shown = {names[a["category_id"]] for a in annotations}
    present = {names[a["category_id"]] for a in annotations if not a.get("iscrowd")}

    def read() -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        masks = {name: np.zeros(size, dtype=bool) for name in sorted(present)}
        ignore = np.zeros(size, dtype=bool)
        for annotation in annotations:
            region = segmentation_mask(annotation["segmentation"], size)
            if annotation.get("iscrowd"):
                ignore |= region
            else:
                masks[names[annotation["category_id"]]] |= region
        for mask in masks.values():
            ignore &= ~mask  # an instance inside a crowd is known
        return masks, ignore

    absent = tuple(name for name in looked_for if name not in shown)
    return AnnotatedPhoto(source, str(image["id"]), root / "images" / image["file_name"], tuple(sorted(present)), absent, read)


def people(root: Path) -> list[AnnotatedPhoto]:
    """COCO photos in which people are annotated and nothing else: what they hold, wear or ride is neither present nor absent."""
    return coco(root, "coco_person", annotated=("person",))


def segmentation_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """COCO polygons ``[[x0, y0, x1, y1, ...], ...]`` or uncompressed / compressed run lengths -> bool (H, W).

    Raises:
        ValueError: a coordinate is no number or absurdly far from the photo.
    """
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        packed = isinstance(counts, (str, bytes))
        runs = Rle.from_string(counts, size) if packed else Rle(size, np.asarray(counts, dtype=np.uint32))
        return runs.decode()
    return fill_coco((np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation if len(polygon) >= 6), size)


# --- palette label maps -----------------------------------------------------------------------------------------------------------------


def label_maps(root: Path, source: str, *, drop: tuple[str, ...] = (), zero_is_known: bool = False) -> list[AnnotatedPhoto]:
    """``images/*.jpg``, ``labels/*.png`` (palette; k = line k of ``classes.txt``, 0 = unlabelled, to be ignored).

    ``drop``: classes that are treated as unlabelled. ``zero_is_known``: 0 means "none of the classes" and counts as background.

    Raises:
        DataError: a label map is missing, or the class list is.
    """
    try:
        classes = ["", *(root / "classes.txt").read_text(encoding="utf-8").split("\n")]
    except OSError as error:
        raise DataError(f"{root} has no readable classes.txt: {error.strerror}.") from None
    names = {index: name.strip() for index, name in enumerate(classes) if name.strip()}
    return [_label_photo(path, source, names, drop, zero_is_known) for path in sorted((root / "images").glob("*.jpg"))]


def _label_photo(path: Path, source: str, names: Mapping[int, str], drop: tuple[str, ...], zero_is_known: bool) -> AnnotatedPhoto:
    file = path.parent.parent / "labels" / f"{path.stem}.png"
    if not file.exists():
        raise DataError(f"{path.name} has no label map {file.name}.")
    shown = {names[k] for k in np.unique(_labels(file)).tolist() if k in names}
    wanted = {k: name for k, name in names.items() if name not in drop}

    def read() -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        labels = _labels(file)
        masks = {name: labels == k for k, name in wanted.items() if name in shown}
        known = np.isin(labels, list(wanted))
        return masks, ~(known | (labels == 0)) if zero_is_known else ~known

    present = tuple(name for name in wanted.values() if name in shown)
    return AnnotatedPhoto(source, path.stem, path, present, tuple(name for name in wanted.values() if name not in shown), read)


def _labels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


# --- DAVIS, image lists -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequence:
    """A DAVIS sequence: frames and annotations in order, and the phrase that names its one object."""

    name: str
    prompt: str
    frames: tuple[Path, ...]
    annotations: tuple[Path, ...]

    def mask(self, index: int) -> np.ndarray:
        """bool (H, W) of the object in frame ``index``."""
        return _labels(self.annotations[index]) > 0


def davis(root: Path) -> list[Sequence]:
    """DAVIS layout at 480p with ``prompts.json`` (sequence -> phrase)."""
    prompts = _read_json(root / "prompts.json")
    result = []
    for name, prompt in sorted(prompts.items()):
        frames = sorted((root / "JPEGImages" / "480p" / name).glob("*.jpg"))
        annotations = tuple(root / "Annotations" / "480p" / name / f"{frame.stem}.png" for frame in frames)
        result.append(Sequence(name, prompt, tuple(frames), annotations))
    return result


def named_photos(root: Path, names: Path) -> Iterator[tuple[Path, str]]:
    """One photo per class, ``images/KEY.jpg``, with a table ``key,name`` that has a header line -> (path, name)."""
    with names.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    for key, name in rows:
        path = root / "images" / f"{key}.jpg"
        if path.exists():
            yield path, name


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None

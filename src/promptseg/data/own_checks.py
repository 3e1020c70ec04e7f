"""The mistakes that people make in labels of their own, each named with examples before anything is trained on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images import ORIENTATION
from .checks import EXAMPLES, Finding
from .coco import read_coco
from .own import MAPS, coco_files, kind_of, known, map_classes, mask_folder, own, photos_in, with_suffix, yolo_classes, yolo_file
from .samples import read_labels, read_lines, size_stated

__all__ = ["label_findings"]

IGNORED = 255


def label_findings(path: Path) -> list[Finding]:
    """What is wrong with the labels of `own` data, beyond what reading them tells: files without partners, ids that look shifted.

    Raises:
        DataError: the data is in no form that is known.
    """
    look = {"maps": _in_maps, "folders": _in_folders, "coco": _in_coco, "yolo": _in_yolo, "shards": _in_shards}[kind_of(path)]
    return [finding for finding in (*look(path), _turned(path)) if finding is not None]


def _told(what: str, found: Iterable[object], *, wrong: bool = True) -> Finding | None:
    """A finding if there is anything to tell."""
    examples = [str(one) for one in found]
    return Finding(what, tuple(examples[:EXAMPLES]), len(examples), wrong) if examples else None


def _turned(path: Path) -> Finding | None:
    """Photos whose file says "show me rotated": viewers do, annotation tools may or may not."""
    what = "photos with a rotation in their EXIF data, which is not applied to them; save them upright if their masks are"
    return _told(what, [sample.path for sample in own(path) if _rotation(sample.path) != 1], wrong=False)


def _rotation(photo: Path) -> int:
    try:
        with Image.open(photo) as picture:
            return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # reading the photo will tell
        return 1


def _in_shards(_: Path) -> Iterable[Finding | None]:
    """Nothing beyond what reading them tells: `write_shards` has read every mask."""
    return ()


# --- label maps -------------------------------------------------------------------------------------------------------------------------


def _in_maps(root: Path) -> Iterable[Finding | None]:
    masks, (classes, first) = known(mask_folder(root), root), map_classes(root)
    photos = {photo.relative_to(root / "images").with_suffix("") for photo in photos_in(root / "images")}
    yield _told(
        "photos without a label map in " + masks.name, sorted(stem for stem in photos if not with_suffix(masks / stem, MAPS).is_file())
    )
    files = sorted(file for file in masks.rglob("*") if file.suffix.lower() in MAPS)
    yield _told("label maps without a photo in images", [file for file in files if file.relative_to(masks).with_suffix("") not in photos])
    smeared = sorted(file for file in masks.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    yield _told("label maps saved as JPEG, which blurs their ids (save them as PNG)", smeared)
    last = first + len(classes) - 1
    values = _values(files)
    yield from _value_findings(values, last, f"classes.txt allows 0..{last}, and {IGNORED} for ignored")
    yield _too_low(values, classes, first)


def _values(files: Iterable[Path]) -> dict[Path, set[int]]:
    """The values of each map; files that cannot be read are told by reading the data."""
    result = {}
    for file in files:
        try:
            result[file] = set(np.unique(read_labels(file)).tolist())
        except DataError:
            continue
    return result


def _value_findings(values: Mapping[Path, set[int]], last: int, allowed: str) -> Iterable[Finding | None]:
    everywhere = set().union(*values.values()) - {IGNORED}
    if values and everywhere <= {0} and any(IGNORED in found for found in values.values()):
        what = f"masks of 0 and 255, but 255 means ignored and {allowed}. Save the thing as 1, or move the masks to masks/CLASS/"
        yield _told(what, [file for file, found in values.items() if IGNORED in found])
        return
    outside = {file: sorted(found - set(range(last + 1)) - {IGNORED}) for file, found in values.items()}
    wrong = [f"{file} holds {numbers[:5]}" for file, numbers in outside.items() if numbers]
    yield _told(f"ids out of range ({allowed}){_shifted(everywhere, last)}", wrong)


def _shifted(everywhere: set[int], last: int) -> str:
    """A guess at off-by-one, where the highest id is one too high."""
    if everywhere and max(everywhere) == last + 1:
        return "; they look one too high: is a line missing at the head of classes.txt, such as background"
    return ""


def _too_low(values: Mapping[Path, set[int]], classes: Sequence[str], first: int) -> Finding | None:
    """A guess at off-by-one where nothing is out of range: 0 occurs, the last id alone is missing, and the list names no zero."""
    everywhere = set().union(*values.values()) - {IGNORED}
    if first == 0 or len(classes) < 2 or 0 not in everywhere or max(everywhere) != len(classes) - 1:
        return None
    what = (
        f"no map holds {len(classes)}, {classes[-1]!r}, but some hold 0, none of the classes. Where 0 means {classes[0]!r}, all ids are "
        "one too low: add 1 to them"
    )
    return _told(what, [f"{file} holds {sorted(found)[:5]}" for file, found in values.items() if 0 in found], wrong=False)


# --- a folder per class -----------------------------------------------------------------------------------------------------------------


def _in_folders(root: Path) -> Iterable[Finding | None]:
    masks = known(mask_folder(root), root)
    stems = {photo.relative_to(root / "images").with_suffix("") for photo in photos_in(root / "images")}
    by_class: dict[Path, list[Path]] = {
        folder: sorted(file for file in folder.rglob("*") if file.is_file()) for folder in sorted(masks.iterdir()) if folder.is_dir()
    }
    orphans = [file for folder, files in by_class.items() for file in files if file.relative_to(folder).with_suffix("") not in stems]
    yield _told("masks without a photo of the same name in images", orphans)
    yield _told("classes whose folder is empty", [folder.name for folder, files in by_class.items() if not files])
    covered = {file.relative_to(folder).with_suffix("") for folder, files in by_class.items() for file in files}
    yield _told("photos without a mask of any class; they count as showing none", sorted(stems - covered), wrong=False)


# --- COCO -------------------------------------------------------------------------------------------------------------------------------


def _in_coco(path: Path) -> Iterable[Finding | None]:
    for file in coco_files(path):
        table = read_coco(file)
        ids = Counter(str(entry.get("id")) for group in table.annotations.values() for entry in group)
        yield _told(f"annotation ids that occur twice in {file.name}", [number for number, count in ids.items() if count > 1], wrong=False)
        names = Counter(str(image.get("file_name")) for image in table.images)
        yield _told(f"photos that {file.name} lists twice", [name for name, count in names.items() if count > 1])
        sizes = {image["id"]: size_stated(image, file) for image in table.images}
        beyond = [str(entry.get("id")) for number, group in table.annotations.items() for entry in group if _beyond(entry, sizes[number])]
        yield _told("annotations that reach beyond their photo: are width and height exchanged, or was the photo resized", beyond)


def _beyond(annotation: Mapping[str, object], size: tuple[int, int]) -> bool:
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons or not isinstance(polygons[0], list):
        return False
    slack = 2  # pixels: annotators draw along the edge
    numbers = [value for polygon in polygons if isinstance(polygon, list) for value in polygon if isinstance(value, int | float)]
    return bool(numbers) and (max(numbers[::2]) > size[1] + slack or max(numbers[1::2], default=0) > size[0] + slack)


# --- YOLO-seg ---------------------------------------------------------------------------------------------------------------------------


def _in_yolo(root: Path) -> Iterable[Finding | None]:
    classes, used = yolo_classes(root), defaultdict(list)
    photos = {yolo_file(photo, folder): photo for folder in sorted(root.rglob("images")) if folder.is_dir() for photo in photos_in(folder)}
    lines = sorted(file for folder in root.rglob("labels") if folder.is_dir() for file in folder.rglob("*.txt"))
    yield _told("label files without a photo of the same name in images", [file for file in lines if file not in photos])
    yield _told("photos without a label file; they count as showing nothing", sorted(set(photos) - set(lines)), wrong=False)
    for file in lines:
        for line in read_lines(file):
            if (word := line.split()[0]).isdigit():
                used[int(word)].append(file)
    outside = [f"{files[0]} uses {number}" for number, files in sorted(used.items()) if number >= len(classes)]
    shifted = "; they look one too high: YOLO counts classes from 0" if used and max(used) == len(classes) and 0 not in used else ""
    yield _told(f"ids out of range (data.yaml names {len(classes)} classes, so 0..{len(classes) - 1}){shifted}", outside)

"""Annotations joined with what is asked of them, one entry per question: the files that PSALM's training and evaluation read.

Every builder takes tables as their files hold them and gives the list that the published scripts write, to the last number. ``new_img_id``
counts a list's entries from 0. Annotations are the sources' own, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, TypeAlias

from ..errors import DataError
from ..rle import Rle
from .photosets import segmentation_mask
from .samples import read_json, read_pickle, well_formed
from .visual_prompts import Mask, visual_prompts

__all__ = ["NO_TARGET", "PROMPT_KEYS", "generalised", "instances", "interactive", "lvis", "read_refs", "referring"]

Table: TypeAlias = Mapping[str, Any]  # an annotation file in COCO's format
Entry: TypeAlias = dict[str, Any]

ASKED = "Please segment all of objects in this image"
NO_TARGET = [-1]  # gRefCOCO's list of annotations of an expression that means nothing in the photo
PROMPT_KEYS = {kind: f"{kind}_visual_prompt_mask" for kind in ("point", "mask", "box", "scribble")}

_joined = well_formed("The annotations do not fit together", "Give instances in COCO's format and, with them, references of one release.")


@_joined
def instances(table: Table) -> list[Entry]:
    """Every photo with all its objects, class by class in the order of the categories."""
    order = {category["id"]: place for place, category in enumerate(table["categories"])}
    names = {category["id"]: category["name"] for category in table["categories"]}
    entries = []
    for image, objects in _by_image(table):
        found = sorted(objects, key=lambda annotation: order[annotation["category_id"]])
        classes = [annotation["category_id"] for annotation in found]
        named = {"mask_classes": [names[one] for one in classes], "mask_classes_id": [[one] for one in classes]}
        entries.append({**_entry(image, image["file_name"]), "instruction": ASKED, "anns": found, **named})
    return _numbered(entries)


def read_refs(file: Path) -> list[Entry]:
    """RefCOCO's ``refs(unc).p``, gRefCOCO's ``grefs(unc).json`` and their kind: what is said of which annotation.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    try:
        refs: list[Entry] = read_json(file) if file.suffix == ".json" else read_pickle(file)
        needed = {"split", "ann_id", "image_id", "sentences"}
        if not refs or not all(needed <= ref.keys() for ref in refs):
            raise ValueError(f"its entries need {', '.join(sorted(needed))}")
        return refs
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{file} holds no references ({error}). Take it from the release of RefCOCO or gRefCOCO again.") from None


@_joined
def referring(refs: Iterable[Mapping[str, Any]], table: Table, split: str) -> list[Entry]:
    """RefCOCO, RefCOCO+ and RefCOCOg: one entry per object that is referred to, with all its sentences."""
    images, objects = _lookups(table)
    chosen = (ref for ref in refs if ref["split"] == split)
    return _numbered(
        {
            **_entry(images[ref["image_id"]], images[ref["image_id"]]["file_name"]),
            "instruction": ref["sentences"],
            "anns": [objects[ref["ann_id"]]],
        }
        for ref in chosen
    )


@_joined
def generalised(refs: Iterable[Mapping[str, Any]], table: Table, split: str) -> list[Entry]:
    """gRefCOCO: one entry per expression, which may mean no object, one, or several."""
    images, objects = _lookups(table)
    return _numbered(
        {
            **_entry(images[ref["image_id"]], ref["file_name"]),
            "instruction": [sentence],
            "anns": [objects[number] for number in ref["ann_id"]] if list(ref["ann_id"]) != NO_TARGET else [],
        }
        for ref in refs
        if ref["split"] == split
        for sentence in ref["sentences"]
    )


@_joined
def interactive(table: Table, random: Random) -> list[Entry]:
    """COCO-Interactive: every object with a point, a rough mask, a box and a scribble, drawn once for all time; photos with objects only.

    Published files draw train, then val from one ``random``.
    """
    entries = []
    for image, objects in _by_image(table):
        if objects:
            size = image["height"], image["width"]
            prompted = [{**annotation, **_prompts(segmentation_mask(annotation["segmentation"], size), random)} for annotation in objects]
            entries.append({**_entry(image, image["file_name"]), "anns": prompted})
    return _numbered(entries)


@_joined
def lvis(table: Table) -> list[Entry]:
    """LVIS: photos with objects only, named by the folder and file of their address. The published script lets val overwrite train."""
    kept = ((image, objects) for image, objects in _by_image(table) if objects)
    return _numbered({**_entry(image, "/".join(PurePosixPath(image["coco_url"]).parts[-2:])), "anns": objects} for image, objects in kept)


def _prompts(mask: Mask, random: Random) -> Entry:
    found = visual_prompts(mask, random)
    runs = {kind: Rle.encode(getattr(found, kind)) for kind in PROMPT_KEYS}
    return {PROMPT_KEYS[kind]: {"counts": one.to_string(), "size": list(one.size)} for kind, one in runs.items()}


def _entry(image: Mapping[str, Any], file: str) -> Entry:
    return {"image": file, "image_info": image}


def _numbered(entries: Iterable[Entry]) -> list[Entry]:
    return [{**entry, "new_img_id": number} for number, entry in enumerate(entries)]


def _by_image(table: Table) -> list[tuple[Mapping[str, Any], Sequence[Entry]]]:
    found: dict[Any, list[Entry]] = {image["id"]: [] for image in table["images"]}
    for annotation in table["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return [(image, found[image["id"]]) for image in table["images"]]


def _lookups(table: Table) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Images and annotations by their ids."""
    return {image["id"]: image for image in table["images"]}, {one["id"]: one for one in table["annotations"]}

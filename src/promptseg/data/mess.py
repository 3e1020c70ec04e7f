"""MESS, 22 data sets of five domains with the class names that its authors ask by (Blumenstiel et al., NeurIPS 2023)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import DataError
from .samples import LabelSample, PhotoSet, label_map, one_of

__all__ = ["DOMAINS", "SETS", "MessSet", "mess"]


@dataclass(frozen=True, slots=True)
class MessSet:
    """``title``: as the authors' table has it, of PAXRay-4 the same for its four structures. ``interest``: the classes of interest.

    ``photos`` and ``maps``: folders, and how their files' names end after what a photo and its map have in common.
    """

    title: str
    domain: str
    photos: tuple[str, str]
    maps: tuple[str, str]
    interest: tuple[int, ...]
    classes: tuple[str, ...]


def _sets() -> dict[str, MessSet]:
    text = resources.files(__package__).joinpath("vocabularies/mess.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)["sets"]
    return {
        name: MessSet(
            title=entry["title"],
            domain=entry["domain"],
            photos=(f"{entry['root']}/{entry['photos']}", entry["photo"]),
            maps=(f"{entry['root']}/{entry['maps']}", entry["map"]),
            interest=tuple(entry["interest"]),
            classes=tuple(entry["classes"]),
        )
        for name, entry in table.items()
    }


SETS: Mapping[str, MessSet] = _sets()
DOMAINS = tuple(dict.fromkeys(entry.domain for entry in SETS.values()))


def mess(root: Path, split: str = "dark-zurich") -> PhotoSet[LabelSample]:
    """MESS: 22 data sets of five domains; SPLIT names one, such as deepcrack or paxray-lungs.

    ROOT is where the authors' mess/prepare_datasets wrote them all, each in the folder that it makes there:
    ROOT/DeepCrack/test_img/ID.jpg
    ROOT/DeepCrack/annotations_detectron2/test/ID.png      0 = the first class, 255 = ignored; the other sets likewise

    Raises:
        DataError: no such set, or there are no photos with maps.
    """
    entry = SETS[one_of(split, tuple(SETS), "set of MESS")]
    (photos, ending), (maps, map_ending) = entry.photos, entry.maps
    stems = {file.name.removesuffix(map_ending): file for file in sorted((root / maps).glob(f"*{map_ending}"))}
    samples = tuple(
        LabelSample(stem.rstrip("._"), photo, entry.classes, partial(label_map, file, len(entry.classes)))
        for stem, file in stems.items()
        if (photo := root / photos / f"{stem}{ending}").exists()
    )
    if not samples:
        raise DataError(f"{root / maps} holds no label maps of photos in {root / photos}. Prepare the set with MESS's own scripts.")
    return PhotoSet(f"mess-{split}", entry.classes, samples)

"""Data sets as questions and answers: what each kind of source asks of a photo, and what the network should say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.coco import coco_panoptic
from ...data.instructions import PROMPT_KEYS
from ...data.photosets import segmentation_mask
from ...data.samples import read_json, read_photo, well_formed
from ...errors import DataError
from ...rle import Rle
from .batches import Example, shuffle_classes
from .losses import Targets
from .photos import POINT_RADIUS, SCRIBBLE_RADIUS, Mask, discs, fit_mask, polygon_mask, to_input
from .tokens import Tokenizer

__all__ = ["Conversations", "Interactive", "Panoptic", "Questions", "Referring"]

BACKGROUND = "background"  # the last class of every list: none of the others
GROWN = {"point": POINT_RADIUS, "scribble": SCRIBBLE_RADIUS}  # pixels of the photo


class Questions(ABC):
    """A sequence of questions; ``side``: of the network's input."""

    tokenizer: Tokenizer
    side: int
    names: tuple[str, ...] = ()  # of classes, background last, where these are asked

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def example(self, index: int, random: Random) -> Example:
        """One of them; what is drawn comes from ``random``."""

    @abstractmethod
    def describe(self, index: int) -> str:
        """Which photo it is about."""


class Panoptic(Questions):
    """COCO panoptic, ``root`` as `data.coco.coco_panoptic` wants it. The list of classes comes in another order every time."""

    def __init__(self, root: Path, split: str, tokenizer: Tokenizer, side: int) -> None:
        self.photos, self.tokenizer, self.side = coco_panoptic(root, split), tokenizer, side
        self.names = (*self.photos.classes, BACKGROUND)

    def __len__(self) -> int:
        return len(self.photos)

    def example(self, index: int, random: Random) -> Example:
        sample = self.photos[index]
        regions = [region for region in sample.regions() if not region.crowd]
        masks = [fit_mask(region.mask, self.side) for region in regions]
        labels = torch.tensor([self.names.index(region.name) for region in regions], dtype=torch.long)
        names, places = shuffle_classes(self.names, random)
        targets = Targets(_stacked(masks, self.side), labels)
        return Example(to_input(sample.image(), self.side), self.tokenizer.prompt("panoptic", classes=names), targets, None, places)

    def describe(self, index: int) -> str:
        return self.photos[index].id


@dataclass(frozen=True, slots=True)
class _Entries:
    """A file of `data.instructions`, and the folder of its photos."""

    file: Path
    folder: Path
    entries: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, file: Path, folder: Path, *needed: str) -> _Entries:
        entries = read_json(file)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and {"image", *needed} <= entry.keys() for entry in entries):
            raise DataError(f"{file} is no list of entries with {', '.join(('image', *needed))}; see data.instructions, which writes them.")
        return cls(file, folder, entries)

    def whole(self) -> AbstractContextManager[None]:
        """Anything that an entry lacks is a mistake in the file."""
        return well_formed(str(self.file), "Write it again with `promptseg data prepare`, or take it from its release again.")

    def photo(self, index: int) -> np.ndarray:
        return read_photo(self.folder / self.entries[index]["image"])

    def describe(self, index: int) -> str:
        return f"{self.entries[index]['image']} of {self.file.name}"


class Referring(Questions):
    """RefCOCO and its kind: all sentences of an object are one question (published code)."""

    def __init__(self, file: Path, folder: Path, tokenizer: Tokenizer, side: int) -> None:
        self.found, self.tokenizer, self.side = _Entries.read(file, folder, "instruction", "anns"), tokenizer, side

    def __len__(self) -> int:
        return len(self.found.entries)

    def example(self, index: int, random: Random) -> Example:
        entry, photo = self.found.entries[index], self.found.photo(index)
        with self.found.whole():
            masks = _stacked([_target(annotation, photo, self.side) for annotation in entry["anns"]], self.side)
            prompt = self.tokenizer.prompt("referring", sentences=[sentence["sent"] for sentence in entry["instruction"]])
        return Example(to_input(photo, self.side), prompt, Targets(masks, torch.zeros(len(masks), dtype=torch.long)))

    def describe(self, index: int) -> str:
        return self.found.describe(index)


class Interactive(Questions):
    """COCO-Interactive: every object of a photo by one of its four prompts, drawn among those that show anything."""

    def __init__(self, file: Path, folder: Path, tokenizer: Tokenizer, side: int) -> None:
        found = _Entries.read(file, folder, "anns")
        with found.whole():
            kept = [entry for entry in found.entries if any(not annotation.get("iscrowd", 0) for annotation in entry["anns"])]
        self.found, self.tokenizer, self.side = _Entries(file, folder, kept), tokenizer, side

    def __len__(self) -> int:
        return len(self.found.entries)

    def example(self, index: int, random: Random) -> Example:
        photo = self.found.photo(index)
        masks, regions = [], []
        with self.found.whole():
            for annotation in self.found.entries[index]["anns"]:
                drawn = None if annotation.get("iscrowd", 0) else _drawn(annotation, random)
                if drawn is not None:
                    regions.append(fit_mask(drawn, self.side))
                    masks.append(_target(annotation, photo, self.side))
        if not regions:
            raise DataError(f"{self.describe(index)}: no object has a visual prompt; draw them with `promptseg data prepare interactive`.")
        targets = Targets(_stacked(masks, self.side), torch.zeros(len(masks), dtype=torch.long))
        return Example(
            to_input(photo, self.side), self.tokenizer.prompt("region", regions=len(regions)), targets, _stacked(regions, self.side)
        )

    def describe(self, index: int) -> str:
        return self.found.describe(index)


class Conversations(Questions):
    """LLaVA's instructions or captions; those without a photo are left out."""

    def __init__(self, file: Path, folder: Path, tokenizer: Tokenizer, side: int) -> None:
        found = _Entries(file, folder, read_json(file))
        with found.whole():
            kept = [entry for entry in found.entries if entry.get("image") and (folder / entry["image"]).is_file()]
        self.found, self.tokenizer, self.side = _Entries(file, folder, kept), tokenizer, side

    def __len__(self) -> int:
        return len(self.found.entries)

    def example(self, index: int, random: Random) -> Example:
        with self.found.whole():
            prompt = self.tokenizer.answered(self.found.entries[index]["conversations"])
        return Example(to_input(self.found.photo(index), self.side), prompt)

    def describe(self, index: int) -> str:
        return self.found.describe(index)


def _drawn(annotation: Mapping[str, Any], random: Random) -> Mask | None:
    """One of an object's prompts on the photo, grown where it is thin; None where all are empty."""
    shown = {}
    for kind in ("point", "mask", "box", "scribble"):  # the published order, from which one is drawn
        stored = annotation.get(PROMPT_KEYS[kind])
        if stored is not None and (runs := Rle.from_string(stored["counts"], (stored["size"][0], stored["size"][1]))).area:
            shown[kind] = runs
    if not shown:
        return None
    kind = random.choice(list(shown))
    mask = shown[kind].decode()
    return discs(mask, GROWN[kind]) if kind in GROWN else mask


def _target(annotation: Mapping[str, Any], photo: np.ndarray, side: int) -> Mask:
    """An annotation on the network's grid: polygons are scaled before they are filled, run lengths afterwards (published code)."""
    size, outline = (photo.shape[0], photo.shape[1]), annotation["segmentation"]
    if isinstance(outline, list):
        return polygon_mask([np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in outline], size, side)
    return fit_mask(segmentation_mask(outline, size), side)


def _stacked(masks: Sequence[Mask], side: int) -> Tensor:
    return torch.from_numpy(np.stack(masks).astype(np.uint8)) if masks else torch.zeros(0, side, side, dtype=torch.uint8)

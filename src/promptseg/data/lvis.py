"""LVIS: more than 1,200 kinds of things on COCO's photos, and one-shot episodes made of it.

CLIPSeg's own LVIS module was never published; `LvisOneShot` follows what its paper and configurations say of it (sections 3.3 and 5.3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from .coco import CocoTable, read_coco, region_samples
from .items import PromptData, PromptSample, Support
from .randomness import Draws
from .removal import removal
from .samples import PhotoSet, RegionSample, one_of
from .tensors import normalised, resize_image, resize_mask
from .vocabularies import table as vocabulary

__all__ = ["LvisOneShot", "asked_by_use", "lvis", "lvis_table"]

SPLITS = ("train", "val")


def lvis(root: Path, split: str = "val") -> PhotoSet[RegionSample]:
    """LVIS v1: instances of 1,203 categories on photos of COCO 2017.

    ROOT/annotations/lvis_v1_SPLIT.json        SPLIT: train, val
    ROOT/train2017/ID.jpg, ROOT/val2017/ID.jpg (each entry's coco_url says in which)

    Raises:
        DataError: the annotation file is missing or malformed.
    """
    return lvis_photos(root, lvis_table(root, split))


def lvis_photos(root: Path, table: CocoTable) -> PhotoSet[RegionSample]:
    """The photos of a table that is read already."""
    return PhotoSet("lvis", table.classes, region_samples(table, lambda image: photo_path(root, image)))


def lvis_table(root: Path, split: str) -> CocoTable:
    """The annotations, with readable names: "deck_chair" -> "deck chair", "bow_(weapon)" -> "bow (weapon)".

    Raises:
        DataError: the file is missing or malformed, or there is no such split.
    """
    one_of(split, SPLITS, "split of LVIS")
    table = read_coco(root / "annotations" / f"lvis_v1_{split}.json")
    names = {number: name.replace("_", " ") for number, name in table.names.items()}
    return CocoTable(table.file, table.images, names, table.annotations)


def photo_path(root: Path, image: Mapping[str, Any]) -> Path:
    """Where a listed photo lies: LVIS v1 gives an address that ends in FOLDER/FILE."""
    *_, folder, name = ("", *str(image["coco_url"]).split("/"))
    return root / folder / name


def asked_by_use() -> dict[str, tuple[str, ...]]:
    """CLIPSeg's generalisation test: phrase ("sit on") -> the categories whose things it asks for."""
    return {phrase: tuple(group) for phrase, group in vocabulary("lvis-generalisation")["categories"].items()}


class LvisOneShot(PromptData):
    """One item per (photo, category) with enough of it in view; another such photo is drawn as the example.

    ``group`` is the category's index in ``classes``. Photos and masks are stretched to a square of ``image_size``.
    """

    def __init__(
        self,
        root: Path,
        split: str = "train",
        *,
        image_size: int = 352,
        min_share: float = 0.05,
        categories: Iterable[str] | None = None,
        removed: str | None = None,
        templates: Sequence[str] = ("{}",),
        text_weight: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Read the annotations.

        Args:
            min_share: of the photo that the category's instances must cover, by the areas that the file states, 0..1.
            categories: readable names to keep; None: all. removed: a set of `removal`, whose words keep a category out.
            templates: wordings with ``{}``, of which one is drawn.
            text_weight: bounds of the uniform weight of the text; None: the text alone counts.

        Raises:
            ConfigError: an unknown category or set of removals, or nothing is left.
            DataError: the annotation file is missing or malformed.
        """
        super().__init__(seed)
        self.table, self.image_size = lvis_table(root, split), image_size
        self.photos, self.classes = lvis_photos(root, self.table), self.table.classes
        kept = set(self.classes if categories is None else categories)
        if kept - set(self.classes):
            raise ConfigError(f"LVIS has no category {sorted(kept - set(self.classes))[0]!r}; names are as in its file, with blanks.")
        if removed is not None:
            kept = {name for name in kept if not removal(removed).drops(name)}
        self.templates, self.text_weight = tuple(templates), text_weight
        pairs = [
            (place, number)
            for place, image in enumerate(self.table.images)
            for number in self._shown_in(image, min_share)
            if self.table.names[number] in kept
        ]
        self.by_category: defaultdict[int, list[int]] = defaultdict(list)
        for place, number in pairs:
            self.by_category[number].append(place)
        self.pairs = [(place, number) for place, number in pairs if len(self.by_category[number]) > 1]
        if not self.pairs:
            raise ConfigError(f"No category covers {min_share} of two photos of {self.table.file}; lower min_share or name others.")
        self._index = {number: index for index, number in enumerate(sorted(self.table.names))}

    def _shown_in(self, image: Mapping[str, Any], min_share: float) -> list[int]:
        areas: defaultdict[int, float] = defaultdict(float)
        for annotation in self.table.annotations[image["id"]]:
            areas[annotation["category_id"]] += annotation["area"]
        wanted = min_share * image["height"] * image["width"]
        return sorted(number for number, area in areas.items() if area >= wanted)

    def __len__(self) -> int:
        return len(self.pairs)

    def draw(self, index: int, draws: Draws) -> PromptSample:
        place, number = self.pairs[index]
        candidates = self.by_category[number]
        other = candidates[(candidates.index(place) + 1 + draws.integer(len(candidates) - 1)) % len(candidates)]
        name = self.table.names[number]
        return PromptSample(
            id=f"{self.table.images[place]['id']}-{number}",
            image=self._image(place),
            target=self._mask(place, number)[None],
            phrase=name,
            prompt=draws.choice(self.templates).format(name),
            group=self._index[number],
            support=Support(self._image(other), self._mask(other, number)),
            text_weight=draws.between(*self.text_weight) if self.text_weight else 1.0,
        )

    def _image(self, place: int) -> Tensor:
        return normalised(resize_image(self.photos[place].image(), (self.image_size, self.image_size)))

    def _mask(self, place: int, number: int) -> Tensor:
        masks, _ = self.photos[place].masks()
        return resize_mask(masks[self.table.names[number]], (self.image_size, self.image_size))

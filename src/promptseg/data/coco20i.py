"""COCO-20i: one-shot segmentation of twenty held-out classes, four folds (Nguyen and Todorovic 2019; episodes as HSNet draws them)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ConfigError, DataError
from .items import PromptData, PromptSample, Support
from .randomness import Draws
from .samples import LabelSample, PhotoSet, label_map, one_of, read_labels, read_photo, read_pickle, reason
from .tensors import normalised, resize_mask
from .vocabularies import names

__all__ = ["EPISODES", "Coco20i", "coco20i", "fold_classes"]

CLASSES = names("coco80")
EPISODES = 1000  # of the published test, per fold
FOLDERS = {"train": "trn", "val": "val"}  # of HSNet's fold lists


def fold_classes(fold: int, split: str = "val") -> tuple[int, ...]:
    """Class ids 0..79 that are tested in ("val") or trained on without ("train") ``fold`` 0..3: every fourth class is tested.

    Raises:
        ConfigError: no such fold.
    """
    if fold not in range(4):
        raise ConfigError(f"COCO-20i has the folds 0, 1, 2, 3, not {fold}.")
    return tuple(index for index in range(80) if (index % 4 == fold) == (split == "val"))


def coco20i(root: Path, split: str = "val-0") -> PhotoSet[LabelSample]:
    """COCO-20i: COCO 2014 with one label map per photo, four folds of twenty test classes; SPLIT is val-F or train-F, F 0..3.

    ROOT/train2014/COCO_train2014_ID.jpg, ROOT/val2014/COCO_val2014_ID.jpg
    ROOT/annotations/train2014/COCO_train2014_ID.png, ROOT/annotations/val2014/...     0 = background, class + 1
    ROOT/splits/trn/foldF.pkl, ROOT/splits/val/foldF.pkl     HSNet's lists: class id -> photos (or ROOT/../splits/coco/...)

    Raises:
        DataError: a list is missing or malformed.
    """
    one_of(split, [f"{kind}-{fold}" for kind in FOLDERS for fold in range(4)], "split of COCO-20i")
    kind, _, fold = split.partition("-")
    photos = sorted({photo for group in _lists(root, kind, int(fold)).values() for photo in group})
    classes = ("background", *CLASSES)
    samples = (LabelSample(Path(photo).stem, root / photo, classes, partial(label_map, mask_path(root, photo), 81)) for photo in photos)
    return PhotoSet("coco20i", classes, tuple(samples))


def mask_path(root: Path, photo: str) -> Path:
    """Where the label map of a listed photo lies."""
    return (root / "annotations" / photo).with_suffix(".png")


def _lists(root: Path, split: str, fold: int) -> dict[int, list[str]]:
    """HSNet's list of a fold: class id -> names of photos below ``root``."""
    places = [
        place / FOLDERS[split] / f"fold{fold}.pkl" for place in (root / "splits", root.parent / "splits" / "coco", root / "splits/coco")
    ]
    file = next((place for place in places if place.is_file()), places[0])
    try:
        lists = read_pickle(file)
        return {int(number): [str(photo) for photo in photos] for number, photos in lists.items()}
    except OSError as error:
        raise DataError(f"{file} cannot be read: {reason(error)}. HSNet publishes it as data/splits/coco/{FOLDERS[split]}.") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{file} is not a list of photos by class ({error}). Take it from HSNet's data/splits/coco again.") from None


class Coco20i(PromptData):
    """Episodes: a class of the fold, a photo of it, another photo of it as the example, all drawn.

    The index says nothing but which episode it is. ``group`` is the class's place in the fold. Photos are shrunk to a square of
    ``image_size`` by Pillow's antialiased bilinear filter; targets have the same size.
    """

    def __init__(
        self,
        root: Path,
        fold: int,
        *,
        split: str = "val",
        image_size: int = 352,
        negatives: float = 0.0,
        templates: Sequence[str] = ("{}",),
        text_weight: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Read the lists of a fold.

        Args:
            split: "val": `EPISODES` episodes over the tested classes; "train": as many as the fold has photos, over the other sixty.
            negatives: share of episodes whose example shows another class and has an empty mask. As published, phrase and target stay.
            templates: wordings with ``{}``, of which one is drawn.
            text_weight: bounds of the uniform weight of the text; None: the text alone counts.

        Raises:
            ConfigError: no such fold.
            DataError: a list is missing, malformed, or holds fewer than two photos of a class.
        """
        super().__init__(seed)
        one_of(split, tuple(FOLDERS), "split of COCO-20i")
        self.class_ids = fold_classes(fold, split)
        self.root, self.image_size, self.negatives = root, image_size, negatives
        self.templates, self.text_weight = tuple(templates), text_weight
        lists = _lists(root, split, fold)
        self.by_class = {number: lists.get(number, []) for number in self.class_ids}
        rare = [CLASSES[number] for number, photos in self.by_class.items() if len(set(photos)) < 2]
        if rare:
            raise DataError(f"Fold {fold} needs two photos of every class; its list has fewer of {', '.join(rare[:5])}.")
        self._length = EPISODES if split == "val" else len({photo for photos in self.by_class.values() for photo in photos})

    def __len__(self) -> int:
        return self._length

    def draw(self, index: int, draws: Draws) -> PromptSample:
        place = draws.integer(len(self.class_ids))
        chosen = self.class_ids[place]
        photos = self.by_class[chosen]
        query = photos[draws.integer(len(photos))]
        while (example := photos[draws.integer(len(photos))]) == query:
            pass
        negative = self.negatives > 0 and draws.unit() < self.negatives
        if negative:
            example = self._of_another_class(place, draws)
        support = Support(self._image(example), self._mask(example, chosen) * (0 if negative else 1))
        name = CLASSES[chosen]
        return PromptSample(
            id=f"{Path(query).stem}-{chosen}",
            image=self._image(query),
            target=self._mask(query, chosen)[None],
            phrase=name,
            prompt=draws.choice(self.templates).format(name),
            group=place,
            support=support,
            text_weight=draws.between(*self.text_weight) if self.text_weight else 1.0,
            negative=negative,
        )

    def _of_another_class(self, place: int, draws: Draws) -> str:
        other = (place + 1 + draws.integer(len(self.class_ids) - 1)) % len(self.class_ids)
        photos = self.by_class[self.class_ids[other]]
        return photos[draws.integer(len(photos))]

    def _image(self, photo: str) -> Tensor:
        size = (self.image_size, self.image_size)
        small: NDArray[np.uint8] = np.array(Image.fromarray(read_photo(self.root / photo)).resize(size, Image.Resampling.BILINEAR))
        return normalised(torch.from_numpy(small).permute(2, 0, 1).float())

    def _mask(self, photo: str, chosen: int) -> Tensor:
        return resize_mask(read_labels(mask_path(self.root, photo)) == chosen + 1, (self.image_size, self.image_size))

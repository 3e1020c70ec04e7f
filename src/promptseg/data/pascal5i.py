"""Pascal-5i: one-shot segmentation of five held-out classes, four folds (Shaban et al. 2017; episodes as PFENet and CLIPSeg draw them)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, DataError
from .items import PromptData, PromptSample, Support
from .pascal import CLASSES, split_list, voc_root
from .randomness import Draws
from .samples import IGNORE, LabelSample, PhotoSet, label_map, one_of, read_lines, read_photo
from .tensors import normalised, resize_image, resize_mask
from .vocabularies import templates

__all__ = ["Pascal5i", "fold_classes", "pascal5i"]

LISTS = {"val": "val.txt", "train": "voc_sbd_merge_noduplicate.txt"}  # as PFENet names them
MIN_PIXELS = 2048  # of a class, for a photo to be listed under it
MULTIPLE = 8  # network input sides, PFENet
(TEMPLATE,) = templates("photo")


def pascal5i(root: Path, split: str = "val") -> PhotoSet[LabelSample]:
    """Pascal-5i: VOC 2012 with SBD's masks, four folds of five test classes.

    ROOT is VOCdevkit/VOC2012 (or holds it); PFENet's lists have one line "IMAGE LABEL" per photo:
    ROOT/JPEGImages/ID.jpg
    ROOT/SegmentationClassAug/ID.png                      grey, 0..20, 255 = ignored, for both splits
    ROOT/lists/pascal/val.txt                             1,449 photos
    ROOT/lists/pascal/voc_sbd_merge_noduplicate.txt       5,953 photos
    Without lists the splits val and trainaug of VOC are read.

    Raises:
        DataError: no list is there.
    """
    one_of(split, tuple(LISTS), "split of Pascal-5i")
    place = voc_root(root)
    found = [folder / LISTS[split] for folder in (place / "lists" / "pascal", place / "lists", root / "lists" / "pascal")]
    file = next((file for file in found if file.is_file()), None)
    if file is not None:
        stems = [Path(line.split()[0]).stem for line in read_lines(file)]
    else:
        stems = split_list(place, "val" if split == "val" else "trainaug")
    return PhotoSet("pascal5i", CLASSES, tuple(_sample(place, stem) for stem in stems))


def _sample(root: Path, stem: str) -> LabelSample:
    labels = partial(label_map, root / "SegmentationClassAug" / f"{stem}.png", len(CLASSES))
    return LabelSample(stem, root / "JPEGImages" / f"{stem}.jpg", CLASSES, labels)


def fold_classes(fold: int, split: str = "val") -> tuple[int, ...]:
    """Class ids 1..20 that are tested in ("val") or trained on without ("train") ``fold`` 0..3.

    Raises:
        ConfigError: no such fold.
    """
    if fold not in range(4):
        raise ConfigError(f"Pascal-5i has the folds 0, 1, 2, 3, not {fold}.")
    tested = tuple(range(5 * fold + 1, 5 * fold + 6))
    return tested if split == "val" else tuple(index for index in range(1, 21) if index not in tested)


class Pascal5i(PromptData):
    """One episode per photo that shows a class of the fold: the class, then another photo of it as the example, are drawn.

    Query and example are shown at ``image_size``, shrunk with their aspect where larger and laid top left on black; the target keeps the
    photo's resolution, top left in a square of its longer side whose rest does not count. ``group`` is the class's place in the fold.
    """

    def __init__(self, photos: Sequence[LabelSample], fold: int, *, split: str = "val", image_size: int = 352, seed: int = 0) -> None:
        """``photos``: `pascal5i` of the same ``split``. Reads every label map once.

        Raises:
            ConfigError: no such fold.
            DataError: no photo shows enough of a class of the fold, or a label map cannot be read.
        """
        super().__init__(seed)
        self.class_ids, self.image_size = fold_classes(fold, split), image_size
        self.photos: list[LabelSample] = []
        self.by_class: defaultdict[int, list[int]] = defaultdict(list)
        for photo in photos:
            pixels = np.bincount(photo.labels().ravel() + 1, minlength=len(CLASSES) + 1)[1:]  # the first bin is what is ignored
            large = [index for index in self.class_ids if pixels[index] >= MIN_PIXELS]
            for index in large:
                self.by_class[index].append(len(self.photos))
            self.photos += [photo] if large else []
        if not self.photos:
            raise DataError(f"None of {len(photos)} photos shows {MIN_PIXELS} pixels of a class of fold {fold}. Check the label maps.")

    def __len__(self) -> int:
        return len(self.photos)

    def draw(self, index: int, draws: Draws) -> PromptSample:
        photo = self.photos[index]
        labels = photo.labels()
        present = np.unique(labels)
        classes = [number for number in self.class_ids if number in present]  # of any size: published so
        chosen = classes[draws.integer(len(classes))]
        candidates = self.by_class[chosen]
        if not set(candidates) - {index}:
            raise DataError(f"No other photo than {photo.id} shows {MIN_PIXELS} pixels of {CLASSES[chosen]}; an example of it is needed.")
        while (example := candidates[draws.integer(len(candidates))]) == index:
            pass
        support = self.photos[example]
        target = _in_square(labels)
        return PromptSample(
            id=photo.id,
            image=self._shown(read_photo(photo.path)),
            target=torch.from_numpy(target == chosen).float()[None],
            valid=torch.from_numpy(target != IGNORE).float()[None],
            phrase=CLASSES[chosen],
            prompt=TEMPLATE.format(CLASSES[chosen]),
            group=self.class_ids.index(chosen),
            support=Support(self._shown(read_photo(support.path)), self._shown_mask(support.labels() == chosen)),
        )

    def _shown(self, photo: NDArray[np.uint8]) -> Tensor:
        """(3, S, S), black where the photo does not reach, normalised."""
        image = resize_image(photo, _fitting(photo.shape[0], photo.shape[1], self.image_size))
        canvas = torch.zeros(3, self.image_size, self.image_size)
        canvas[:, : image.shape[1], : image.shape[2]] = image
        return normalised(canvas)

    def _shown_mask(self, mask: NDArray[np.bool_]) -> Tensor:
        small = resize_mask(mask, _fitting(mask.shape[0], mask.shape[1], self.image_size))
        canvas = torch.zeros(self.image_size, self.image_size)
        canvas[: small.shape[0], : small.shape[1]] = small
        return canvas


def _fitting(height: int, width: int, size: int) -> tuple[int, int]:
    """PFENet's size of a photo in a square: unchanged if it fits, else its longer side ``size``, both sides multiples of 8."""
    if max(height, width) <= size:
        return height, width
    ratio = size / max(height, width)
    sides = (size if side == max(height, width) else int(side * ratio) for side in (height, width))
    tall, wide = (max(MULTIPLE, side // MULTIPLE * MULTIPLE) for side in sides)
    return tall, wide


def _in_square(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    side = max(labels.shape)
    square = np.full((side, side), IGNORE, dtype=np.int32)
    square[: labels.shape[0], : labels.shape[1]] = labels
    return square

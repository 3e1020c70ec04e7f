"""ImageNet-1k: photos in a folder per class, one class per photo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .samples import read_photo
from .vocabularies import table

__all__ = ["ClassPhoto", "imagenet"]

ENDINGS = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True, slots=True)
class ClassPhoto:
    """A photo and the index of its class in the vocabulary "imagenet1000"."""

    id: str
    path: Path
    target: int

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as stored.

        Raises:
            DataError: the photo is missing or no picture.
        """
        return read_photo(self.path)


def imagenet(root: Path, split: str = "val") -> tuple[ClassPhoto, ...]:
    """Photos class by class, each class by file name; classes without a folder have none.

    ROOT/SPLIT/SYNSET/*.JPEG     SYNSET: n01440764 to n15075141

    Raises:
        DataError: no folder is called by a synset of ImageNet-1k, or none of them holds a photo.
    """
    place = root / split
    photos = tuple(
        ClassPhoto(f"{synset}/{file.stem}", file, target)
        for target, synset in enumerate(table("imagenet1000")["synsets"])
        for file in sorted((place / synset).glob("*"))
        if file.suffix.lower() in ENDINGS
    )
    if not photos:
        raise DataError(
            f"{place} holds no photos in folders that are called by their synsets, such as n01440764/ILSVRC2012_val_00000293.JPEG."
        )
    return photos

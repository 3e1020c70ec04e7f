"""PhraseCut, and CLIPSeg's PhraseCut+ made from it: phrases with their masks, examples by shared phrase, negatives.

Wu et al., PhraseCut (CVPR 2020), data set VGPhraseCut v0; PhraseCut+: Lueddecke and Ecker (CVPR 2022), section 4.1 and published code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .crops import find_crop
from .filling import fill_polygons
from .items import PromptData, PromptSample, Support
from .randomness import Draws, shuffled
from .removal import removal
from .samples import PhotoSet, Region, RegionSample, one_of, read_json, read_photo, size_stated
from .tensors import normalised, resize_image, resize_mask

__all__ = ["SPLITS", "Phrase", "PhraseCut", "phrase_cut_plus", "phrasecut", "phrases"]

SPLITS = ("train", "val", "test", "miniv")
WRONG_SIZES = frozenset(  # images whose file has not the size that the annotations were made for (published list)
    (150417, 285665, 498246, 61564, 285743, 498269, 498010, 150516, 150344, 286093, 61530, 150333, 286065, 285814, 498187, 285761, 498042)
)
KEPT = ("image_id", "phrase", "Polygons", "instance_boxes")  # of a line of the annotations
CROP_TRIES, CROP_SHARE = 50, 0.05  # of `find_crop`, published


@dataclass(frozen=True, slots=True)
class Phrase:
    """One line of the annotations: ``index`` counts the phrases of an image from 0; ``polygons`` (K, 2) of (x, y) of all its objects.

    ``size`` (H, W) of the photo; ``relative_size``: area of the objects' boxes as a share of the photo's.
    """

    image: int
    index: int
    phrase: str
    path: Path
    size: tuple[int, int]
    polygons: tuple[NDArray[np.float64], ...]
    relative_size: float

    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, all objects of the phrase together."""
        return fill_polygons(self.polygons, self.size)


def phrasecut(root: Path, split: str = "val") -> PhotoSet[RegionSample]:
    """PhraseCut: 77,262 photos of Visual Genome, phrases for regions of them.

    ROOT/image_data_split.json
    ROOT/refer_train.json, refer_val.json, refer_test.json, refer_miniv.json
    ROOT/images/IMAGE_ID.jpg

    Raises:
        DataError: a file is missing or malformed.
    """
    by_image: defaultdict[int, list[Phrase]] = defaultdict(list)
    for phrase in phrases(root, split):
        by_image[phrase.image].append(phrase)
    names = tuple(sorted({phrase.phrase for group in by_image.values() for phrase in group}))
    samples = tuple(_photo(group, names) for group in by_image.values())
    return PhotoSet("phrasecut", names, samples)


def _photo(group: list[Phrase], names: tuple[str, ...]) -> RegionSample:
    first = group[0]
    return RegionSample(str(first.image), first.path, names, first.size, partial(_regions, group))


def _regions(group: list[Phrase]) -> tuple[Region, ...]:
    return tuple(Region(phrase.phrase, phrase.mask()) for phrase in group)


def phrases(root: Path, split: str) -> list[Phrase]:
    """All phrases of a split, image by image in the order of ``image_data_split.json``; photos of wrong size are left out.

    Raises:
        DataError: a file is missing or malformed, or there is no such split.
    """
    one_of(split, SPLITS, "split of PhraseCut")
    table, tasks = root / "image_data_split.json", root / f"refer_{split}.json"
    photos = read_json(table)
    by_image: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    try:
        sizes = {photo["image_id"]: size_stated(photo, table) for photo in photos}
        for task in read_json(tasks, _packed):
            by_image[task["image_id"]].append(task)
        return [
            _phrase(root, image, index, task, size)
            for image, size in sizes.items()
            if image not in WRONG_SIZES
            for index, task in enumerate(by_image.get(image, ()))
        ]
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{tasks} or {table.name} is not in the format of VGPhraseCut v0 ({error!r}). Download it again.") from None


def _packed(entry: dict[str, Any]) -> dict[str, Any]:
    """A line of the annotations with its polygons as arrays, an eighth of the memory; what is malformed stays, to be told later."""
    with suppress(TypeError, ValueError, KeyError):
        entry["Polygons"] = [[np.asarray(polygon, dtype=np.float64) for polygon in thing] for thing in entry["Polygons"]]
    return {name: entry[name] for name in KEPT if name in entry}


def _phrase(root: Path, image: int, index: int, task: Mapping[str, Any], size: tuple[int, int]) -> Phrase:
    polygons = tuple(np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for thing in task["Polygons"] for polygon in thing)
    if not all(np.isfinite(polygon).all() for polygon in polygons):
        raise ValueError("a coordinate is not a number")
    area = sum(width * height for _, _, width, height in task["instance_boxes"])
    path = root / "images" / f"{image}.jpg"
    return Phrase(image, index, str(task["phrase"]), path, size, polygons, area / (size[0] * size[1]))


class PhraseCut(PromptData):
    """Phrases as training and test items, map-style.

    Draws of one item come in the published order: crop, negative, which negative, which support, its crop; then wording and text weight,
    which the published training loop draws per batch. Published quirks that are kept: the support may be the photo itself, and whether a
    negative phrase truly is absent is not checked.
    """

    def __init__(
        self,
        found: Sequence[Phrase],
        *,
        image_size: int = 352,
        negatives: float = 0.0,
        crop: bool = True,
        min_size: float = 0.0,
        removed: str | None = None,
        with_support: bool = False,
        only_supported: bool = False,
        templates: Sequence[str] = ("{}",),
        text_weight: tuple[float, float] | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        """Choose among ``found`` and say how items are made.

        Args:
            found: `phrases` of a split.
            image_size: side of the square images, pixels.
            negatives: share of items whose phrase is exchanged for another one and whose target is emptied, 0..1.
            crop: cut a random square that keeps some of the thing; False: the whole photo, stretched.
            min_size: share of the photo that the phrase's boxes must exceed, 0..1.
            removed: a name of `removal.REMOVALS`.
            with_support: draw an example among the photos that share the phrase.
            only_supported: leave out phrases that only one photo has.
            templates: wordings with ``{}``, of which one is drawn.
            text_weight: bounds of the uniform weight of the text where there is an example; None: the text alone counts.
            shuffle: put the images in an order that ``seed`` decides once; the phrases of an image stay together, as published.

        Raises:
            ConfigError: an impossible option, or nothing is left.
        """
        super().__init__(seed)
        if only_supported and not with_support:
            raise ConfigError("only_supported=True leaves phrases with examples; it needs with_support=True.")
        if not 0 <= negatives <= 1 or image_size < 1:
            raise ConfigError(f"negatives={negatives} must lie in 0..1 and image_size={image_size} be at least 1.")
        drops = removal(removed).drops if removed else lambda phrase: False
        kept = [phrase for phrase in (_by_image(found, seed) if shuffle else found) if not drops(phrase.phrase)]
        self.by_phrase: defaultdict[str, list[Phrase]] = defaultdict(list)
        for phrase in kept:
            self.by_phrase[phrase.phrase].append(phrase)
        self.vocabulary = tuple(sorted(self.by_phrase))
        if only_supported:
            kept = [phrase for phrase in kept if len(self.by_phrase[phrase.phrase]) > 1]
        self.phrases = [phrase for phrase in kept if phrase.relative_size > min_size or min_size == 0]
        if not self.phrases:
            raise ConfigError(f"No phrase is left of {len(found)}: removed={removed!r}, min_size={min_size}, {only_supported=}.")
        if negatives > 0 and len(self.vocabulary) < 2:
            raise ConfigError(f"negatives={negatives} exchanges phrases, but {self.vocabulary[0]!r} is the only one.")
        self.image_size, self.negatives, self.crop, self.with_support = image_size, negatives, crop, with_support
        self.templates, self.text_weight = tuple(templates), text_weight

    def __len__(self) -> int:
        return len(self.phrases)

    def describe(self, index: int) -> str:
        return f"{self.phrases[index].phrase!r} in {self.phrases[index].path.name}"

    def draw(self, index: int, draws: Draws) -> PromptSample:
        asked = self.phrases[index]
        image, mask = self._shown(asked, draws)
        phrase, negative = asked.phrase, self.negatives > 0 and draws.unit() < self.negatives
        if negative:
            while phrase == asked.phrase:
                phrase = self.vocabulary[draws.integer(len(self.vocabulary))]
        support = self._support(phrase, draws) if self.with_support else None
        return PromptSample(
            id=f"{asked.image}-{asked.index}",
            image=image,
            target=torch.zeros_like(mask)[None] if negative else mask[None],
            phrase=phrase,
            prompt=draws.choice(self.templates).format(phrase),
            group=index,
            support=support,
            text_weight=draws.between(*self.text_weight) if support and self.text_weight else 1.0,
            negative=negative,
        )

    def _support(self, phrase: str, draws: Draws) -> Support | None:
        sharing = self.by_phrase[phrase]
        return Support(*self._shown(sharing[draws.integer(len(sharing))], draws)) if len(sharing) > 1 else None

    def _shown(self, phrase: Phrase, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (3, S, S) normalised and mask (S, S)."""
        photo, mask = read_photo(phrase.path), phrase.mask()
        if photo.shape[:2] != mask.shape:
            found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (photo.shape, mask.shape))
            raise DataError(f"{phrase.path} is {found}, its annotations are for {wanted}. Download the photo again.")
        if self.crop:
            side = min(mask.shape)
            window = find_crop(mask, (side, side), draws, iterations=CROP_TRIES, min_frac=CROP_SHARE)
            photo, mask = photo[window.rows, window.columns], mask[window.rows, window.columns]
        size = (self.image_size, self.image_size)
        return normalised(resize_image(photo, size, align_corners=True)), resize_mask(mask, size)


def _by_image(found: Sequence[Phrase], seed: int) -> list[Phrase]:
    by_image: defaultdict[int, list[Phrase]] = defaultdict(list)
    for phrase in found:
        by_image[phrase.image].append(phrase)
    return [phrase for image in shuffled(list(by_image), seed) for phrase in by_image[image]]


def phrase_cut_plus(found: Sequence[Phrase], **options: Any) -> PhraseCut:
    """PhraseCut+: a fifth of negatives, visual support, texts and examples mixed with any weight; ``options`` of `PhraseCut` override."""
    return PhraseCut(found, **{"negatives": 0.2, "with_support": True, "text_weight": (0.0, 1.0), **options})

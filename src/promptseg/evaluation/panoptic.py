"""Things and stuff of whole photos: panoptic quality, mask AP and mIoU in one pass (COCO; ADE20K, whose classes PSALM never saw)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..contracts import Options, Task
from ..data.coco import SPLITS, panoptic_photos, panoptic_things
from ..data.samples import IGNORE, Region, one_of
from ..metrics import Found, Labelled, MaskAP, PanopticQuality, SemanticIoU
from .open_vocabulary import named
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["AdePanoptic", "CocoPanoptic"]


@dataclass(frozen=True)
class Panoptic(Protocol):
    """PQ as panopticapi counts it; mIoU over labelled classes; AP of the things by pycocotools, whose truth are the same segments.

    PSALM's label maps come from masks that are enlarged to the photo's size before they are summed, as its authors have it beside PQ.
    The model is asked three times by all names, in the order of the file's categories, on features that it keeps. Void pixels count
    nowhere. ``names``: other names for the classes, in that order, as `OpenVocabulary` takes them.
    """

    TASK: ClassVar[Task] = "panoptic"

    names: str | None = None

    @abstractmethod
    def places(self) -> tuple[Path, Path]:
        """The annotation file and the folder of photos."""

    def parts(self) -> tuple[Part, ...]:
        return (_Photos(*self.places(), self),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        metrics = counted["photos"]
        quality, ap = metrics["panoptic"].compute(), metrics["instances"].compute()
        return (
            Row("PQ", quality.all.pq),
            Row("PQ, things", quality.things.pq),
            Row("PQ, stuff", quality.stuff.pq),
            Row("AP", ap.ap),
            Row("AP50", ap.ap50),
            Row("mIoU", metrics["semantic"].compute().mean_iou),
        )

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        quality = counted["photos"]["panoptic"].compute().per_class
        return {"PQ": {str(name): one.pq for name, one in quality.items()}, "IoU": counted["photos"]["semantic"].compute().iou}

    def published(self) -> Mapping[str, Figures]:
        from .. import zoo

        wanted = {figure: f"{self.NAME}/{figure}" for figure in ("PQ", "AP", "mIoU")}
        known = {card.name: {figure: card.metrics[key] for figure, key in wanted.items() if key in card.metrics} for card in zoo.cards()}
        return {name: figures for name, figures in known.items() if figures}


@dataclass(frozen=True)
class CocoPanoptic(Panoptic):
    """COCO's 80 things and 53 kinds of stuff."""

    NAME: ClassVar[str] = "coco-panoptic"
    TITLE: ClassVar[str] = "COCO panoptic: PQ, AP and mIoU over 133 classes (PSALM)"
    DATA: ClassVar[str] = "coco-panoptic: promptseg data list coco-panoptic"

    split: str = "val2017"

    def __post_init__(self) -> None:
        one_of(self.split, SPLITS, "split of COCO panoptic")

    def places(self) -> tuple[Path, Path]:
        root = existing(self.root)
        return root / "annotations" / f"panoptic_{self.split}.json", root / self.split


@dataclass(frozen=True)
class AdePanoptic(Panoptic):
    """ADE20K's 100 things and 50 kinds of stuff, asked by the names in its file unless ``names`` gives others."""

    NAME: ClassVar[str] = "ade20k-panoptic"
    TITLE: ClassVar[str] = "ADE20K panoptic, open vocabulary: PQ, AP and mIoU over 150 classes (PSALM)"
    DATA: ClassVar[str] = "ADEChallengeData2016: ade20k_panoptic_val.json, ade20k_panoptic_val/ (from Mask2Former), images/validation"

    def places(self) -> tuple[Path, Path]:
        root = existing(self.root)
        return root / "ade20k_panoptic_val.json", root / "images" / "validation"


class _Photos(Part):
    name = "photos"

    def __init__(self, file: Path, photos: Path, protocol: Panoptic) -> None:
        self.photos, things = panoptic_photos(protocol.NAME, file, photos), panoptic_things(file)
        classes = self.photos.classes
        self.things = tuple(one for one in classes if one in things)
        self.stuff = tuple(one for one in classes if one not in things)
        listed = [(one,) for one in classes] if protocol.names is None else named(protocol.names, len(classes))
        self.asked = dict(zip(classes, listed, strict=True))
        self.classes = {words[0]: one for one, words in self.asked.items()}  # by what the answers call them

    @property
    def keys(self) -> Sequence[str]:
        return [sample.id for sample in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {
            "panoptic": PanopticQuality(self.things, self.stuff),
            "semantic": SemanticIoU(self.photos.classes, ignore=IGNORE, absent="labelled"),
            "instances": MaskAP(self.things),
        }

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        sample, metrics = self.photos[index], self.metrics()
        image, regions = sample.image(), sample.regions()
        ids, labels = _truth(regions, sample.size, self.photos.classes)
        words = list(self.asked.values())
        things, stuff = ([self.asked[one] for one in kind] for kind in (self.things, self.stuff))
        found = segmenter.panoptic(image, things, stuff, order=[first for first, *_ in words])
        called = [self.classes[label] for label in found.labels]
        metrics["panoptic"].update(
            _numbered([one.mask for one in found.masks], sample.size),
            dict(enumerate(called, 1)),
            ids,
            {number: region.name for number, region in enumerate(regions, 1)},
            [number for number, region in enumerate(regions, 1) if region.crowd],
        )
        metrics["semantic"].update(segmenter.semantic(image, words, background=0.0, options=_options(segmenter)).labels, labels)
        objects = segmenter.instances(image, words, threshold=0.0)  # AP wants unlikely ones, too; stuff is dropped afterwards
        things_found = [(one, self.classes[label]) for one, label in zip(objects, objects.labels, strict=True)]
        metrics["instances"].update(
            sample.id,
            [Found(one.mask, label, one.score) for one, label in things_found if label in self.things],
            [Labelled(region.mask, region.name, region.crowd) for region in regions if region.thing],
        )

        def picture() -> Picture:
            return Picture(
                image,
                {f"{label} {place}": one.mask for place, (one, label) in enumerate(zip(found.masks, called, strict=True), 1)},
                {f"{region.name} {place}": region.mask for place, region in enumerate(regions, 1)},
            )

        return Counted(metrics, picture)

    def figures(self, metrics: Metrics) -> Figures:
        return {"PQ": metrics["panoptic"].compute().all.pq, "mIoU": metrics["semantic"].compute().mean_iou}


def _options(segmenter: Segmenter) -> Options | None:
    return segmenter.options(enlarged=True) if segmenter.card.family == "psalm" else None


def _numbered(masks: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Masks that do not overlap as one map (H, W) of their numbers from 1."""
    result = np.zeros(size, dtype=np.int64)
    for number, mask in enumerate(masks, 1):
        result[mask] = number
    return result


def _truth(regions: Sequence[Region], size: tuple[int, int], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Maps (H, W): regions' numbers from 1, and class indices, crowds among them as in detectron2's label maps."""
    labels = np.full(size, IGNORE, dtype=np.int32)
    for region in regions:
        labels[region.mask] = classes.index(region.name)
    return _numbered([region.mask for region in regions], size), labels

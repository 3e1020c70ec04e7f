"""Zero-shot label maps of whole photos, background among the classes: Pascal VOC, PASCAL-Context, COCO's objects (GroupViT, 4.2)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..contracts import probability
from ..data.samples import IGNORE, LabelSample, PhotoSet
from ..data.whole_maps import coco_objects, context60, voc21
from ..errors import UnsupportedTask
from ..metrics import SemanticIoU
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["CocoObjectMaps", "ContextMaps", "VocMaps"]


@dataclass(frozen=True)
class LabelMaps(Protocol):
    """Every class but the background is asked by its name; a pixel that the model leaves unlabelled is background.

    ``background``: the threshold, as `Segmenter.semantic` takes it. Photos are shown, and classes worded, as the model's card says.
    """

    PUBLISHED: ClassVar[Mapping[str, float]]

    background: float = 0.95
    split: str = "val"

    def __post_init__(self) -> None:
        probability("background", self.background)

    @abstractmethod
    def photos(self) -> PhotoSet[LabelSample]:
        """The photos with their maps; class 0 is the background."""

    def parts(self) -> tuple[Part, ...]:
        return (_Maps(self.photos(), self.background),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        result = counted["maps"]["classes"].compute()
        return (
            Row("mIoU", result.mean_iou),
            Row("pixel accuracy", result.pixel_accuracy),
            Row("mean class accuracy", result.mean_accuracy),
        )

    def classes(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        return {"IoU": counted["maps"]["classes"].compute().iou}

    def published(self) -> Mapping[str, Figures]:
        return {model: {"mIoU": value} for model, value in self.PUBLISHED.items()}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        return {**super().constants(segmenter), "templates": list(segmenter.card.templates), "maps": "at the photo's own size"}

    def check(self, segmenter: Segmenter) -> None:
        from .. import zoo

        super().check(segmenter)
        if "semantic" not in segmenter.card.tasks:
            raise UnsupportedTask(segmenter.card.name, "semantic", [card.name for card in zoo.cards() if "semantic" in card.tasks])


@dataclass(frozen=True)
class VocMaps(LabelMaps):
    """Pascal VOC 2012: background and 20 classes."""

    NAME: ClassVar[str] = "voc-maps"
    TITLE: ClassVar[str] = "Pascal VOC, label maps: 20 classes named zero-shot, and background (GroupViT)"
    DATA: ClassVar[str] = "VOCdevkit/VOC2012: JPEGImages, SegmentationClass, ImageSets/Segmentation"
    PUBLISHED: ClassVar[Mapping[str, float]] = {"groupvit-gcc-yfcc": 0.523, "groupvit-gcc-redcap": 0.508}

    def photos(self) -> PhotoSet[LabelSample]:
        return voc21(existing(self.root), self.split)


@dataclass(frozen=True)
class ContextMaps(LabelMaps):
    """PASCAL-Context: background and 59 classes."""

    NAME: ClassVar[str] = "context-maps"
    TITLE: ClassVar[str] = "PASCAL-Context, label maps: 59 classes named zero-shot, and background (GroupViT)"
    DATA: ClassVar[str] = "VOCdevkit/VOC2010: JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext"
    PUBLISHED: ClassVar[Mapping[str, float]] = {"groupvit-gcc-yfcc": 0.224, "groupvit-gcc-redcap": 0.237}

    background: float = 0.35

    def photos(self) -> PhotoSet[LabelSample]:
        return context60(existing(self.root), self.split)


@dataclass(frozen=True)
class CocoObjectMaps(LabelMaps):
    """COCO: background and 80 objects."""

    NAME: ClassVar[str] = "coco-object-maps"
    TITLE: ClassVar[str] = "COCO, label maps: 80 objects named zero-shot, and background (GroupViT)"
    DATA: ClassVar[str] = "COCO: images/val2017, and annotations/val2017 with the pixel maps of COCO-Stuff"
    PUBLISHED: ClassVar[Mapping[str, float]] = {"groupvit-gcc-yfcc": 0.243, "groupvit-gcc-redcap": 0.275}

    split: str = "val2017"

    def photos(self) -> PhotoSet[LabelSample]:
        return coco_objects(existing(self.root), self.split)


class _Maps(Part):
    name = "maps"

    def __init__(self, photos: PhotoSet[LabelSample], background: float) -> None:
        self.photos, self.background = photos, background

    @property
    def keys(self) -> Sequence[str]:
        return [photo.id for photo in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"classes": SemanticIoU(self.photos.classes, ignore=IGNORE)}

    def figures(self, metrics: Metrics) -> Figures:
        result = metrics["classes"].compute()
        return {"mIoU of its classes": result.image_mean_iou, "pixel accuracy": result.pixel_accuracy}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        sample, classes = self.photos[index], self.photos.classes
        image, target = sample.image(), sample.labels()
        answer = segmenter.semantic(image, classes[1:], background=self.background).labels.astype(np.int32) + 1  # -1 becomes 0
        metrics = self.metrics()
        metrics["classes"].update(answer, target)

        def picture() -> Picture:
            shown = [np.unique(one) for one in (answer, target)]
            maps = [
                {classes[place]: one == place for place in present if place > 0}
                for one, present in zip((answer, target), shown, strict=True)
            ]
            return Picture(image, *maps)

        return Counted(metrics, picture)

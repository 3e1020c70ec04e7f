"""Label maps of whole photos, every pixel compared; with background among the classes: Pascal VOC, PASCAL-Context, COCO (GroupViT, 4.2)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..contracts import Task, probability
from ..data.samples import IGNORE, LabelSample, PhotoSet
from ..data.vocabularies import read_templates
from ..data.whole_maps import coco_objects, context60, voc21
from ..metrics import AbsentRule, MaskIoU
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["CocoObjectMaps", "ContextMaps", "LabelMaps", "MapsPart", "VocMaps"]

BACKGROUND = "background"
SUPERVISED = {  # what the GroupViT paper compares with: ViT-S, pretrained so, fine-tuned with masks; mIoU on VOC and Context
    "DeiT, fine-tuned": (0.530, 0.359),
    "DINO on ImageNet, fine-tuned": (0.391, 0.204),
    "DINO on CC12M and YFCC, fine-tuned": (0.376, 0.228),
    "MoCo v3 on ImageNet, fine-tuned": (0.343, 0.213),
    "MoCo v3 on CC12M and YFCC, fine-tuned": (0.361, 0.230),
}


@dataclass(frozen=True)
class LabelMaps(Protocol):
    """Photos with one class per pixel, against a map at the photo's own size. ``ABSENT``: which classes the mean leaves out.

    Photos are shown, and classes worded, as the model's card says; ``templates``: other wordings, see `vocabularies.read_templates`.
    """

    ABSENT: ClassVar[AbsentRule]
    TASK: ClassVar[Task] = "semantic"

    split: str = "val"
    templates: str | None = None

    @abstractmethod
    def photos(self) -> PhotoSet[LabelSample]:
        """The photos with their maps."""

    @abstractmethod
    def answer(self, segmenter: Segmenter, image: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.integer[Any]]:
        """A photo uint8 (H, W, 3) and the classes of its map -> (H, W), indices of these; -1 is none of them."""

    def wordings(self) -> tuple[str, ...] | None:
        """The wordings that are asked for in place of the card's."""
        return None if self.templates is None else read_templates(self.templates)

    def counted(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """The classes by the names, all different, under which they are counted."""
        return classes

    def parts(self) -> tuple[Part, ...]:
        return (MapsPart(self),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        metric = counted["maps"]["classes"]
        pixels, classes = accuracies(metric)
        return (Row("mIoU", metric.compute().mean), Row("pixel accuracy", pixels), Row("mean class accuracy", classes))

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        return {"IoU": counted["maps"]["classes"].compute().per_class}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        wordings = self.wordings()
        asked = segmenter.card.templates if wordings is None else wordings
        return {**super().constants(segmenter), "templates": list(asked), "maps": "at the photo's own size"}


@dataclass(frozen=True)
class BackgroundMaps(LabelMaps):
    """Every class but the background is asked by its name; a pixel that the model leaves unlabelled is background, class 0.

    ``background``: the threshold, as `Segmenter.semantic` takes it. A model that learned these very classes, background among them, is
    asked for all of them and needs none. ``mode``, ``size``, ``crop``, ``stride``: how GroupViT looks, see its `GroupVitOptions`; None:
    as for its published figures.
    """

    ABSENT: ClassVar[AbsentRule] = "skip"
    PUBLISHED: ClassVar[Mapping[str, float]]

    background: float = 0.95
    mode: Literal["whole", "slide"] | None = None
    size: int | None = None
    crop: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        probability("background", self.background)

    def answer(self, segmenter: Segmenter, image: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.integer[Any]]:
        options = segmenter.options(templates=self.wordings(), **self._looks())
        if tuple(getattr(segmenter.model, "classes", ())) == tuple(classes):
            return segmenter.semantic(image, classes, background=BACKGROUND, options=options).labels.clip(0)
        return segmenter.semantic(image, classes[1:], background=self.background, options=options).labels.astype(np.int32) + 1  # -1: 0

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        known = super().constants(segmenter)
        return {name: value for name, value in known.items() if value is not None or name not in self._looks()}

    def _looks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("mode", "size", "crop", "stride")}

    def published(self) -> Mapping[str, Figures]:
        return {model: {"mIoU": value} for model, value in self.PUBLISHED.items()}


@dataclass(frozen=True)
class VocMaps(BackgroundMaps):
    """Pascal VOC 2012: background and 20 classes."""

    NAME: ClassVar[str] = "voc-maps"
    TITLE: ClassVar[str] = "Pascal VOC, label maps: 20 classes named zero-shot, and background (GroupViT)"
    DATA: ClassVar[str] = "VOCdevkit/VOC2012: JPEGImages, SegmentationClass, ImageSets/Segmentation"
    PUBLISHED: ClassVar[Mapping[str, float]] = {
        "groupvit-gcc-yfcc": 0.523,
        "groupvit-gcc-redcap": 0.508,
        **{name: voc for name, (voc, _) in SUPERVISED.items()},
    }

    def photos(self) -> PhotoSet[LabelSample]:
        return voc21(existing(self.root), self.split)


@dataclass(frozen=True)
class ContextMaps(BackgroundMaps):
    """PASCAL-Context: background and 59 classes."""

    NAME: ClassVar[str] = "context-maps"
    TITLE: ClassVar[str] = "PASCAL-Context, label maps: 59 classes named zero-shot, and background (GroupViT)"
    DATA: ClassVar[str] = "VOCdevkit/VOC2010: JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext"
    PUBLISHED: ClassVar[Mapping[str, float]] = {
        "groupvit-gcc-yfcc": 0.224,
        "groupvit-gcc-redcap": 0.237,
        **{name: context for name, (_, context) in SUPERVISED.items()},
    }

    background: float = 0.35

    def photos(self) -> PhotoSet[LabelSample]:
        return context60(existing(self.root), self.split)


@dataclass(frozen=True)
class CocoObjectMaps(BackgroundMaps):
    """COCO: background and 80 objects."""

    NAME: ClassVar[str] = "coco-object-maps"
    TITLE: ClassVar[str] = "COCO, label maps: 80 objects named zero-shot, and background (GroupViT)"
    DATA: ClassVar[str] = "COCO: images/val2017, and annotations/val2017 with the pixel maps of COCO-Stuff"
    PUBLISHED: ClassVar[Mapping[str, float]] = {"groupvit-gcc-yfcc": 0.243, "groupvit-gcc-redcap": 0.275}

    split: str = "val2017"

    def photos(self) -> PhotoSet[LabelSample]:
        return coco_objects(existing(self.root), self.split)


class MapsPart(Part):
    """The photos of a protocol, pixel by pixel."""

    def __init__(self, protocol: LabelMaps, name: str = "maps") -> None:
        self.name, self.protocol, self.photos = name, protocol, protocol.photos()
        self.names = protocol.counted(self.photos.classes)

    @property
    def keys(self) -> Sequence[str]:
        return [photo.id for photo in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"classes": MaskIoU(self.protocol.ABSENT)}  # a photo has few classes; a matrix of 847 each would fill the memory

    def figures(self, metrics: Metrics) -> Figures:
        return {"mIoU of its classes": metrics["classes"].compute().mean, "pixel accuracy": accuracies(metrics["classes"])[0]}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        sample = self.photos[index]
        image, target = sample.image(), sample.labels()
        answer = self.protocol.answer(segmenter, image, self.photos.classes)
        metrics, known = self.metrics(), target != IGNORE
        for place in np.union1d(answer[known], target[known]).tolist():
            if place >= 0:
                metrics["classes"].update(self.names[place], answer == place, target == place, known)

        def picture() -> Picture:
            return Picture(image, *({self.names[place]: one == place for place in self._painted(one)} for one in (answer, target)))

        return Counted(metrics, picture)

    def _painted(self, labels: NDArray[np.integer[Any]]) -> list[int]:
        return [place for place in np.unique(labels).tolist() if place >= 0 and self.names[place] != BACKGROUND]


def accuracies(metric: MaskIoU) -> tuple[float, float]:
    """Share of the labelled pixels that are hit: of all, and the mean of the labelled classes' own; NaN without any."""
    hits, _, missed, _ = np.array(list(metric.counts.values()), dtype=np.int64).reshape(-1, 4).T
    labelled = hits + missed
    there = labelled > 0
    if not there.any():
        return float("nan"), float("nan")
    return float(hits.sum() / labelled.sum()), float(np.mean(hits[there] / labelled[there]))

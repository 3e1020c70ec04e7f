"""Generalised zero-shot segmentation of Pascal VOC: all 21 classes compete, some of them unseen in training (CLIPSeg, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ..data.pascal import pascal_zero_shot, zero_shot
from ..data.samples import IGNORE, LabelSample, PhotoSet
from ..data.tensors import labelled
from ..data.vocabularies import names
from ..metrics import SemanticIoU, ZeroShotIoU
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .squares import photo_of, probabilities, texts
from .sweeps import checked_window
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["PascalZeroShot", "competing"]

CLASSES = names("voc21-clipseg")
START = -10.0  # of every class's score; it is lost in the comparison but for rounding, and therefore kept
PUBLISHED = {  # mIoU of seen and of unseen classes, as the paper's columns name them
    10: {"CLIPSeg (PC+)": (0.357, 0.431), "CLIP-Deconv (PC+)": (0.251, 0.367), "ViTSeg (PC+)": (0.042, 0.190)},
    4: {"CLIPSeg (PC+)": (0.208, 0.473), "CLIP-Deconv (PC+)": (0.259, 0.419), "ViTSeg (PC+)": (0.060, 0.248)},
}


def competing(scores: Tensor, background: float) -> Tensor:
    """Probabilities (21, S, S) -> the winning class (S, S): -10 + probability, the first class's ("background") times ``background``.

    The first of equals wins. This is `CLIPSegMultiLabel` of the published code.
    """
    weights = scores.new_ones(len(scores), 1, 1)
    weights[0] = background
    return (START + scores * weights).argmax(0)


@dataclass(frozen=True)
class PascalZeroShot(Protocol):
    """``unseen``: how many classes, 2, 4, 5, 6, 8 or 10. ``background``: weight of the class "background", 3 in the published code only.

    Figures are named for what they are. The published script hands (unseen, seen) to an evaluator that takes (seen, unseen), so what it
    prints as "seen" is the mean of the unseen classes; whether the paper's columns were swapped back is not known.
    """

    NAME: ClassVar[str] = "pascal-zero-shot"
    TITLE: ClassVar[str] = "Pascal VOC, generalised zero-shot: 21 classes compete, unseen ones among them (CLIPSeg)"
    DATA: ClassVar[str] = "pascal-zero-shot: promptseg data list pascal-zero-shot"

    unseen: int = 10
    background: float = 3.0
    split: str = "val"
    size: int = 352

    def __post_init__(self) -> None:
        zero_shot(self.unseen)
        checked_window(self.size)

    def parts(self) -> tuple[Part, ...]:
        return (_Maps(pascal_zero_shot(existing(self.root), self.split), self),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        result = counted["VOC"]["classes"].compute()
        figures = {"seen": result.seen, "unseen": result.unseen, "harmonic mean": result.harmonic, "all": result.overall}
        return tuple(Row(f"mIoU, {name}", value) for name, value in figures.items())

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        return {"IoU": counted["VOC"]["classes"].compute().iou}

    def published(self) -> Mapping[str, Figures]:
        found = PUBLISHED.get(self.unseen, {})
        return {model: {"mIoU, seen": seen, "mIoU, unseen": unseen} for model, (seen, unseen) in found.items()}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        rules = {
            "template": "{}",
            "photo and labels": "stretched; bilinear, nearest",
            "post-processing": "argmax of -10 + probability, no threshold",
            "published columns": "as in the paper; its script prints seen and unseen swapped",
        }
        return {**super().constants(segmenter), **rules}


class _Maps(Part):
    name = "VOC"

    def __init__(self, photos: PhotoSet[LabelSample], protocol: PascalZeroShot) -> None:
        self.photos, self.protocol = photos, protocol
        self.unseen = tuple(CLASSES[index] for index in zero_shot(protocol.unseen).unseen)

    @property
    def keys(self) -> Sequence[str]:
        return [photo.id for photo in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"classes": ZeroShotIoU(CLASSES, ignore=IGNORE, unseen=self.unseen), "photos": SemanticIoU(CLASSES, ignore=IGNORE)}

    def figures(self, metrics: Metrics) -> Figures:
        """Of a photo: over the classes that it shows or was said to show; the rule of the whole set would count all others 0."""
        result = metrics["photos"].compute()
        return {"mIoU of its classes": result.image_mean_iou, "pixel accuracy": result.pixel_accuracy}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        image, labels = labelled(self.photos[index], self.protocol.size)
        answer = competing(probabilities(segmenter, image, texts(segmenter, CLASSES)), self.protocol.background).numpy()
        target, metrics = labels.numpy(), self.metrics()
        for metric in metrics.values():
            metric.update(answer, target)

        def picture() -> Picture:
            maps = [
                {name: one == place for place, name in enumerate(CLASSES) if place and (one == place).any()} for one in (answer, target)
            ]
            return Picture(photo_of(image), *maps)

        return Counted(metrics, picture)

"""Single things of whole photos: COCO's average precision of boxes and of masks, for models that know the classes of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..contracts import Task, probability
from ..data.coco import SPLITS, coco_instances
from ..data.samples import one_of
from ..metrics import BoxAP, Found, Labelled, MaskAP
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["CocoDetection"]

PUBLISHED = {"box AP": "coco/box-AP", "mask AP": "coco/mask-AP"}


@dataclass(frozen=True)
class CocoDetection(Protocol):
    """COCO's 80 things, by pycocotools. The masks of a detector that has none are its boxes, filled, and are counted as such.

    ``threshold``: score that an object must reach to be counted at all, by default what mmdetection keeps.
    """

    NAME: ClassVar[str] = "coco-detection"
    TITLE: ClassVar[str] = "COCO: AP of boxes and of masks, 80 things (DenseCLIP)"
    DATA: ClassVar[str] = "coco-instances"
    TASK: ClassVar[Task] = "instances"

    split: str = "val2017"
    threshold: float = 0.05

    def __post_init__(self) -> None:
        one_of(self.split, SPLITS, "split of COCO")
        probability("threshold", self.threshold)

    def parts(self) -> tuple[Part, ...]:
        return (_Photos(self),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        rows = []
        for kind, metric in (("box", "boxes"), ("mask", "masks")):
            found = counted["photos"][metric].compute()
            rows += [Row(f"{kind} AP", found.ap), Row(f"{kind} AP50", found.ap50), Row(f"{kind} AP75", found.ap75)]
            rows += [Row(f"{kind} AP, {area}", value) for area, value in found.by_area.items()]
        return tuple(rows)

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        metrics = counted["photos"]
        return {f"{kind} AP": metrics[metric].compute().per_class for kind, metric in (("box", "boxes"), ("mask", "masks"))}

    def published(self) -> Mapping[str, Figures]:
        from .. import zoo

        known = {card.name: {row: card.metrics[key] for row, key in PUBLISHED.items() if key in card.metrics} for card in zoo.cards()}
        return {name: figures for name, figures in known.items() if figures}


class _Photos(Part):
    name = "photos"

    def __init__(self, protocol: CocoDetection) -> None:
        self.threshold = protocol.threshold
        self.photos = coco_instances(existing(protocol.root), protocol.split)

    @property
    def keys(self) -> Sequence[str]:
        return [sample.id for sample in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"boxes": BoxAP(self.photos.classes), "masks": MaskAP(self.photos.classes)}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        sample, metrics = self.photos[index], self.metrics()
        image, regions = sample.image(), sample.regions()
        things = segmenter.instances(image, self.photos.classes, threshold=self.threshold)
        columns = zip(things, things.labels, things.boxes.tolist(), strict=True)
        found = [
            Found({"size": mask.size, "counts": mask.runs.to_string()}, label, mask.score, box=(box[0], box[1], box[2], box[3]))
            for mask, label, box in columns
        ]
        truth = [Labelled(one.mask, one.name, one.crowd, float(one.mask.sum()), one.box) for one in regions]
        for metric in metrics.values():
            metric.update(sample.id, found, truth)

        def picture() -> Picture:
            sure = [(mask, label) for mask, label in zip(things, things.labels, strict=True) if mask.present]
            return Picture(
                image,
                {f"{label} {place}": mask.mask for place, (mask, label) in enumerate(sure, 1)},
                {f"{one.name} {place}": one.mask for place, one in enumerate(regions, 1)},
            )

        return Counted(metrics, picture)

    def figures(self, metrics: Metrics) -> Figures:
        return {f"{kind} AP": metrics[metric].compute().ap for kind, metric in (("box", "boxes"), ("mask", "masks"))}

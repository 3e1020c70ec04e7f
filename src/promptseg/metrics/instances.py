"""Average precision of instances, their masks or their boxes, by COCO's own evaluator (pycocotools)."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError
from ..rle import Rle
from .accumulator import Accumulator
from .arrays import Name, as_mask, in_order

MaskLike: TypeAlias = ArrayLike | Mapping[str, Any]  # an array (H, W), or COCO's {"size": [H, W], "counts": text}
Corners: TypeAlias = tuple[float, float, float, float]
AREAS = ("all", "small", "medium", "large")  # of pycocotools: below 32 x 32 pixels, below 96 x 96, above


@dataclass(frozen=True, slots=True)
class Found:
    """An instance that a model found; ``score`` orders them, larger first. ``box``: x0, y0, x1, y1 in pixels, for `BoxAP`."""

    mask: MaskLike
    category: Name
    score: float
    box: Corners | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A true instance. A ``crowd`` is neither hit nor missed, and excuses what lies on it. ``area``: pixels, by default the mask's own.

    ``box``: as of `Found`, by default the mask's own.
    """

    mask: MaskLike
    category: Name
    crowd: bool = False
    area: float | None = None
    box: Corners | None = None


@dataclass(frozen=True, slots=True)
class MaskAPResult:
    """Average precision and recall, 0..1, over the IoU thresholds 0.5 to 0.95; NaN where no instance is labelled.

    ``recall``: by the number of detections per photo that count; everything else is at the largest of these. ``per_class``: AP.
    ``absent`` says what a class does that is never labelled: it is left out.
    """

    ap: float
    ap50: float
    ap75: float
    by_area: Mapping[str, float]
    recall: Mapping[int, float]
    recall_by_area: Mapping[str, float]
    per_class: Mapping[Name, float]
    absent: str = "labelled"


@dataclass
class MaskAP(Accumulator[MaskAPResult]):
    """COCO mask AP. Masks are kept as run lengths; the matching is done by pycocotools when it is computed.

    ``categories``: names or numbers, as found and labelled instances use them. ``limits``: detections per photo and category that count.
    """

    KIND: ClassVar[str] = "segm"

    categories: tuple[Name, ...]
    limits: tuple[int, ...] = (1, 10, 100)
    images: dict[Name, tuple[list[Any], list[Any]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.categories, self.limits = tuple(self.categories), tuple(self.limits)
        if not self.limits or list(self.limits) != sorted(set(self.limits)) or self.limits[0] < 1:
            raise ConfigError(f"limits={self.limits} do not rise from at least 1; COCO's are (1, 10, 100).")

    def update(self, image: Name, found: Iterable[Found], labelled: Iterable[Labelled]) -> Self:
        """Everything found and labelled in one photo.

        Raises:
            DataError: the photo was already counted, a category is unknown, or masks of one photo differ in size.
        """
        if image in self.images:
            raise DataError(f"Photo {image!r} was already counted; give everything that is found in it at once.")
        ours: list[list[Any]] = [[self._category(one.category), float(one.score), *self._shape(one)] for one in found]
        truth: list[list[Any]] = [[self._category(one.category), one.crowd, one.area, *self._shape(one)] for one in labelled]
        sizes = {tuple(record[-2]) for record in (*ours, *truth)}
        if len(sizes) > 1:
            raise DataError(f"The masks of photo {image!r} have the sizes {sorted(sizes)}; all must have the photo's size.")
        self.images[image] = (ours, truth)
        return self

    def _shape(self, one: Found | Labelled) -> list[Any]:
        """Of an instance: the photo's size, and its own shape as plain values."""
        return _runs(one.mask)

    def _region(self, size: list[int], shape: Any) -> tuple[float, dict[str, Any]]:
        """The shape's area, and the fields in which pycocotools expects it."""
        area = Rle.from_string(shape, (size[0], size[1])).area
        return area, {"segmentation": {"size": size, "counts": shape}}

    def _category(self, category: Name) -> int:
        if category not in self.categories:
            raise DataError(f"{category!r} is none of the {len(self.categories)} categories of this MaskAP.")
        return self.categories.index(category)

    def compute(self) -> MaskAPResult:
        """Runs the evaluator over all photos; NaN before any update.

        Raises:
            ImportError: pycocotools is not installed (``pip install 'promptseg[eval]'``).
        """
        precision, recall = self._evaluated()
        whole = [_mean(precision[..., place, -1]) for place in range(len(AREAS))]
        return MaskAPResult(
            ap=whole[0],
            ap50=_mean(precision[0, ..., 0, -1]),
            ap75=_mean(precision[5, ..., 0, -1]),
            by_area=dict(zip(AREAS[1:], whole[1:], strict=True)),
            recall={limit: _mean(recall[..., 0, place]) for place, limit in enumerate(self.limits)},
            recall_by_area={area: _mean(recall[..., place, -1]) for place, area in enumerate(AREAS) if place},
            per_class={category: _mean(precision[:, :, place, 0, -1]) for place, category in enumerate(self.categories)},
        )

    def _evaluated(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (IoU thresholds, recalls, categories, areas, limits) and recall (without the second), -1 where undefined."""
        try:
            from pycocotools.cocoeval import COCOeval
        except ImportError as error:
            raise ImportError("COCO's mask AP needs pycocotools: pip install 'promptseg[eval]'") from error
        if not self.images:
            shape = (10, 101, len(self.categories), len(AREAS), len(self.limits))
            return np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(self._dataset(truth=True), self._dataset(truth=False), self.KIND)
            evaluator.params.maxDets = list(self.limits)
            evaluator.evaluate()
            evaluator.accumulate()
        return evaluator.eval["precision"], evaluator.eval["recall"]

    def _dataset(self, *, truth: bool) -> Any:
        """All photos in order, so that equal scores are ranked the same however the parts were merged; ids count from 1."""
        from pycocotools.coco import COCO

        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, image in enumerate(in_order(self.images), 1):
            size = [0, 0]
            for category, *facts, size, shape in self.images[image][int(truth)]:
                area, region = self._region(size, shape)
                extra = {"iscrowd": int(facts[0]), "area": area if facts[1] is None else facts[1]} if truth else {"score": facts[0]}
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": category, "area": area, "iscrowd": 0} | region | extra
                )
            images.append({"id": number, "height": size[0], "width": size[1]})
        data = COCO()
        data.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": place} for place in range(len(self.categories))],
        }
        data.createIndex()
        return data


@dataclass
class BoxAP(MaskAP):
    """COCO box AP: the same with boxes in place of masks."""

    KIND: ClassVar[str] = "bbox"

    def _shape(self, one: Found | Labelled) -> list[Any]:
        size, counts = _runs(one.mask)
        box = one.box or Rle.from_string(counts, (size[0], size[1])).box or (0, 0, 0, 0)
        return [size, [float(value) for value in box]]

    def _region(self, size: list[int], shape: Any) -> tuple[float, dict[str, Any]]:
        x0, y0, x1, y1 = shape
        return (x1 - x0) * (y1 - y0), {"bbox": [x0, y0, x1 - x0, y1 - y0]}


def _runs(mask: MaskLike) -> list[Any]:
    """Size and compressed run lengths, whichever form the mask has."""
    if isinstance(mask, Mapping):
        counts = mask["counts"]
        return [[int(side) for side in mask["size"]], counts.decode("ascii") if isinstance(counts, bytes) else counts]
    rle = Rle.encode(as_mask(mask, "instance's mask"))
    return [list(rle.size), rle.to_string()]


def _mean(values: NDArray[np.float64]) -> float:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else math.nan

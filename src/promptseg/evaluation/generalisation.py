"""Phrases about use, ability and parts: "sit on", "can fly", "has wheels" on photos of LVIS (CLIPSeg, section 5.4 and supplement).

The published LVIS module and its configuration were never released: which photos and instances were scored is not known. Here every photo
of the split counts that shows a category of a phrase's list, and the instances of all these categories together are the target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.lvis import asked_by_use, lvis_photos, lvis_table
from ..data.samples import RegionSample
from ..data.tensors import normalised, resize_image, resize_mask
from ..data.vocabularies import table as vocabulary
from ..errors import DataError
from ..metrics import ThresholdSweep
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .squares import photo_of, probabilities, texts
from .sweeps import checked_window
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Generalisation"]

GROUPS: Mapping[str, tuple[str, ...]] = {name: tuple(phrases) for name, phrases in vocabulary("lvis-generalisation")["groups"].items()}
PUBLISHED = {  # mIoU (by the authors' notebook the best IoU_FG) and AP of affordances, attributes, meronymy
    "CLIPSeg (PC+)": (0.369, 0.505, 0.266, 0.430, 0.257, 0.290),
    "CLIP-Deconv (PC+)": (0.322, 0.437, 0.231, 0.356, 0.211, 0.271),
    "ViTSeg (PC+)": (0.192, 0.235, 0.268, 0.280, 0.184, 0.159),
    "CLIPSeg (LVIS)": (0.377, 0.446, 0.184, 0.166, 0.189, 0.138),
}


@dataclass(frozen=True)
class Generalisation(Protocol):
    """``split``: of LVIS. ``size``: side of the square to which photos are stretched."""

    NAME: ClassVar[str] = "generalisation"
    TITLE: ClassVar[str] = "LVIS things asked by their use, ability or parts: 'sit on', 'can fly', 'has wheels' (CLIPSeg)"
    DATA: ClassVar[str] = "lvis: promptseg data list lvis"

    split: str = "val"
    size: int = 352

    def __post_init__(self) -> None:
        checked_window(self.size)

    def parts(self) -> tuple[Part, ...]:
        root = existing(self.root)
        table, wanted = lvis_table(root, self.split), asked_by_use()
        photos = lvis_photos(root, table)
        shown = [{_plain(table.names[one["category_id"]]) for one in table.annotations[image["id"]]} for image in table.images]
        parts = []
        for group, phrases in GROUPS.items():
            cases = [
                _Case(photo, asked)
                for photo, names in zip(photos, shown, strict=True)
                if (asked := tuple(phrase for phrase in phrases if names & set(wanted[phrase])))
            ]
            parts.append(_Group(group, cases, self.size))
        if not any(part.cases for part in parts):
            raise DataError(f"None of the {len(photos)} photos of {table.file} shows a category that the test asks for.")
        return tuple(part for part in parts if part.cases)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        figures = {group: _figures(metrics) for group, metrics in counted.items()}
        return tuple(Row(f"{group}: {name}", value) for group, values in figures.items() for name, value in values.items())

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        values: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for metrics in counted.values():
            for phrase, counts in metrics["sweep"].counts.items():
                alone = ThresholdSweep()
                alone.counts[phrase] = counts
                for name, value in _figures({"sweep": alone}).items():
                    values[name][phrase] = value
        return values

    def published(self) -> Mapping[str, Figures]:
        names = [f"{group}: {figure}" for group in GROUPS for figure in ("IoU_FG at its best threshold", "AP")]
        return {model: dict(zip(names, values, strict=True)) for model, values in PUBLISHED.items()}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        rules = {"template": "{}", "photo": "stretched, bilinear", "photos": "every one that shows a listed category"}
        rules |= {"published models": "trained without the words of these phrases"}
        return {**super().constants(segmenter), **rules, "published mIoU": "best IoU_FG, as the authors' notebook prints"}


@dataclass(frozen=True, slots=True)
class _Case:
    """A photo and the phrases that some of its things answer."""

    photo: RegionSample
    phrases: tuple[str, ...]

    def targets(self) -> dict[str, NDArray[np.bool_]]:
        """(H, W) bool per phrase: all things of its categories."""
        masks, _ = self.photo.masks()
        wanted = asked_by_use()
        return {phrase: np.any([mask for name, mask in masks.items() if _plain(name) in wanted[phrase]], axis=0) for phrase in self.phrases}


class _Group(Part):
    def __init__(self, name: str, cases: Sequence[_Case], size: int) -> None:
        self.name, self.cases, self.size = name, cases, size

    @property
    def keys(self) -> Sequence[str]:
        return [case.photo.id for case in self.cases]

    def metrics(self) -> dict[str, Any]:
        return {"sweep": ThresholdSweep()}

    def figures(self, metrics: Metrics) -> Figures:
        return _figures(metrics)

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        case, metrics, square = self.cases[index], self.metrics(), (self.size, self.size)
        image = normalised(resize_image(case.photo.image(), square))
        targets = {phrase: resize_mask(mask, square).numpy() > 0 for phrase, mask in case.targets().items()}
        scores = dict(zip(targets, probabilities(segmenter, image, texts(segmenter, list(targets))).numpy(), strict=True))
        for phrase, target in targets.items():
            metrics["sweep"].update(phrase, scores[phrase], target)
        cut = metrics["sweep"].compute().best("foreground").threshold
        return Counted(metrics, lambda: Picture(photo_of(image), {phrase: one > cut for phrase, one in scores.items()}, targets))


def _figures(metrics: Metrics) -> dict[str, float]:
    result = metrics["sweep"].compute()
    return {
        "IoU_FG at its best threshold": result.best("foreground").foreground,
        "AP": result.average_precision,
        "mIoU of phrases at its best threshold": result.best("mean").mean,
    }


def _plain(name: str) -> str:
    """LVIS's name without the note that tells its senses apart: "car (automobile)" -> "car"."""
    return name.partition(" (")[0]

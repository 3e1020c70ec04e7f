"""One-shot segmentation of held-out classes: Pascal-5i and COCO-20i (CLIPSeg, section 5.3), four folds, figures averaged over them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch.nn.functional as F

from ..contracts import PromptKind
from ..data import coco20i, pascal5i
from ..data.items import PromptData, PromptSample
from ..data.pascal import CLASSES
from ..errors import ConfigError
from ..metrics import SweepResult, ThresholdSweep
from ..metrics.arrays import mean
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .squares import examples, photo_of, probabilities, texts
from .sweeps import Show, at, checked_threshold, checked_window, summary
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Coco20i", "Pascal5i", "Pascal5iText"]

FIGURES = ("mIoU", "IoU_BIN")
ELSEWHERE = "mIoU at the other folds' best threshold"


@dataclass(frozen=True)
class _OneShot(Protocol):
    """``folds``: which of the four; published models are one per fold, so give four models, or one model and its fold. ``shift`` is added
    to the logits. ``technique``: how the example is shown; None: the model's standard. ``seed``: of the episodes."""

    PROMPTS: ClassVar[tuple[PromptKind, ...]] = ("exemplar",)

    folds: tuple[int, ...] = (0, 1, 2, 3)
    threshold: float = 0.3
    shift: float = 0.0
    technique: str | None = None
    size: int = 352
    seed: int = 0

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)
        checked_window(self.size)
        if not self.folds or len(set(self.folds)) < len(self.folds) or not set(self.folds) <= set(range(4)):
            raise ConfigError(f"folds are some of 0, 1, 2, 3, each once, not {self.folds}.")

    @property
    def show(self) -> Show:
        """Whether an example or the class's name is given."""
        return "visual" if "exemplar" in self.PROMPTS else "text"

    @abstractmethod
    def data(self, fold: int) -> PromptData:
        """The episodes of a fold."""

    @abstractmethod
    def names(self, fold: int) -> Sequence[str]:
        """The classes of a fold, by an episode's ``group``."""

    def parts(self) -> tuple[Part, ...]:
        existing(self.root)
        return tuple(_Fold(fold, self.data(fold), self.names(fold), self) for fold in self.folds)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        results = [metrics["sweep"].compute() for metrics in counted.values()]
        per_fold = [summary(result, self.threshold, FIGURES) for result in results]
        averaged = {name: mean(figures[name] for figures in per_fold) for name in per_fold[0]}
        if len(results) > 1:
            averaged[ELSEWHERE] = mean(at(result, _best_elsewhere(results, place)).mean for place, result in enumerate(results))
        return tuple(Row(name, value) for name, value in averaged.items())

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        values: dict[str, float] = {}
        for fold, metrics in zip(self.folds, counted.values(), strict=True):
            names, sweep = self.names(fold), metrics["sweep"]
            for group in sweep.names():
                alone = ThresholdSweep()
                alone.counts[group] = sweep.counts[group]
                values[names[int(group)]] = at(alone.compute(), self.threshold).mean
        return {"IoU": values}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        return {**super().constants(segmenter), "asked by": self.show, "folds are": "averaged"}


def _best_elsewhere(results: Sequence[SweepResult], place: int) -> float:
    """The threshold at which IoU_FG is best on average over all folds but one: the published rule 'auto'."""
    others = np.mean([result.foreground for index, result in enumerate(results) if index != place], axis=0)
    return float(results[place].thresholds[int(np.argmax(others))])


@dataclass(frozen=True)
class Pascal5i(_OneShot):
    """Pascal-5i by one example."""

    NAME: ClassVar[str] = "pascal5i"
    TITLE: ClassVar[str] = "Pascal-5i: held-out classes of VOC, shown by one example (CLIPSeg); --per-part with four models"
    DATA: ClassVar[str] = "pascal5i: promptseg data list pascal5i"

    def data(self, fold: int) -> PromptData:
        photos = pascal5i.pascal5i(existing(self.root))
        return pascal5i.Pascal5i(photos, fold, image_size=self.size, seed=self.seed)

    def names(self, fold: int) -> Sequence[str]:
        return [CLASSES[index] for index in pascal5i.fold_classes(fold)]

    def published(self) -> Mapping[str, Figures]:
        columns = {
            "CLIPSeg (PC+), t .3": (0.595, 0.750, 0.823),
            "CLIPSeg (PC), t .3": (0.523, 0.695, 0.724),
            "CLIP-Deconv (PC+), t .2": (0.480, 0.658, 0.680),
            "ViTSeg (PC+), t .2": (0.390, 0.590, 0.624),  # the paper's own figures come from text, as those of the text row show
        }
        return {model: dict(zip((*FIGURES, "AP"), values, strict=True)) for model, values in columns.items()}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        square = "shrunk to fit, top left on black; scored at the photo's size in a square of its longer side"
        return {**super().constants(segmenter), "photo": square, "template": pascal5i.TEMPLATE if self.show == "text" else None}


@dataclass(frozen=True)
class Pascal5iText(Pascal5i):
    """Pascal-5i by the class's name."""

    NAME: ClassVar[str] = "pascal5i-text"
    TITLE: ClassVar[str] = "Pascal-5i: the same classes by their names, 'a photo of a NAME.' (CLIPSeg)"
    PROMPTS: ClassVar[tuple[PromptKind, ...]] = ("text",)

    def published(self) -> Mapping[str, Figures]:
        columns = {
            "CLIPSeg (PC+), t .3": (0.724, 0.831, 0.935),
            "CLIPSeg (PC), t .3": (0.703, 0.816, 0.848),
            "CLIP-Deconv (PC+), t .3": (0.632, 0.773, 0.853),
            "ViTSeg (PC+), t .2": (0.390, 0.590, 0.624),
        }
        return {model: dict(zip((*FIGURES, "AP"), values, strict=True)) for model, values in columns.items()}


@dataclass(frozen=True)
class Coco20i(_OneShot):
    """COCO-20i by one example."""

    NAME: ClassVar[str] = "coco20i"
    TITLE: ClassVar[str] = "COCO-20i: held-out classes of COCO, shown by one example, 1,000 episodes a fold (CLIPSeg)"
    DATA: ClassVar[str] = "coco20i: promptseg data list coco20i"

    threshold: float = 0.1

    def data(self, fold: int) -> PromptData:
        return coco20i.Coco20i(existing(self.root), fold, image_size=self.size, seed=self.seed)

    def names(self, fold: int) -> Sequence[str]:
        return [coco20i.CLASSES[index] for index in coco20i.fold_classes(fold)]

    def published(self) -> Mapping[str, Figures]:
        columns = {
            "CLIPSeg (COCO), t .1": (0.332, 0.584, 0.405),
            "CLIPSeg (COCO+N), t .1": (0.333, 0.591, 0.417),
            "CLIP-Deconv (COCO+N), t .1": (0.298, 0.568, 0.408),
            "ViTSeg (COCO), t .1": (0.144, 0.461, 0.157),
        }
        return {model: dict(zip((*FIGURES, "AP"), values, strict=True)) for model, values in columns.items()}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        return {
            **super().constants(segmenter),
            "photo": "stretched, bilinear, antialiased; scored at that size",
            "episodes": coco20i.EPISODES,
        }


class _Fold(Part):
    """The episodes of one fold."""

    def __init__(self, fold: int, data: PromptData, names: Sequence[str], protocol: _OneShot) -> None:
        self.name, self.data, self.names, self.protocol = f"fold {fold}", data, names, protocol
        self._keys = [f"episode {index}" for index in range(len(data))]

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    def metrics(self) -> dict[str, Any]:
        return {"sweep": ThresholdSweep()}

    def figures(self, metrics: Metrics) -> Figures:
        return summary(metrics["sweep"].compute(), self.protocol.threshold, FIGURES)

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        sample, metrics = self.data[index], self.metrics()
        found = probabilities(segmenter, sample.image, self._asked(sample, segmenter), self.protocol.shift)[None]
        if found.shape[-2:] != sample.target.shape[-2:]:
            found = F.interpolate(found, sample.target.shape[-2:], mode="bilinear", align_corners=True)  # probabilities, not logits
        scores, target = found[0, 0].numpy(), sample.target[0].numpy() > 0
        known = None if sample.valid is None else sample.valid[0].numpy() > 0
        metrics["sweep"].update(sample.group, scores, target, known)
        return Counted(metrics, lambda: self._picture(sample, scores, target))

    def _asked(self, sample: PromptSample, segmenter: Segmenter) -> Any:
        if self.protocol.show == "text":
            return texts(segmenter, [sample.prompt])
        return examples(segmenter, [sample.support], self.protocol.technique)

    def _picture(self, sample: PromptSample, scores: Any, target: Any) -> Picture:
        photo, name = photo_of(sample.image), self.names[sample.group]
        return Picture(photo, {name: scores > self.protocol.threshold}, {name: target})

"""PhraseCut: one mask per phrase (CLIPSeg, sections 5.1 and 5.4), asked by the phrase or by an example, and the ablation table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..data.items import PromptSample
from ..data.phrasecut import PhraseCut, phrases
from ..errors import ConfigError
from ..metrics import ThresholdSweep
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .squares import examples, photo_of, probabilities, texts
from .sweeps import Show, checked_threshold, checked_window, summary
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Ablation", "Referring", "ReferringVisual"]

PUBLISHED = {  # CLIPSeg, table 1; each at the threshold that the paper names
    "CLIPSeg (PC+), t .3": (0.434, 0.547, 0.767),
    "CLIPSeg (PC, D=128), t .3": (0.482, 0.565, 0.782),
    "CLIPSeg (PC), t .3": (0.461, 0.562, 0.782),
    "CLIP-Deconv, t .3": (0.377, 0.495, 0.712),
    "ViTSeg (PC+), t .1": (0.284, 0.354, 0.583),
    "ViTSeg (PC), t .3": (0.389, 0.512, 0.744),
}
ABLATION = {  # text mIoU and AP, visual mIoU and AP, each mIoU at its best threshold
    "CLIPSeg (PC+)": (0.436, 0.767, 0.254, 0.556),
    "no CLIP pre-training": (0.131, 0.126, 0.127),
    "no visual prompts": (0.464, 0.778, 0.144, 0.310),
    "D=16": (0.374, 0.715, 0.247, 0.512),
    "only layer 3": (0.319, 0.649, 0.215, 0.486),
    "highlight mask": (0.434, 0.754, 0.233, 0.438),
}
BEST = "mIoU at its best threshold"


@dataclass(frozen=True)
class _PhraseCut(Protocol):
    """``split``: "test" as published. ``technique``: how examples are shown; None: the model's standard. ``size``: side of the square to
    which photos are stretched. ``seed``: of the examples that are drawn."""

    DATA: ClassVar[str] = "phrasecut: promptseg data list phrasecut"

    split: str = "test"
    size: int = 352
    threshold: float = 0.3
    technique: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)
        checked_window(self.size)

    def _part(self, show: Show) -> Part:
        found = phrases(existing(self.root), self.split)
        if not found:
            raise ConfigError(f"The split {self.split!r} of PhraseCut has no phrases.")
        visual = show == "visual"
        return _Phrases(PhraseCut(found, image_size=self.size, crop=False, with_support=visual, shuffle=False, seed=self.seed), show, self)

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        rules = {"template": "{}", "class of mIoU": "each phrase of each photo", "photo": "stretched, bilinear, align_corners True"}
        rules |= {"phrase without an example": "a blank picture"} if "exemplar" in self.PROMPTS else {}
        return {**super().constants(segmenter), **rules}


@dataclass(frozen=True)
class Referring(_PhraseCut):
    """PhraseCut by its phrases."""

    NAME: ClassVar[str] = "phrasecut"
    TITLE: ClassVar[str] = "PhraseCut: a mask per phrase, asked by the bare phrase (CLIPSeg, table 1)"

    def parts(self) -> tuple[Part, ...]:
        return (self._part("text"),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        return tuple(Row(name, value) for name, value in _figures(counted["text"], self.threshold).items())

    def published(self) -> Mapping[str, Figures]:
        return {model: dict(zip(("mIoU", "IoU_FG", "AP"), values, strict=True)) for model, values in PUBLISHED.items()}


@dataclass(frozen=True)
class ReferringVisual(_PhraseCut):
    """PhraseCut by examples."""

    NAME: ClassVar[str] = "phrasecut-visual"
    TITLE: ClassVar[str] = "PhraseCut: the same asked by another photo of the phrase, its thing marked (CLIPSeg, ablation)"
    PROMPTS = ("exemplar",)

    def parts(self) -> tuple[Part, ...]:
        return (self._part("visual"),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        return tuple(Row(name, value) for name, value in _figures(counted["visual"], self.threshold).items())

    def published(self) -> Mapping[str, Figures]:
        return {model: dict(zip((BEST, "AP"), values[2:], strict=False)) for model, values in ABLATION.items()}


@dataclass(frozen=True)
class Ablation(_PhraseCut):
    """Both ways of asking; give several models for the paper's table."""

    NAME: ClassVar[str] = "phrasecut-ablation"
    TITLE: ClassVar[str] = "PhraseCut by phrases and by examples, a line per model (CLIPSeg, ablation table); give --model again and again"
    PROMPTS = ("text", "exemplar")

    def parts(self) -> tuple[Part, ...]:
        return self._part("text"), self._part("visual")

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        figures = {show: _figures(counted[show], self.threshold) for show in ("text", "visual")}
        return tuple(Row(f"{show}: {name}", figures[show][name]) for show in figures for name in (BEST, "AP"))

    def published(self) -> Mapping[str, Figures]:
        names = [f"{show}: {name}" for show in ("text", "visual") for name in (BEST, "AP")]
        return {model: dict(zip(names, values, strict=False)) for model, values in ABLATION.items()}


class _Phrases(Part):
    """A case is a photo with all its phrases: it is encoded once."""

    def __init__(self, data: PhraseCut, show: Show, protocol: _PhraseCut) -> None:
        self.name, self.data, self.show, self.protocol = show, data, show, protocol
        by_photo: defaultdict[int, list[int]] = defaultdict(list)
        for index, phrase in enumerate(data.phrases):
            by_photo[phrase.image].append(index)
        self.by_photo = dict(by_photo)
        self._keys = [str(image) for image in self.by_photo]

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    def metrics(self) -> dict[str, Any]:
        return {"sweep": ThresholdSweep()}

    def figures(self, metrics: Metrics) -> Figures:
        return _figures(metrics, self.protocol.threshold)

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        samples = [self.data[place] for place in self.by_photo[int(self._keys[index])]]
        found = probabilities(segmenter, samples[0].image, self._asked(samples, segmenter)).numpy()
        metrics = self.metrics()
        for sample, scores in zip(samples, found, strict=True):
            metrics["sweep"].update(sample.group, scores, sample.target[0].numpy() > 0)

        def picture() -> Picture:
            masks = {one.phrase: scores > self.protocol.threshold for one, scores in zip(samples, found, strict=True)}
            return Picture(photo_of(samples[0].image), masks, {one.phrase: one.target[0].numpy() > 0 for one in samples})

        return Counted(metrics, picture)

    def _asked(self, samples: Sequence[PromptSample], segmenter: Segmenter) -> Any:
        if self.show == "text":
            return texts(segmenter, [sample.phrase for sample in samples])
        return examples(segmenter, [sample.support for sample in samples], self.protocol.technique)


def _figures(metrics: Metrics, threshold: float) -> dict[str, float]:
    return summary(metrics["sweep"].compute(), threshold, ("mIoU", "IoU_FG"))

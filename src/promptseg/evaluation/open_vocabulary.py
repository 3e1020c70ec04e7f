"""Label maps without background, asked by long lists of names: the six benchmarks of CAT-Seg (table 1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..contracts import Options
from ..data.ade20k import ade150, ade847
from ..data.pascal import voc20, voc20b
from ..data.pascal_context import context59, context459
from ..data.samples import LabelSample, PhotoSet
from ..data.vocabularies import names, read_classes
from ..errors import ConfigError, DataError
from ..metrics import AbsentRule
from .label_maps import LabelMaps
from .protocol import Figures, existing

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Ade150", "Ade847", "Context59", "Context459", "Voc20", "Voc20b"]

OWN: Mapping[str, tuple[str, ...]] = {"catseg": ("mode", "truncate"), "denseclip": ("mode", "scales", "flip")}  # options of a family
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of mmsegmentation's published figures
MODES = ("slide", "whole")


@dataclass(frozen=True)
class OpenVocabulary(LabelMaps):
    """Every pixel gets the most probable of all names; the mean is over classes that are labelled somewhere, as detectron2 counts.

    ``mode``, ``truncate``: how CAT-Seg is asked, by default as for its published figures, which refine 256 names at most per look;
    `models.catseg.CatSegOptions` explains both. ``mode``, ``scales``, ``flip``: the same for DenseCLIP, see
    `models.denseclip.DenseClipOptions`; its published figures of several scales take `SCALES`, both ways. Other families are asked in
    their own way. ``names``: other names for the classes, in their order, as a vocabulary that ships or a text file with a class per line
    and its synonyms joined by commas: PSALM's authors ask by the files of fc-clip ("building,buildings,edifice").
    """

    ABSENT: ClassVar[AbsentRule] = "labelled"

    mode: Literal["slide", "whole"] = "slide"
    truncate: bool = True
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    names: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"mode is one of {', '.join(MODES)}, not {self.mode!r}.")

    def asked(self, classes: Sequence[str]) -> Sequence[str | Sequence[str]]:
        """The names that compete; those past the classes share the last of these."""
        return classes if self.names is None else named(self.names, len(classes))

    def answer(self, segmenter: Segmenter, image: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.integer[Any]]:
        found = segmenter.semantic(image, self.asked(classes), background=0.0, options=self._options(segmenter))
        labels: NDArray[np.integer[Any]] = np.minimum(found.labels, len(classes) - 1)
        return labels

    def published(self) -> Mapping[str, Figures]:
        from .. import zoo

        looks = self.scales, self.flip
        if looks not in (((1.0,), False), (SCALES, True)):
            return {}
        key = f"{self.NAME}/mIoU{'-multiscale' if self.flip else ''}"
        return {card.name: {"mIoU": card.metrics[key]} for card in zoo.cards() if key in card.metrics}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        known = super().constants(segmenter)
        own = OWN.get(segmenter.card.family, ())
        return {name: known[name] for name in known if name in own or name not in {one for names in OWN.values() for one in names}}

    def _options(self, segmenter: Segmenter) -> Options:
        given = {name: getattr(self, name) for name in OWN.get(segmenter.card.family, ())}
        return segmenter.options(templates=self.wordings(), **given)


def named(names: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Names with their synonyms for ``count`` classes, see `data.vocabularies.read_classes`.

    Raises:
        DataError: there are more or fewer.
    """
    found = read_classes(names)
    if len(found) != count:
        raise DataError(f"{names} names {len(found)} classes; the data has {count}. Write one line per class, in the data's order.")
    return found


@dataclass(frozen=True)
class Ade150(OpenVocabulary):
    """ADE20K with 150 classes."""

    NAME: ClassVar[str] = "ade150"
    TITLE: ClassVar[str] = "ADE20K, label maps: 150 classes (A-150)"
    DATA: ClassVar[str] = "ade150"

    split: str = "validation"

    def photos(self) -> PhotoSet[LabelSample]:
        return ade150(existing(self.root), self.split)


@dataclass(frozen=True)
class Ade847(OpenVocabulary):
    """ADE20K with 847 classes, each asked by the first of its synonyms."""

    NAME: ClassVar[str] = "ade847"
    TITLE: ClassVar[str] = "ADE20K, label maps: 847 classes (A-847)"
    DATA: ClassVar[str] = "ade847"

    split: str = "validation"

    def counted(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        return names("ade847")  # first synonyms alone are not all different: three kinds of bag

    def photos(self) -> PhotoSet[LabelSample]:
        return ade847(existing(self.root), self.split)


@dataclass(frozen=True)
class Context59(OpenVocabulary):
    """PASCAL-Context with its 59 frequent classes."""

    NAME: ClassVar[str] = "context59"
    TITLE: ClassVar[str] = "PASCAL-Context, label maps: 59 classes (PC-59)"
    DATA: ClassVar[str] = "context59"

    split: str = "validation"

    def photos(self) -> PhotoSet[LabelSample]:
        return context59(existing(self.root), self.split)


@dataclass(frozen=True)
class Context459(OpenVocabulary):
    """PASCAL-Context with all its 459 classes."""

    NAME: ClassVar[str] = "context459"
    TITLE: ClassVar[str] = "PASCAL-Context, label maps: 459 classes (PC-459)"
    DATA: ClassVar[str] = "context459"

    split: str = "validation"

    def photos(self) -> PhotoSet[LabelSample]:
        return context459(existing(self.root), self.split)


@dataclass(frozen=True)
class Voc20(OpenVocabulary):
    """Pascal VOC 2012 with 20 classes; background pixels do not count."""

    NAME: ClassVar[str] = "voc20"
    TITLE: ClassVar[str] = "Pascal VOC, label maps: 20 classes, background ignored (PAS-20)"
    DATA: ClassVar[str] = "VOCdevkit/VOC2012: JPEGImages, SegmentationClassAug or SegmentationClass, ImageSets/Segmentation"

    def photos(self) -> PhotoSet[LabelSample]:
        return voc20(existing(self.root), self.split)


@dataclass(frozen=True)
class Voc20b(Voc20):
    """Pascal VOC 2012 with 20 classes and background, which is asked by 39 names of things and stuff."""

    NAME: ClassVar[str] = "voc20b"
    TITLE: ClassVar[str] = "Pascal VOC, label maps: 20 classes and 39 names of background (PAS-20b)"

    def asked(self, classes: Sequence[str]) -> Sequence[str | Sequence[str]]:
        return names("voc20b") if self.names is None else read_classes(self.names)

    def photos(self) -> PhotoSet[LabelSample]:
        return voc20b(existing(self.root), self.split)

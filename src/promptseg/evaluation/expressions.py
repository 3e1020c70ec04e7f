"""What an expression refers to: RefCOCO, RefCOCO+ and RefCOCOg by either rule, and gRefCOCO, where it may be nothing or several things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..contracts import Task
from ..data.photosets import segmentation_mask
from ..data.samples import one_of, read_json, read_photo
from ..errors import DataError
from ..metrics import ReferringIoU
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["GRefCoco", "RefCoco", "RefCocoSentences"]

DATA_SETS = ("refcoco", "refcoco+", "refcocog")
EPSILON = 1e-5  # PSALM's evaluator adds it to every union


@dataclass(frozen=True, slots=True)
class Question:
    """One expression about one photo; ``targets``: COCO's outlines of what it refers to."""

    key: str
    photo: Path
    group: str
    expression: str
    targets: tuple[Any, ...]


@dataclass(frozen=True)
class Expressions(Protocol):
    """``split``: which file of `promptseg data prepare`; ``photos``: the folder of photos below the root."""

    TASK: ClassVar[Task] = "refer"

    split: str = "val"
    photos: str = "train2014"

    def parts(self) -> tuple[Part, ...]:
        return (_Expressions(self.questions(), self),)

    def questions(self) -> list[Question]:
        """Every question of the split."""
        root = existing(self.root)
        file = root / f"{self.split}.json"
        try:
            return [one for entry in read_json(file) for one in self.of_entry(entry, root / self.photos)]
        except (KeyError, TypeError) as error:
            raise DataError(f"{file} has no {error}; write it with `promptseg data prepare`.") from None

    def of_entry(self, entry: Mapping[str, Any], photos: Path) -> list[Question]:
        """The questions of one entry of the file: all its sentences together are one."""
        return [_question(entry, photos, "", ". ".join(sentence["sent"] for sentence in entry["instruction"]))]

    def answer(self, segmenter: Segmenter, image: NDArray[np.uint8], expression: str) -> NDArray[np.bool_]:
        """(H, W): the one best mask."""
        mask: NDArray[np.bool_] = segmenter(image, expression)[0].mask
        return mask

    def metric(self) -> ReferringIoU:
        """What counts the answers."""
        return ReferringIoU("skip", epsilon=EPSILON)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        found = counted["expressions"]["refer"].compute()
        return (Row("cIoU", found.ciou), Row("mIoU", found.giou), *(Row(f"Pr@{at:g}", share) for at, share in found.precision.items()))


@dataclass(frozen=True)
class RefCoco(Expressions):
    """As PSALM's authors count: all sentences of an object are one expression.

    ``data_set``: whose published figure stands beside ours. The truth is filled by COCO's own rule; the authors round its corners down to
    whole pixels first and count all that the outline touches.
    """

    NAME: ClassVar[str] = "refcoco"
    TITLE: ClassVar[str] = "RefCOCO, RefCOCO+, RefCOCOg: cIoU, all sentences of an object as one expression (PSALM)"
    DATA: ClassVar[str] = "SPLIT.json of `promptseg data prepare referring`, and the photos of COCO train2014"

    data_set: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco"

    def __post_init__(self) -> None:
        one_of(self.data_set, DATA_SETS, "data_set")

    def published(self) -> Mapping[str, Figures]:
        from .. import zoo

        key = f"{self.data_set}/{self.split}/cIoU"
        return {card.name: {"cIoU": card.metrics[key]} for card in zoo.cards() if key in card.metrics}


@dataclass(frozen=True)
class RefCocoSentences(Expressions):
    """As everybody else counts: every sentence by itself."""

    NAME: ClassVar[str] = "refcoco-sentences"
    TITLE: ClassVar[str] = "RefCOCO, RefCOCO+, RefCOCOg: cIoU, one sentence at a time"
    DATA: ClassVar[str] = RefCoco.DATA

    def of_entry(self, entry: Mapping[str, Any], photos: Path) -> list[Question]:
        return [_question(entry, photos, f"-{place}", sentence["sent"]) for place, sentence in enumerate(entry["instruction"])]


@dataclass(frozen=True)
class GRefCoco(Expressions):
    """Expressions for no, one or several things; an empty mask says "nothing"."""

    NAME: ClassVar[str] = "grefcoco"
    TITLE: ClassVar[str] = "gRefCOCO: cIoU, gIoU, N-acc and T-acc of expressions for no, one or several things"
    DATA: ClassVar[str] = "SPLIT.json of `promptseg data prepare generalised`, and the photos of COCO train2014"

    def answer(self, segmenter: Segmenter, image: NDArray[np.uint8], expression: str) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = segmenter.refer(image, expression)[0].mask
        return mask

    def metric(self) -> ReferringIoU:
        return ReferringIoU("gres")

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        found = counted["expressions"]["refer"].compute()
        told = (Row("N-acc", found.no_target_accuracy), Row("T-acc", found.target_accuracy))
        return (Row("cIoU", found.ciou), Row("gIoU", found.giou), *told)


def _question(entry: Mapping[str, Any], photos: Path, suffix: str, expression: str) -> Question:
    outlines = tuple(annotation["segmentation"] for annotation in entry["anns"])
    return Question(f"{entry['new_img_id']}{suffix}", photos / entry["image"], entry["image"], expression, outlines)


class _Expressions(Part):
    name = "expressions"

    def __init__(self, questions: Sequence[Question], protocol: Expressions) -> None:
        self.questions, self.protocol = questions, protocol

    @property
    def keys(self) -> Sequence[str]:
        return [question.key for question in self.questions]

    @property
    def groups(self) -> Sequence[str]:
        return [question.group for question in self.questions]

    def metrics(self) -> dict[str, Any]:
        return {"refer": self.protocol.metric()}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        question, metrics = self.questions[index], self.metrics()
        image = read_photo(question.photo)
        size = (image.shape[0], image.shape[1])
        truth = np.zeros(size, dtype=np.bool_)
        for outline in question.targets:
            truth |= segmentation_mask(outline, size)
        found = self.protocol.answer(segmenter, image, question.expression)
        metrics["refer"].update(found, truth)
        return Counted(metrics, lambda: Picture(image, {question.expression: found}, {question.expression: truth}))

    def figures(self, metrics: Metrics) -> Figures:
        return {"IoU": metrics["refer"].compute().giou}

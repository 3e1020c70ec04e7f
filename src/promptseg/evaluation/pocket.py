"""The protocol of the embedded model: binary masks of single prompts on real photographs, and the false alarms.

Every mask is taken at the card's threshold and the photo's size; unlabelled pixels are ignored. The split is that of `data.photosets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data import photosets
from ..errors import DataError
from ..metrics import MaskIoU, PairIoU, Presence
from ..prompts import Exemplar, Prompt

if TYPE_CHECKING:
    from ..segmenter import Segmenter

SMALLEST_THING = 0.01  # of the photo, for a COCO thing to be scored
EXEMPLAR_SHARE = 0.05  # of its photo that an exemplar covers at least
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of the table. ``floor`` and ``aim`` are what the project holds itself to; lower is better where ``smaller`` is set."""

    name: str
    value: float
    floor: float | None = None
    aim: float | None = None
    smaller: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether the floor is met; None where there is none."""
        if self.floor is None:
            return None
        return self.value <= self.floor if self.smaller else self.value >= self.floor


@dataclass(frozen=True, slots=True)
class Pocket:
    """``root``: a folder with coco/, coco_person/, msrc/, davis/. ``every``: take only each n-th DAVIS frame (1: all)."""

    root: Path
    every: int = 1

    def run(self, segmenter: Segmenter, progress: Progress | None = None) -> tuple[Row, ...]:
        """All figures, in the order of `docs/pocket.md`."""
        root = Path(self.root)
        if not (root / "msrc").is_dir():
            raise DataError(f"{root} holds no msrc/ folder; --data wants the folder with coco/, coco_person/, msrc/ and davis/.")
        step = progress or (lambda what, done, total: None)
        return (
            *_msrc(root, segmenter, step),
            *_coco(root, segmenter, step),
            _person(root, segmenter, step),
            _davis(root, segmenter, self.every, step),
            _one_shot(root, segmenter, step),
        )


def _validation(photos: Iterable[photosets.AnnotatedPhoto]) -> list[photosets.AnnotatedPhoto]:
    return [photo for photo in photos if photo.validation]


def _msrc(root: Path, segmenter: Segmenter, step: Progress) -> tuple[Row, ...]:
    photos = photosets.label_maps(root / "msrc", "msrc", drop=("horse",))
    names = sorted({name for photo in photos for name in (*photo.present, *photo.absent)})
    over_set, present, presence = MaskIoU(), PairIoU(), Presence()
    validation = _validation(photos)
    for done, photo in enumerate(validation):
        step("MSRC", done, len(validation))
        truth, unknown = photo.masks()
        for name, answer in zip(names, segmenter(photo.path, names), strict=True):
            mask = answer.mask
            target = truth.get(name, np.zeros_like(mask))
            over_set.update(name, mask, target, ~unknown)
            presence.update(name in truth, answer.present, (mask & ~unknown).mean())
            if name in truth:
                present.update(name, mask, target, ~unknown)
    return (
        Row("MSRC, 22 names on every photo: mIoU over the set", over_set.compute().mean, 0.76, 0.82),
        Row("MSRC, present names: mean IoU", present.compute().mean, 0.82, 0.90),
        Row("MSRC, absent names with a mask over 1 %", presence.compute().false_masks, 0.07, 0.03, smaller=True),
        Row("MSRC, presence: Matthews correlation", presence.compute().matthews),
    )


def _coco(root: Path, segmenter: Segmenter, step: Progress) -> tuple[Row, ...]:
    photos = photosets.coco(root / "coco")
    names = sorted({name for photo in photos for name in (*photo.present, *photo.absent)})
    present, presence = PairIoU(), Presence()
    validation = _validation(photos)
    for done, photo in enumerate(validation):
        step("COCO", done, len(validation))
        truth, unknown = photo.masks()
        absent = set(photo.absent)
        for name, answer in zip(names, segmenter(photo.path, names), strict=True):
            mask = answer.mask
            if name in absent:
                presence.update(False, answer.present, mask.mean())
            elif name in truth:
                presence.update(True, answer.present, mask.mean())
                if truth[name].mean() >= SMALLEST_THING:
                    present.update(name, mask, truth[name], ~unknown)
    return (
        Row("COCO, present things of at least 1 %: mean IoU", present.compute().mean, 0.36, 0.48),
        Row("COCO, absent names with a mask over 1 %", presence.compute().false_masks, 0.07, 0.03, smaller=True),
        Row("COCO, presence: Matthews correlation", presence.compute().matthews),
    )


def _person(root: Path, segmenter: Segmenter, step: Progress) -> Row:
    score = PairIoU()
    validation = _validation(photosets.people(root / "coco_person"))
    for done, photo in enumerate(validation):
        step("people", done, len(validation))
        truth, unknown = photo.masks()
        score.update("person", segmenter(photo.path, "person")[0].mask, truth["person"], ~unknown)
    return Row('coco_person, "person": mean IoU', score.compute().mean, 0.70, 0.82)


def _davis(root: Path, segmenter: Segmenter, every: int, step: Progress) -> Row:
    score = PairIoU()
    sequences = photosets.davis(root / "davis")
    for done, sequence in enumerate(sequences):
        step("DAVIS", done, len(sequences))
        for index in range(0, len(sequence.frames), every):
            mask = segmenter(sequence.frames[index], sequence.prompt)[0].mask
            score.update(sequence.name, mask, sequence.mask(index))
    # J is averaged over a sequence's frames, then over sequences (Perazzi et al. 2016)
    return Row("DAVIS from its text prompt, frame by frame: mean J", float(np.mean([*score.compute().per_class.values()])), 0.46, 0.60)


def _one_shot(root: Path, segmenter: Segmenter, step: Progress) -> Row:
    photos = photosets.label_maps(root / "msrc", "msrc", drop=("horse",))
    exemplars = exemplars_of(photos)
    score = PairIoU()
    validation = _validation(photos)
    embedded = {name: segmenter.embed_prompts([exemplar]) for name, exemplar in exemplars.items()}
    for done, photo in enumerate(validation):
        step("one-shot", done, len(validation))
        truth, unknown = photo.masks()
        for name in photo.present:
            if name in embedded:
                score.update(name, segmenter(photo.path, embedded[name])[0].mask, truth[name], ~unknown)
    return Row("MSRC, exemplar of the same class from another photo: mean IoU", score.compute().mean, 0.50, 0.65)


def exemplars_of(photos: Sequence[photosets.AnnotatedPhoto]) -> dict[str, Prompt]:
    """Per class the first training photo, by id, in which it covers at least 5 %."""
    result: dict[str, Prompt] = {}
    for photo in sorted((p for p in photos if not p.validation), key=lambda p: p.id):
        wanted = [name for name in photo.present if name not in result]
        if wanted:
            masks, _ = photo.masks()
            result |= {name: Exemplar(photo.path, masks[name]) for name in wanted if masks[name].mean() >= EXEMPLAR_SHARE}
    return result

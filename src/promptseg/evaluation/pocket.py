"""The protocol of the embedded model: binary masks of single prompts on real photographs, and the false alarms.

Every mask is taken at the card's threshold and the photo's size; unlabelled pixels are ignored. The split is that of `data.photosets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..data import photosets
from ..data.samples import read_photo
from ..errors import ConfigError, DataError
from ..metrics import MaskIoU, PairIoU, Presence
from ..prompts import Exemplar, Prompt
from .photos import all_seen, not_empty
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..embeddings import PromptEmbedding
    from ..segmenter import Segmenter

SMALLEST_THING = 0.01  # of the photo, for a COCO thing to be scored
EXEMPLAR_SHARE = 0.05  # of its photo that an exemplar covers at least
FOLDERS = ("coco", "coco_person", "msrc", "davis")

__all__ = ["Pocket", "exemplars_of"]


@dataclass(frozen=True)
class Pocket(Protocol):
    """``root``: a folder with coco/, coco_person/, msrc/, davis/. ``every``: take only each n-th DAVIS frame (1: all)."""

    NAME: ClassVar[str] = "pocket"
    TITLE: ClassVar[str] = "what the embedded model is held to: names on photos of MSRC, COCO and DAVIS, present and absent"
    DATA: ClassVar[str] = "a folder with coco/, coco_person/, msrc/ and davis/ (docs/pocket.md)"
    PROMPTS = ("text", "exemplar")

    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"every takes each n-th frame, n at least 1, not {self.every}.")

    def parts(self) -> tuple[Part, ...]:
        root = existing(self.root)
        if missing := [name for name in FOLDERS if not (root / name).is_dir()]:
            raise DataError(f"{root} holds no {missing[0]}/ folder; --data wants the folder with coco/, coco_person/, msrc/ and davis/.")
        msrc = photosets.label_maps(root / "msrc", "msrc", drop=("horse",))
        return (
            Names("MSRC", msrc),
            Things("COCO", photosets.coco(root / "coco")),
            People("people", photosets.coco(root / "coco_person", "coco_person")),
            Frames(photosets.davis(root / "davis"), self.every),
            OneShot("one-shot", msrc),
        )

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        """All figures, in the order of `docs/pocket.md`."""
        msrc, coco = (Photos.figures_of(counted[name]) for name in ("MSRC", "COCO"))
        # J is averaged over a sequence's frames, then over sequences (Perazzi et al. 2016)
        sequences = [*counted["DAVIS"]["present"].compute().per_class.values()]
        return (
            Row("MSRC, 22 names on every photo: mIoU over the set", counted["MSRC"]["over_set"].compute().mean, 0.76, 0.82),
            Row("MSRC, present names: mean IoU", msrc["present"], 0.82, 0.90),
            Row("MSRC, absent names with a mask over 1 %", msrc["false masks"], 0.07, 0.03, smaller=True),
            Row("MSRC, presence: Matthews correlation", msrc["matthews"]),
            Row("COCO, present things of at least 1 %: mean IoU", coco["present"], 0.36, 0.48),
            Row("COCO, absent names with a mask over 1 %", coco["false masks"], 0.07, 0.03, smaller=True),
            Row("COCO, presence: Matthews correlation", coco["matthews"]),
            Row('coco_person, "person": mean IoU', counted["people"]["present"].compute().mean, 0.70, 0.82),
            Row("DAVIS from its text prompt, frame by frame: mean J", float(np.mean(sequences)), 0.46, 0.60),
            Row("MSRC, exemplar of the same class from another photo: mean IoU", counted["one-shot"]["present"].compute().mean, 0.50, 0.65),
        )

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        columns = {f"{part}: mean IoU": metrics["present"].compute().per_class for part, metrics in counted.items()}
        return {"MSRC: IoU over the set": counted["MSRC"]["over_set"].compute().per_class, **columns}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        rules = {"threshold": segmenter.card.threshold, "presence threshold": segmenter.card.presence_threshold}
        limits = {"smallest COCO thing": SMALLEST_THING, "smallest exemplar": EXEMPLAR_SHARE}
        return {
            **super().constants(segmenter),
            **rules,
            "fit": segmenter.card.preprocess.fit,
            "size": segmenter.card.preprocess.size,
            **limits,
        }


class Photos(Part):
    """The validation photos of a set, and what is asked about each."""

    def __init__(self, name: str, photos: Sequence[photosets.AnnotatedPhoto]) -> None:
        self.name = name
        self.photos = [photo for photo in photos if photo.validation]
        self.names = sorted({name for photo in photos for name in (*photo.present, *photo.absent)})

    @property
    def keys(self) -> Sequence[str]:
        return [photo.id for photo in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"present": PairIoU(), "presence": Presence()}

    def figures(self, metrics: Metrics) -> Figures:
        return self.figures_of(metrics)

    @staticmethod
    def figures_of(metrics: Metrics) -> dict[str, float]:
        """Mean IoU of present names, and how absent ones were answered where they were asked for."""
        result = {"present": metrics["present"].compute().mean}
        if "presence" in metrics:
            presence = metrics["presence"].compute()
            result |= {"false masks": presence.false_masks, "matthews": presence.matthews}
        return result


class Names(Photos):
    """MSRC: every name asked on every photo."""

    def metrics(self) -> dict[str, Any]:
        return {"over_set": MaskIoU(), **super().metrics()}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        photo, metrics = self.photos[index], self.metrics()
        truth, unknown = photo.masks()
        found = all_seen(segmenter(photo.path, self.names), self.names, segmenter)
        for name, answer in found.items():
            target = truth.get(name, np.zeros_like(answer.mask))
            metrics["over_set"].update(name, answer.mask, target, ~unknown)
            metrics["presence"].update(name in truth, answer.present, (answer.mask & ~unknown).mean())
            if name in truth:
                metrics["present"].update(name, answer.mask, target, ~unknown)
        return Counted(metrics, lambda: Picture(read_photo(photo.path), not_empty(found), truth))


class Things(Photos):
    """COCO: every name asked on every photo; names of which only a crowd is there count neither way."""

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        photo, metrics = self.photos[index], self.metrics()
        truth, unknown = photo.masks()
        found = all_seen(segmenter(photo.path, self.names), self.names, segmenter)
        absent = set(photo.absent)
        for name, answer in found.items():
            if name in absent:
                metrics["presence"].update(False, answer.present, answer.mask.mean())
            elif name in truth:
                metrics["presence"].update(True, answer.present, answer.mask.mean())
                if truth[name].mean() >= SMALLEST_THING:
                    metrics["present"].update(name, answer.mask, truth[name], ~unknown)
        return Counted(metrics, lambda: Picture(read_photo(photo.path), not_empty(found), truth))


class People(Photos):
    """COCO photos of people: "person" alone."""

    def metrics(self) -> dict[str, Any]:
        return {"present": PairIoU()}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        photo, metrics = self.photos[index], self.metrics()
        truth, unknown = photo.masks()
        mask = segmenter(photo.path, "person")[0].mask
        metrics["present"].update("person", mask, truth["person"], ~unknown)
        return Counted(metrics, lambda: Picture(read_photo(photo.path), {"person": mask}, truth))


class Frames(Photos):
    """DAVIS: each sequence's phrase in each n-th frame. Sequences, not frames, are drawn for the interval."""

    def __init__(self, sequences: Sequence[photosets.Sequence], every: int) -> None:
        self.name = "DAVIS"
        self.frames = [(sequence, index) for sequence in sequences for index in range(0, len(sequence.frames), every)]

    @property
    def keys(self) -> Sequence[str]:
        return [f"{sequence.name}/{sequence.frames[index].stem}" for sequence, index in self.frames]

    @property
    def groups(self) -> Sequence[str]:
        return [sequence.name for sequence, _ in self.frames]

    def metrics(self) -> dict[str, Any]:
        return {"present": PairIoU()}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        (sequence, place), metrics = self.frames[index], self.metrics()
        mask, target = segmenter(sequence.frames[place], sequence.prompt)[0].mask, sequence.mask(place)
        metrics["present"].update(sequence.name, mask, target)
        shown = {sequence.prompt: mask}, {sequence.prompt: target}
        return Counted(metrics, lambda: Picture(read_photo(sequence.frames[place]), *shown))


class OneShot(Photos):
    """MSRC: each class that is there, shown by an example from a training photo."""

    def __init__(self, name: str, photos: Sequence[photosets.AnnotatedPhoto]) -> None:
        super().__init__(name, photos)
        self._all = photos
        self._embedded: dict[str, PromptEmbedding] = {}

    def metrics(self) -> dict[str, Any]:
        return {"present": PairIoU()}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        photo, metrics = self.photos[index], self.metrics()
        truth, unknown = photo.masks()
        embedded = self._examples(segmenter)
        found = {name: segmenter(photo.path, embedded[name])[0].mask for name in photo.present if name in embedded}
        for name, mask in found.items():
            metrics["present"].update(name, mask, truth[name], ~unknown)
        return Counted(metrics, lambda: Picture(read_photo(photo.path), found, truth))

    def _examples(self, segmenter: Segmenter) -> dict[str, PromptEmbedding]:
        """Per class its encoded example; made with the first photo, so that a finished part that is resumed needs none."""
        if not self._embedded:
            self._embedded.update({name: segmenter.embed_prompts([exemplar]) for name, exemplar in exemplars_of(self._all).items()})
        return self._embedded


def exemplars_of(photos: Sequence[photosets.AnnotatedPhoto]) -> dict[str, Prompt]:
    """Per class the first training photo, by id, in which it covers at least 5 %."""
    result: dict[str, Prompt] = {}
    for photo in sorted((p for p in photos if not p.validation), key=lambda p: p.id):
        wanted = [name for name in photo.present if name not in result]
        if wanted:
            masks, _ = photo.masks()
            result |= {name: Exemplar(photo.path, masks[name]) for name in wanted if masks[name].mean() >= EXEMPLAR_SHARE}
    return result

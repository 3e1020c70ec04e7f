"""What fine-tuning changed: figures per class and per other name, as a table, and pictures side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from ..data.photosets import AnnotatedPhoto
from ..data.sheet import PAPER, SIDE, painted, tiled
from ..metrics.iou import MaskIoU, intersection_union, iou
from .checkpoints import save_text

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["ClassRow", "Measured", "OtherRow", "Report", "compare_others", "measure", "sheet"]

OTHERS_SHOWN = 6
LOST = 0.05  # IoU by which a class may fall without being named
STRIP = 16  # pixels above a picture for its title


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class: photos that show it among those trained on and those held out; its IoU before and after, None where none is held out."""

    name: str
    trained: int
    held_out: int
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A name that the data does not have: held-out photos in which it is found before and after, and the IoU of the masks of both.

    ``agreement`` is 1 where neither marks anything.
    """

    name: str
    before: int
    after: int
    agreement: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a fine-tuning gave. ``folder`` is what `promptseg.load` takes; ``seconds``: of training alone."""

    folder: Path
    model: str
    preset: str
    steps: int
    seconds: float
    trained: int
    held_out: int
    classes: tuple[ClassRow, ...]
    others: tuple[OtherRow, ...]

    @property
    def before(self) -> float:
        """Mean IoU of the classes that the held-out photos show; NaN where they show none."""
        return _mean([row.before for row in self.classes])

    @property
    def after(self) -> float:
        """The same of the fine-tuned model."""
        return _mean([row.after for row in self.classes])

    @property
    def kept(self) -> float:
        """Mean agreement over all names that the data does not have."""
        return _mean([row.agreement for row in self.others])

    def __str__(self) -> str:
        """Markdown: one table of the classes, and which have lost; one of the names that answered most among the others."""
        lines = [f"{self.model}, {self.preset}: {self.steps} steps, {self.seconds:.0f} s, {self.trained} photos, {self.held_out} held out"]
        lines += ["", "| class | trained on | held out | IoU before | after | change |", "|---|---:|---:|---:|---:|---:|"]
        lines += [_class_line(row) for row in self.classes]
        lines += [f"| mean | | | {self.before:.3f} | {self.after:.3f} | {self.after - self.before:+.3f} |"]
        if lost := [row.name for row in self.classes if row.before is not None and row.after is not None and row.after < row.before - LOST]:
            lines += ["", f"Worse than before: {', '.join(lost)}. Photos of more kinds may help, or --classes with the other names only."]
        if self.others:
            lines += ["", "| other name | found before | after | same masks |", "|---|---:|---:|---:|"]
            most = sorted(self.others, key=lambda row: (-row.before, -row.after, row.name))[:OTHERS_SHOWN]
            lines += [f"| {row.name} | {row.before} | {row.after} | {row.agreement:.3f} |" for row in most]
            lines += [f"| mean of {len(self.others)} | | | {self.kept:.3f} |"]
        return "\n".join(lines)

    def save(self) -> None:
        """``report.md`` and ``report.json`` in the folder.

        Raises:
            DataError: they cannot be written.
        """
        save_text(self.folder / "report.md", f"{self}\n")
        table = {**asdict(self), "folder": str(self.folder)}
        save_text(self.folder / "report.json", json.dumps(table, indent=1, ensure_ascii=False) + "\n")


def _class_line(row: ClassRow) -> str:
    if row.before is None or row.after is None:
        return f"| {row.name} | {row.trained} | {row.held_out} | - | - | - |"
    return f"| {row.name} | {row.trained} | {row.held_out} | {row.before:.3f} | {row.after:.3f} | {row.after - row.before:+.3f} |"


def _mean(values: Sequence[float | None]) -> float:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else math.nan


@dataclass(frozen=True, slots=True)
class Measured:
    """``classes``: IoU over all photos, of the classes that they show; ``photos``: of each, the mean over what it shows, or NaN."""

    classes: dict[str, float]
    photos: tuple[float, ...]


def measure(segmenter: Segmenter, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> Measured:
    """Ask every photo for every name; the masks are those that a user gets."""
    total, each = MaskIoU(absent="labelled"), []
    for photo in photos:
        (truth, unknown), answer = photo.masks(), segmenter(photo.image(), list(names))
        nothing, scores = np.zeros_like(unknown), []
        for name, said in zip(names, answer, strict=True):
            total.update(name, said.mask, truth.get(name, nothing), ~unknown)
            scores += [iou(said.mask, truth[name], ~unknown)] if name in truth else []
        each.append(float(np.mean(scores)) if scores else math.nan)
    return Measured({str(name): score for name, score in total.compute().per_class.items()}, tuple(each))


def compare_others(before: Segmenter, after: Segmenter, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> tuple[OtherRow, ...]:
    """How far two models say the same of names of which there is no truth."""
    found, counts = np.zeros((len(names), 2), dtype=np.int64), np.zeros((len(names), 2), dtype=np.int64)
    for photo in photos if names else ():
        image = photo.image()
        for index, (old, new) in enumerate(zip(before(image, list(names)), after(image, list(names)), strict=True)):
            counts[index] += intersection_union(old.mask, new.mask)
            found[index] += (old.present, new.present)
    agreement = [both / either if either else 1.0 for both, either in counts.tolist()]
    return tuple(OtherRow(name, old, new, same) for name, (old, new), same in zip(names, found.tolist(), agreement, strict=True))


def sheet(
    before: Segmenter, after: Segmenter, photos: Sequence[AnnotatedPhoto], scores: Sequence[float], names: Sequence[str]
) -> Image.Image:
    """The best, the median and the worst photo by ``scores``: a row each, before | after | truth."""
    order = sorted((index for index, score in enumerate(scores) if not math.isnan(score)), key=lambda index: -scores[index])
    chosen = dict.fromkeys(order[place] for place in (0, len(order) // 2, -1)) if order else [0]
    return tiled((picture for index in chosen for picture in _row(before, after, photos[index], names)), columns=3)


def _row(before: Segmenter, after: Segmenter, photo: AnnotatedPhoto, names: Sequence[str]) -> list[Image.Image]:
    image = photo.image()
    said = [{name: mask.mask for name, mask in zip(names, model(image, list(names)), strict=True)} for model in (before, after)]
    titles = (f"{photo.id}: before", "after", "truth")
    return [_titled(painted(image, masks, names), title) for masks, title in zip((*said, photo.masks()[0]), titles, strict=True)]


def _titled(picture: Image.Image, title: str) -> Image.Image:
    whole = Image.new("RGB", (picture.width, picture.height + STRIP), PAPER)
    whole.paste(picture, (0, STRIP))
    ImageDraw.Draw(whole).text((0, 2), title, fill=(0, 0, 0))
    whole.thumbnail((SIDE, SIDE))
    return whole

"""Objects through a video, their masks in the first frame given (DAVIS 2017, semi-supervised)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..contracts import PromptKind, Task
from ..data.samples import read_labels, read_lines, read_photo
from ..errors import DataError
from ..metrics import VideoJF
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Davis2017"]

VOID = 255  # in annotations: nobody knows


@dataclass(frozen=True)
class Davis2017(Protocol):
    """J, F and their mean by the official rules: every object's first and last frame are left out, a frame without the object is right
    when nothing is marked. Objects overlap in the answers of a model; the later one then has the pixel.

    ``split``: a list in ImageSets/2017, or "all" for every folder of photos. PSALM's published figures drop an object from the frames whose
    annotation lacks it, which asks the truth; here it is asked everywhere.
    """

    NAME: ClassVar[str] = "davis2017"
    TITLE: ClassVar[str] = "DAVIS 2017 video: J&F of objects whose masks in the first frame are given"
    DATA: ClassVar[str] = "DAVIS: JPEGImages/480p, Annotations/480p, ImageSets/2017"
    PROMPTS: ClassVar[tuple[PromptKind, ...]] = ("mask",)
    TASK: ClassVar[Task] = "track"

    split: str = "val"

    def parts(self) -> tuple[Part, ...]:
        root = existing(self.root)
        photos = root / "JPEGImages" / "480p"
        if self.split == "all":
            names = sorted(place.name for place in photos.glob("*") if place.is_dir())
        else:
            names = read_lines(root / "ImageSets" / "2017" / f"{self.split}.txt")
        if not names:
            raise DataError(f"{photos} holds no folders of frames; unpack DAVIS-2017-trainval-480p.zip into {root.parent}.")
        return (_Videos(names, photos, root / "Annotations" / "480p"),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        found = counted["videos"]["objects"].compute()
        return (
            Row("J&F", found.j_and_f),
            *(Row(f"{name}, {kind}", getattr(one, kind)) for name, one in (("J", found.j), ("F", found.f)) for kind in ("mean", "recall")),
            *(Row(f"{name}, decay", one.decay, smaller=True) for name, one in (("J", found.j), ("F", found.f))),
        )


class _Videos(Part):
    name = "videos"

    def __init__(self, names: Sequence[str], photos: Path, labels: Path) -> None:
        self.names, self.photos, self.labels = names, photos, labels

    @property
    def keys(self) -> Sequence[str]:
        return list(self.names)

    def metrics(self) -> dict[str, Any]:
        return {"objects": VideoJF(skip_ends=True)}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        name, metrics = self.names[index], self.metrics()
        frames = sorted((self.photos / name).glob("*.jpg"))
        if len(frames) < 2:
            raise DataError(f"{self.photos / name} holds {len(frames)} frames; a video has at least two.")
        first = self._truth(name, frames[0])
        things = [number for number in np.unique(first).tolist() if number not in (0, VOID)]
        if not things:
            raise DataError(f"{self.labels / name}: the first frame shows no object.")
        answers = segmenter.track((read_photo(frame) for frame in frames), np.stack([first == thing for thing in things]))
        shown: tuple[Path, NDArray[np.int64], NDArray[np.integer[Any]]] | None = None
        for number, (frame, found) in enumerate(zip(frames, answers, strict=True)):
            marked, truth = np.zeros(first.shape, dtype=np.int64), self._truth(name, frame)
            for thing, one in zip(things, found, strict=True):
                marked[one.mask] = thing
            for thing in things:
                metrics["objects"].update(name, thing, number, marked == thing, truth == thing, truth != VOID)
            if number == len(frames) // 2:
                shown = frame, marked, truth
        assert shown is not None
        frame, marked, truth = shown

        def picture() -> Picture:
            masks = ({f"object {thing}": image == thing for thing in things} for image in (marked, truth))
            return Picture(read_photo(frame), next(masks), next(masks))

        return Counted(metrics, picture)

    def figures(self, metrics: Metrics) -> Figures:
        return {"J&F": metrics["objects"].compute().j_and_f}

    def _truth(self, name: str, frame: Path) -> NDArray[np.integer[Any]]:
        return read_labels(self.labels / name / f"{frame.stem}.png")

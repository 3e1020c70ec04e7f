"""Writing results to disk: one pass over the masks feeds every file, so each mask is made once and forgotten."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

from .drawing import Painter
from .errors import ExportError
from .formats import JsonList, NpzFile, coco_result, geojson_feature, geojson_head, yolo_lines
from .masks import Mask

if TYPE_CHECKING:
    from .exports import Exports

__all__ = ["FORMATS", "write"]

FORMATS = {
    "overlay": "overlay.png",
    "png": "masks",
    "coco": "coco.json",
    "geojson": "masks.geojson",
    "yolo": "yolo.txt",
    "npz": "masks.npz",
}
BY_SUFFIX = {
    ".png": "overlay",
    ".jpg": "overlay",
    ".jpeg": "overlay",
    ".json": "coco",
    ".geojson": "geojson",
    ".txt": "yolo",
    ".npz": "npz",
}
DEFAULT = ("overlay", "png")


@dataclass(frozen=True, slots=True)
class Job:
    """What is written and how; ``files`` closes what the writers open."""

    result: Exports
    transform: Sequence[float] | None = None
    crs: str | None = None
    image_id: int | str = 1
    files: ExitStack = field(default_factory=ExitStack)

    def open(self, path: Path) -> IO[str]:
        """A text file for writing; a photo's path may hold bytes that are no text."""
        return self.files.enter_context(open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n"))


class Writer(Protocol):
    """One file, or folder of files, that takes the masks in order, each with its pixels at hand."""

    def add(self, index: int, mask: Mask) -> None: ...
    def close(self) -> None: ...


def write(job: Job, path: Path, formats: Sequence[str] | str | None) -> list[Path]:
    """Write as `Exports.save` says; the paths written, the index last.

    Raises:
        ExportError: an unknown format or suffix, or a place that cannot be written.
    """
    targets = _targets(path, formats, job.result.INDEX)
    try:
        with job.files:
            writers: list[Writer] = [WRITERS[name](job, target) for name, target in targets.items()]
            for index, mask in enumerate(job.result._masks()):
                held = mask.held()
                for writer in writers:
                    writer.add(index, held)
            for writer in writers:
                writer.close()
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"{error.filename or path} cannot be written: {reason}. Make room or choose another place.") from error
    return list(targets.values())


def _targets(path: Path, formats: Sequence[str] | str | None, index: str) -> dict[str, Path]:
    """Format -> where it goes."""
    if "\0" in str(path):
        raise ExportError(f"{str(path)!r} is no path: it holds a zero byte.")
    if path.suffix and not path.is_dir():
        if path.suffix.lower() not in BY_SUFFIX:
            raise ExportError(f"{path}: no format for the suffix {path.suffix!r}; there are {', '.join(BY_SUFFIX)}, or a folder's name.")
        if formats is not None:
            raise ExportError(f"{path} is one file, whose suffix says the format; give a folder for formats={formats!r}.")
        return {BY_SUFFIX[path.suffix.lower()]: path}
    wanted = DEFAULT if formats is None else [name.strip() for name in formats.split(",")] if isinstance(formats, str) else tuple(formats)
    if unknown := [name for name in wanted if name not in FORMATS]:
        raise ExportError(f"Unknown format {', '.join(map(str, unknown))}; there are {', '.join(FORMATS)}.")
    return {name: path / FORMATS[name] for name in wanted} | {"index": path / index}


class OverlayWriter:
    """The overlay picture."""

    def __init__(self, job: Job, path: Path) -> None:
        self._result, self._path, self._painter = job.result, path, Painter(job.result.size)
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, index: int, mask: Mask) -> None:
        self._painter.add(mask.mask, mask.area)

    def close(self) -> None:
        self._result._painted(self._painter).save(self._path, compress_level=1, quality=92)


class PngWriter:
    """One PNG per mask. Those of an earlier result in the same folder are gone at the end: its index names them."""

    def __init__(self, job: Job, path: Path) -> None:
        self._folder, self._stale = path, _earlier(path.parent / job.result.INDEX)
        path.mkdir(parents=True, exist_ok=True)

    def add(self, index: int, mask: Mask) -> None:
        name = png_name(index, mask.label)
        mask.save(self._folder / name)
        self._stale.discard(name)

    def close(self) -> None:
        for name in self._stale:
            (self._folder / name).unlink(missing_ok=True)


class CocoWriter:
    """The list that `to_coco` gives."""

    def __init__(self, job: Job, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._image_id, self._ids, self._list = job.image_id, job.result._category_ids(None), JsonList(job.open(path), None)

    def add(self, index: int, mask: Mask) -> None:
        self._list.add(coco_result(mask, self._image_id, self._ids[index]))

    def close(self) -> None:
        self._list.close()


class GeojsonWriter:
    """The collection that `to_geojson` gives."""

    def __init__(self, job: Job, path: Path) -> None:
        head = geojson_head(job.result.size, job.transform, job.crs)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._job, self._list = job, JsonList(job.open(path), head, "features")

    def add(self, index: int, mask: Mask) -> None:
        self._list.add(geojson_feature(mask, self._job.transform, self._job.result._properties(index, mask)))

    def close(self) -> None:
        self._list.close()


class YoloWriter:
    """The lines that `to_yolo` gives."""

    def __init__(self, job: Job, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._classes, self._file = job.result._classes()[1], job.open(path)

    def add(self, index: int, mask: Mask) -> None:
        self._file.writelines(f"{line}\n" for line in yolo_lines(mask, self._classes[index]))

    def close(self) -> None:
        """The file is closed by the job."""


class NpzWriter:
    """``masks`` (N, H, W) bool, ``labels`` (N,) str, ``classes`` (N,) int, ``scores``, ``presence_thresholds``, ``feathers`` (N,) float."""

    def __init__(self, job: Job, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._result, self._file = job.result, NpzFile(path, len(job.result._masks()), job.result.size)

    def add(self, index: int, mask: Mask) -> None:
        self._file.add(mask.mask)

    def close(self) -> None:
        masks = self._result._masks()
        self._file.close(
            scores=np.array([mask.score for mask in masks], dtype=np.float64),
            presence_thresholds=np.array([mask.presence_threshold for mask in masks], dtype=np.float64),
            feathers=np.array([mask.softness for mask in masks], dtype=np.float64),
            labels=np.array([mask.label for mask in masks], dtype=np.str_),
            classes=np.array(self._result._classes()[1], dtype=np.int64),
        )


class IndexWriter:
    """The index that `load` reads. It gets its name at the very end: where it is, the folder is complete."""

    def __init__(self, job: Job, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._result, self._path = job.result, path
        self._path.unlink(missing_ok=True)
        self._part = self._path.with_suffix(".part")
        self._file = job.open(self._part)
        self._list = JsonList(self._file, job.result._index_head(path.parent), "masks")

    def add(self, index: int, mask: Mask) -> None:
        self._list.add(self._result._index_entry(index, mask))

    def close(self) -> None:
        self._list.close()
        self._file.close()
        os.replace(self._part, self._path)


WRITERS: dict[str, Callable[[Job, Path], Writer]] = {
    "overlay": OverlayWriter,
    "png": PngWriter,
    "coco": CocoWriter,
    "geojson": GeojsonWriter,
    "yolo": YoloWriter,
    "npz": NpzWriter,
    "index": IndexWriter,
}


def png_name(index: int, label: str) -> str:
    """``000-a-dog.png``: the place of the mask, then as much of its name as any file system takes."""
    slug = re.sub(r"[^\w]+", "-", label).strip("-_")[:40]
    return f"{index:03d}{'-' if slug else ''}{slug}.png"


def _earlier(index: Path) -> set[str]:
    """The files that the result of an index, if there is one, has among the masks."""
    try:
        entries = json.loads(index.read_text(encoding="utf-8", errors="surrogateescape")).get("masks", ())
        return {png_name(place, str(entry["label"])) for place, entry in enumerate(entries)}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return set()

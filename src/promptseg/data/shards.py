"""Data sets as tar files in WebDataset's form: read from front to back, for discs and networks that dislike many small files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, ImageError
from ..rle import Rle
from .randomness import Draws, shuffled
from .samples import PhotoSet, Sample, read_lines, reason

__all__ = ["ShardSample", "ShardStream", "shards", "write_shards"]

Place = tuple[int, int]  # first byte in the tar file, and how many
PICTURES = ("jpg", "jpeg", "png", "webp")
CLASSES = "classes.txt"


@dataclass(frozen=True, slots=True)
class ShardSample(Sample):
    """A photo in a tar file: ``path`` is the tar, ``photo`` and ``note`` are the bytes in it of the picture and of its masks."""

    photo: Place = field(repr=False)
    note: Place = field(repr=False)

    def image(self) -> NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(_read(self.path, self.photo))) as picture:
                return np.array(picture.convert("RGB"))
        except Exception as error:  # a damaged picture may raise nearly anything
            raise DataError(f"{self.path}: the photo of {self.id} cannot be read: {reason(error)}. Write the shard again.") from None

    def masks(self) -> tuple[Mapping[str, NDArray[np.bool_]], NDArray[np.bool_]]:
        try:
            note = json.loads(_read(self.path, self.note))
            return {name: _mask(runs) for name, runs in note["masks"].items()}, _mask(note["ignore"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImageError) as error:
            raise DataError(f"{self.path}: the masks of {self.id} cannot be read ({error!r}). Write the shard again.") from None


def _read(file: Path, place: Place) -> bytes:
    with file.open("rb") as stream:
        stream.seek(place[0])
        return stream.read(place[1])


def _mask(runs: Mapping[str, Any]) -> NDArray[np.bool_]:
    height, width = runs["size"]
    return Rle.from_string(runs["counts"], (int(height), int(width))).decode()


# --- writing ----------------------------------------------------------------------------------------------------------------------------


def write_shards(photos: PhotoSet[Any], folder: Path, *, per_shard: int = 1000) -> list[Path]:
    """Copy a data set into ``folder``/NAME-000000.tar, ..., ``per_shard`` photos each, and its class list into classes.txt.

    Photos keep the bytes of their files. The same data set gives the same bytes.

    Raises:
        DataError: a photo or its annotation cannot be read, or the folder holds tar files, which would be read together with these.
    """
    if old := sorted(folder.glob("*.tar")):
        raise DataError(f"{folder} holds {old[0].name} already, which would be read together with the new files. Give an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CLASSES).write_text("".join(f"{name}\n" for name in photos.classes), encoding="utf-8")
    written = []
    for number, first in enumerate(range(0, len(photos), per_shard)):
        file = folder / f"{photos.name}-{number:06d}.tar"
        with tarfile.open(file, "w:", format=tarfile.USTAR_FORMAT) as tar:
            for place, sample in enumerate(photos.samples[first : first + per_shard], start=first):
                _add(tar, f"{place:09d}", sample)
        written.append(file)
    return written


def _add(tar: tarfile.TarFile, key: str, sample: Sample) -> None:
    suffix, content = _photo_bytes(sample)
    masks, ignore = sample.masks()
    note = {"id": sample.id, "masks": {name: _runs(mask) for name, mask in masks.items()}, "ignore": _runs(ignore)}
    for ending, payload in ((suffix, content), ("json", json.dumps(note).encode())):
        entry = tarfile.TarInfo(f"{key}.{ending}")  # its other fields, time and owner, are 0
        entry.size = len(payload)
        tar.addfile(entry, io.BytesIO(payload))


def _photo_bytes(sample: Sample) -> tuple[str, bytes]:
    """The file as it is where its suffix says what it holds, else as PNG."""
    suffix = sample.path.suffix.lower().removeprefix(".")
    if suffix in PICTURES and not isinstance(sample, ShardSample):
        try:
            return suffix, sample.path.read_bytes()
        except OSError as error:
            raise DataError(f"{sample.path} cannot be read as a photo: {reason(error)}. Download or copy this file again.") from None
    buffer = io.BytesIO()
    Image.fromarray(sample.image()).save(buffer, format="PNG")
    return "png", buffer.getvalue()


def _runs(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": Rle.encode(mask).to_string()}


# --- reading ----------------------------------------------------------------------------------------------------------------------------


def shards(root: Path, split: str = "all") -> PhotoSet[ShardSample]:
    """A data set in tar files. SPLIT: all, or the name of a folder with tar files in ROOT.

    ROOT/classes.txt      one class per line
    ROOT/*.tar            not compressed; per photo KEY.jpg (png, webp) and KEY.json:
                          {"id": ..., "masks": {class: {"size": [H, W], "counts": COCO's compressed runs}}, "ignore": {...}}

    Raises:
        DataError: there are no shards, or one is malformed.
    """
    folder = root if split == "all" else root / split
    files, classes = shard_files(folder), class_list(folder, root)
    samples = tuple(sample for file in files for sample in samples_of(file, classes))
    return PhotoSet("shards", classes, samples)


def shard_files(folder: Path) -> list[Path]:
    """The tar files of a folder, by name.

    Raises:
        DataError: there are none.
    """
    files = sorted(folder.glob("*.tar"))
    if not files:
        raise DataError(f"{folder} holds no .tar files. `promptseg data pack` makes them of any data set.")
    return files


def class_list(*folders: Path) -> tuple[str, ...]:
    """The class list of the first folder that has one.

    Raises:
        DataError: none has.
    """
    return tuple(read_lines(next((folder / CLASSES for folder in folders if (folder / CLASSES).is_file()), folders[0] / CLASSES)))


def samples_of(file: Path, classes: tuple[str, ...]) -> Iterator[ShardSample]:
    """The photos of one tar file in their order; only headers are read.

    Raises:
        DataError: damaged, compressed, or a photo has no masks.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            waiting: dict[str, dict[str, Place]] = {}
            for member in tar:
                key, _, ending = Path(member.name).name.partition(".")
                parts = waiting.setdefault(key, {})
                parts["note" if ending == "json" else "photo" if ending in PICTURES else ending] = (member.offset_data, member.size)
                if {"photo", "note"} <= parts.keys():
                    yield ShardSample(f"{file.stem}/{key}", file, classes, parts["photo"], parts["note"])
                    del waiting[key]
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{file} cannot be read as a tar file: {reason(error)}. It must be complete and not compressed.") from None
    if waiting:
        raise DataError(f"{file}: {next(iter(waiting))} has no {'photo' if 'note' in next(iter(waiting.values())) else '.json'} beside it.")


class ShardStream:
    """Samples for one of several readers, shard after shard; every sample goes to exactly one reader.

    Shards are dealt out in an order that (seed, epoch) decides, to ``readers`` = processes x workers alike; within a window of ``window``
    samples their order is shuffled too. A reader's stream depends on (seed, epoch, reader, readers) alone, so ``skip`` resumes it.
    """

    def __init__(
        self, files: Sequence[Path], classes: tuple[str, ...], *, reader: int = 0, readers: int = 1, window: int = 256, seed: int = 0
    ) -> None:
        """``files``: `shard_files`; ``reader`` 0 .. ``readers`` - 1; ``window`` 1 keeps the order of the files.

        Raises:
            DataError: fewer files than readers, or a reader that does not exist.
        """
        if len(files) < readers or not 0 <= reader < readers:
            raise DataError(
                f"{len(files)} shards cannot be dealt to {readers} readers, of which this is {reader}. Write more, smaller shards."
            )
        self.files, self.classes, self.window, self.seed, self.epoch = tuple(files), classes, window, seed, 0
        self.reader, self.readers = reader, readers

    @property
    def mine(self) -> list[Path]:
        """The shards of this reader in this epoch, in order."""
        return shuffled(self.files, self.seed, self.epoch)[self.reader :: self.readers]

    def __iter__(self) -> Iterator[ShardSample]:
        draws = Draws(self.seed, self.epoch, self.reader)
        held: list[ShardSample] = []
        for file in self.mine:
            for sample in samples_of(file, self.classes):
                held.append(sample)
                if len(held) >= self.window:
                    yield held.pop(draws.integer(len(held)))
        while held:
            yield held.pop(draws.integer(len(held)))

    def after(self, skip: int) -> Iterator[ShardSample]:
        """The epoch's samples after the first ``skip``, of which only headers are read."""
        return islice(self, skip, None)

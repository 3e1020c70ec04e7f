"""Photos with captions: a folder with a table of captions, or tar files in WebDataset's form as img2dataset writes them."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .samples import read_photo, reason

__all__ = ["CaptionShards", "Captioned", "CaptionedPhotos", "captioned_folder", "captioned_photos", "captioned_shards", "names"]

TABLE, PHOTOS = "captions.csv", "images"
PICTURES, TEXTS = ("jpg", "png", "jpeg"), ("text", "txt")  # endings as the published runs read them, the first that is there


@dataclass(frozen=True, slots=True)
class Captioned:
    """A photo and what is said of it, one caption or more. ``path``: its file, or the tar with it at ``place`` (first byte, bytes)."""

    id: str
    path: Path
    captions: tuple[str, ...]
    place: tuple[int, int] | None = field(default=None, repr=False)

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as stored.

        Raises:
            DataError: the photo is missing or no picture.
        """
        if self.place is None:
            return read_photo(self.path)
        try:
            with Image.open(io.BytesIO(_bytes(self.path, *self.place))) as picture:
                return np.array(picture.convert("RGB"))
        except Exception as error:  # a damaged picture may raise nearly anything
            raise DataError(f"{self.path}: the photo of {self.id} cannot be read: {reason(error)}. Download the shard again.") from None


def captioned_photos(root: Path) -> CaptionedPhotos:
    """Either form: ROOT/captions.csv makes it a folder, tar files anywhere below ROOT make it shards.

    Raises:
        DataError: it is neither, or malformed.
    """
    if (root / TABLE).is_file():
        return captioned_folder(root)
    if any(root.rglob("*.tar")):
        return captioned_shards(root)
    raise DataError(
        f"{root} holds no photos with captions: put {TABLE} (header image,caption) beside a folder {PHOTOS}/, "
        "or shards of KEY.jpg and KEY.txt (*.tar, as img2dataset writes them)."
    )


def names(photos: CaptionedPhotos) -> Sequence[str]:
    """The name of every photo, of one in a shard its key; nothing is read for it."""
    return photos.keys if isinstance(photos, CaptionShards) else [photo.id for photo in photos]


# --- a folder -----------------------------------------------------------------------------------------------------------------------------


def captioned_folder(root: Path) -> tuple[Captioned, ...]:
    """Photos in the order in which the table names them first, each with all its captions in the table's order.

    ROOT/captions.csv   header image,caption; a line per caption, so a photo may have several
    ROOT/images/        the photos

    Raises:
        DataError: the table is missing, malformed or empty, or a photo that it names is not there.
    """
    table, said = root / TABLE, dict[str, list[str]]()
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header != ["image", "caption"]:
                raise DataError(f"{table} begins with {','.join(header)!r}; its first line must be image,caption.")
            for row in rows:
                if not row:
                    continue
                if len(row) != 2 or not row[0].strip() or not row[1].strip():
                    raise DataError(
                        f"{table}, line {rows.line_num}: {','.join(row)!r} is not a photo and a caption; quote captions with commas."
                    )
                said.setdefault(row[0].strip(), []).append(row[1].strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {reason(error)}. It is a UTF-8 table with the header image,caption.") from None
    if not said:
        raise DataError(f"{table} has no captions below its header.")
    there = {file.name for file in (root / PHOTOS).glob("*")}
    missing = [name for name in said if name not in there]
    if missing:
        raise DataError(f"{table} names {len(missing)} photos that are not in {root / PHOTOS}, such as {missing[0]}. Copy them there.")
    return tuple(Captioned(Path(name).stem, root / PHOTOS / name, tuple(captions)) for name, captions in said.items())


# --- shards -------------------------------------------------------------------------------------------------------------------------------


class CaptionShards(Sequence[Captioned]):
    """Photos in tar files, in the files' order: only their keys and places are kept, about 100 bytes per photo.

    ``shards``: the tar files; ``table`` (N, 5) int64: shard, first byte and bytes of the photo, then of the caption; ``keys``: names.
    """

    def __init__(self, shards: Sequence[Path], table: NDArray[np.int64], keys: Sequence[str]) -> None:
        self.shards, self.table, self.keys = tuple(shards), table, keys

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> Captioned: ...
    @overload
    def __getitem__(self, index: slice) -> CaptionShards: ...
    def __getitem__(self, index: int | slice) -> Captioned | CaptionShards:
        if isinstance(index, slice):
            return CaptionShards(self.shards, self.table[index], self.keys[index])
        shard, photo, photo_bytes, text, text_bytes = self.table[index].tolist()
        file, key = self.shards[shard], self.id(index)
        try:
            caption = _bytes(file, text, text_bytes).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: the caption of {key} cannot be read: {reason(error)}. Download the shard again.") from None
        return Captioned(key, file, (caption,), (photo, photo_bytes))

    def id(self, index: int) -> str:
        """SHARD/KEY of a photo, without reading anything."""
        return f"{self.shards[int(self.table[index, 0])].stem}/{self.keys[index]}"


def captioned_shards(root: Path) -> CaptionShards:
    """All tar files below ROOT by name, so that CC3M, CC12M, YFCC and RedCaps may lie in folders of their own; headers alone are read.

    ROOT/**/*.tar         not compressed; per photo KEY.jpg (png, jpeg) and KEY.txt (text), whatever else belongs to KEY is ignored

    As published, entries without photo or caption are left out: downloads fail.

    Raises:
        DataError: there are no shards, no photo has a caption, or a file is damaged or compressed.
    """
    files = sorted(root.rglob("*.tar"))
    if not files:
        raise DataError(f"{root} holds no .tar files. img2dataset writes them (--output_format webdataset).")
    places: list[tuple[int, ...]] = []
    keys: list[str] = []
    for shard, file in enumerate(files):
        for key, found in _entries(file):
            places.append((shard, *found))
            keys.append(key)
    if not places:
        raise DataError(f"No photo in the {len(files)} tar files of {root} has a caption: each needs KEY.jpg and KEY.txt of the same name.")
    return CaptionShards(files, np.array(places, dtype=np.int64), keys)


def _entries(file: Path) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Key, and where photo and caption are, of every entry that has both; those of one key follow one another (WebDataset's rule)."""
    try:
        with tarfile.open(file, "r:") as tar:
            current, parts = "", dict[str, tuple[int, int]]()
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                key, _, ending = name.partition(".")
                if f"{folder}/{key}" != current:
                    yield from _whole(current, parts)
                    current, parts = f"{folder}/{key}", {}
                parts[ending.lower()] = (member.offset_data, member.size)
            yield from _whole(current, parts)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{file} cannot be read as a tar file: {reason(error)}. It must be complete and not compressed.") from None


def _whole(key: str, parts: dict[str, tuple[int, int]]) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    photo, text = (next((parts[ending] for ending in endings if ending in parts), None) for endings in (PICTURES, TEXTS))
    if photo is not None and text is not None:
        yield key.strip("/").removeprefix("./"), (*photo, *text)


def _bytes(file: Path, first: int, count: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(first)
        return stream.read(count)


CaptionedPhotos: TypeAlias = tuple[Captioned, ...] | CaptionShards

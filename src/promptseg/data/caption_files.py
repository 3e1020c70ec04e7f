"""Published lists of captions, made ready for download and training: CC3M, CC12M, YFCC14M, RedCaps (clean-up as in the GroupViT code).

All but YFCC are lists of addresses. What is written here, a table with the header ``url``, ``caption``, is what img2dataset downloads into
shards: ``--input_format tsv --url_col url --caption_col caption --output_format webdataset --image_size 512 --resize_mode keep_ratio
--resize_only_if_bigger True`` are the published settings. YFCC's photos come in zip files of their own and are packed into shards here.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path, PurePosixPath
from random import Random
from urllib.parse import unquote

from ..errors import DataError, ExportError
from .samples import read_json, reason

__all__ = ["KINDS", "cc3m", "cc12m", "cleaned", "redcaps", "yfcc"]

SEED = 42  # of RedCaps' order (GroupViT code)
PER_SHARD, SHARD_BYTES = 100_000, 1_000_000_000
TAG = re.compile("<.*?>")


def cleaned(description: str) -> str:
    """A description of YFCC as its caption: addresses' escapes resolved, HTML tags removed, line ends and plus signs as blanks."""
    return TAG.sub("", unquote(description)).replace("\n", " ").replace("+", " ")


# --- lists of addresses -------------------------------------------------------------------------------------------------------------------


def cc3m(files: Sequence[Path], output: Path) -> dict[Path, int]:
    """``Train_GCC-training.tsv``, lines of caption and address -> OUTPUT/cc3m.tsv and how many lines it has. Lines that lack either
    are left out.

    Raises:
        DataError: a file cannot be read, or not one line is as it should be.
        ExportError: the table is there already.
    """
    return _listed(files, output / "cc3m.tsv", url=1)


def cc12m(files: Sequence[Path], output: Path) -> dict[Path, int]:
    """``cc12m.tsv``, lines of address and caption -> OUTPUT/cc12m.tsv; else as `cc3m`."""
    return _listed(files, output / "cc12m.tsv", url=0)


def _listed(files: Sequence[Path], target: Path, url: int) -> dict[Path, int]:
    def rows() -> Iterator[tuple[str, str]]:
        for file in files:
            for line in _lines(file):
                parts = line.split("\t")
                if len(parts) == 2 and parts[0].strip() and parts[1].strip() and parts[url].startswith("http"):
                    yield parts[url].strip(), parts[1 - url].strip()

    return {target: _table(target, ("url", "caption"), rows())}


def redcaps(files: Sequence[Path], output: Path, parts: int = 1) -> dict[Path, int]:
    """RedCaps' annotations, JSON files or folders of them -> OUTPUT/redcaps.tsv, or redcaps_part0.tsv and so on, dealt out in turn.

    All are shuffled together by a fixed seed. Files are taken by name, the published code takes them as the folder lists them, so the order
    is a published one only by chance.

    Raises:
        DataError: a file is not RedCaps'.
        ExportError: a table is there already.
    """
    entries = []
    for file in [one for place in files for one in (sorted(place.glob("*.json")) if place.is_dir() else [place])]:
        try:
            entries += [(str(one["url"]), " ".join(str(one["caption"]).split())) for one in read_json(file)["annotations"]]
        except (KeyError, TypeError):
            raise DataError(f"{file} has no annotations with url and caption; it is no file of RedCaps. Leave it out.") from None
    if parts < 1:
        raise DataError(f"RedCaps is dealt out into at least one part, not {parts}.")
    Random(SEED).shuffle(entries)
    targets = [output / ("redcaps.tsv" if parts == 1 else f"redcaps_part{part}.tsv") for part in range(parts)]
    return {target: _table(target, ("url", "caption"), entries[part::parts]) for part, target in enumerate(targets)}


# --- YFCC ---------------------------------------------------------------------------------------------------------------------------------


def yfcc(files: Sequence[Path], output: Path) -> dict[Path, int]:
    """OpenAI's subset of YFCC100M with cleaned descriptions as captions.

    FILES are yfcc100m_subset_data.tsv, the table of all of YFCC100M (yfcc100m_dataset.sql) and, perhaps, zip files of photos (HASH.jpg in
    any folder). OUTPUT/yfcc14m.tsv has a line per caption, ``file`` as abc/def/HASH.jpg; the photos go with their captions into
    OUTPUT/yfcc14m-000000.tar and so on, at most 100,000 or a gigabyte in each. Captions of one word are left out, and a photo's second.

    Raises:
        DataError: a file is missing or is not what its place says.
        ExportError: a result is there already.
    """
    if len(files) < 2:
        raise DataError("YFCC takes two files, yfcc100m_subset_data.tsv and yfcc100m_dataset.sql, and then zip files of its photos.")
    subset, everything, *zips = files
    if not everything.is_file():
        raise DataError(f"{everything} is not there; it is the database yfcc100m_dataset.sql.")
    try:
        with closing(sqlite3.connect(f"{everything.resolve().as_uri()}?mode=ro", uri=True)) as database:
            _join(database, subset)
            said = database.execute("SELECT key, caption FROM captions ORDER BY rowid")
            target = output / "yfcc14m.tsv"
            counts = {target: _table(target, ("file", "caption"), ((_place(key), caption) for key, caption in said))}
            if zips:
                counts |= _packed(_captioned(zips, database), output)
    except sqlite3.Error as error:
        raise DataError(f"{everything} is no database with a table yfcc100m_dataset: {error}. Download it again.") from None
    return counts


def _join(database: sqlite3.Connection, subset: Path) -> None:
    """The temporary table ``captions`` of photos' keys; it lies on disk, since there are 14 million."""

    def ids() -> Iterator[tuple[int, str]]:
        for line in _lines(subset):
            parts = line.split("\t")
            if len(parts) != 3 or not parts[1].isdigit():
                raise DataError(f"{subset}: {line!r} is not line, photo id and key; it is not yfcc100m_subset_data.tsv (bunzip2 it first).")
            yield int(parts[1]), parts[2].strip()

    database.create_function("cleaned", 1, lambda text: None if text is None else cleaned(str(text)), deterministic=True)
    database.execute("CREATE TEMP TABLE subset (photoid INTEGER PRIMARY KEY, key TEXT)")
    database.executemany("INSERT OR IGNORE INTO subset VALUES (?, ?)", ids())
    database.execute("CREATE TEMP TABLE captions (key TEXT UNIQUE, caption TEXT)")
    # one word is what holds no blank, as the published code counts
    database.execute(
        "INSERT OR IGNORE INTO captions SELECT key, cleaned(description) AS caption FROM yfcc100m_dataset CROSS JOIN subset "
        "ON subset.photoid = yfcc100m_dataset.photoid WHERE instr(caption, ' ')"
    )


def _place(key: str) -> str:
    return f"{key[:3]}/{key[3:6]}/{key}.jpg"


def _packed(photos: Iterator[tuple[str, bytes, str]], output: Path) -> dict[Path, int]:
    """Keys, photos and captions as tar files -> how many are in each."""
    counts: dict[Path, int] = {}
    while (first := next(photos, None)) is not None:
        target = _free(output / f"yfcc14m-{len(counts):06d}.tar")
        with tarfile.open(target, "w:", format=tarfile.USTAR_FORMAT) as tar:
            for count, (key, photo, text) in enumerate(chain([first], photos), 1):
                for ending, content in (("jpg", photo), ("text", text.encode())):
                    entry = tarfile.TarInfo(f"{key}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
                counts[target] = count
                if count >= PER_SHARD or tar.offset >= SHARD_BYTES:
                    break
    return counts


def _captioned(zips: Iterable[Path], database: sqlite3.Connection) -> Iterator[tuple[str, bytes, str]]:
    """Key, photo and caption of every photo that has one; what was used is deleted, so each comes once."""
    for key, photo in _photos(zips):
        found = database.execute("SELECT caption FROM captions WHERE key = ?", (key,)).fetchone()
        if found is not None:
            database.execute("DELETE FROM captions WHERE key = ?", (key,))
            yield key, photo, found[0]


def _photos(zips: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for file in zips:
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    if name.lower().endswith(".jpg"):
                        yield PurePosixPath(name).stem, archive.read(name)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{file} cannot be read as a zip file: {reason(error)}. Download it again.") from None


# --- reading and writing ------------------------------------------------------------------------------------------------------------------


def _lines(file: Path) -> Iterator[str]:
    """Line by line, without its end."""
    try:
        with file.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {reason(error)}. Download it again.") from None


def _table(target: Path, head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> int:
    """Write a table with tabs, whole or not at all -> how many rows there are below the header."""
    draft, count = _free(target).with_name(f"{target.name}.part"), 0
    with draft.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(head)
        for row in rows:
            writer.writerow(row)
            count += 1
    if not count:
        draft.unlink()
        raise DataError(f"Nothing is left for {target}: no line of the given files has what is needed. Check that they are the right ones.")
    draft.replace(target)
    return count


def _free(target: Path) -> Path:
    if target.exists():
        raise ExportError(f"{target} is there already; choose another --output, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


KINDS = {"cc3m": cc3m, "cc12m": cc12m, "yfcc": yfcc}  # those that take files and the folder for the results

"""The files that `torch.save` and TorchScript write: a pickled index and tensor memory, mapped into memory instead of read.

Tensors come out as views of the mapped file (copy-on-write), so opening a large checkpoint costs nothing until its values are used.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

import torch
from torch import Tensor

from ..errors import UnsafeFile, WeightsError
from .inert import StorageKey, TensorView
from .pickles import parse

Span = tuple[int, int]  # first byte and count of bytes in the file

LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before version 1.6
MAX_SOURCE: Final = 32 * 2**20  # bytes of TorchScript source; CLIP's archives have less than one megabyte
LOCAL_HEADER: Final = struct.Struct("<4s22xHH")


@dataclass(frozen=True, slots=True)
class Archive:
    """An opened checkpoint: ``root`` is the object that its index describes, with `TensorView` records in place of tensors.

    ``sources``: TorchScript's text files by path, such as ``__torch__/model.py``; empty for other files.
    """

    root: Any
    memory: mmap.mmap
    spans: Mapping[str, Span]
    sources: Mapping[str, str] = field(default_factory=dict)

    def tensor(self, view: TensorView) -> Tensor:
        """The tensor that a record describes, a view of the mapped file.

        Raises:
            WeightsError: it reaches beyond its memory, or its memory beyond the file.
        """
        dtype = getattr(torch, view.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise WeightsError(f"The checkpoint holds a tensor of type {view.dtype[:40]!r}, which this version of torch does not know.")
        memory = self._memory(view.storage, dtype)
        count = math.prod(view.size)
        last = view.offset + sum((size - 1) * stride for size, stride in zip(view.size, view.stride, strict=True))
        if count and (last >= len(memory) or count > len(memory)):
            raise WeightsError(f"The checkpoint holds a tensor of shape {view.size} in {len(memory)} stored values. Get it again.")
        return torch.as_strided(memory, view.size, view.stride, view.offset) if count else torch.empty(view.size, dtype=dtype)

    def forget(self) -> None:
        """Let go of the memory that holds what was read of the file; where it is asked for again, it is read again."""
        if hasattr(self.memory, "madvise"):  # not on Windows
            self.memory.madvise(mmap.MADV_DONTNEED)  # nothing was written there, which this would undo

    def _memory(self, storage: StorageKey, dtype: torch.dtype) -> Tensor:
        """All values of a storage, flat."""
        element = getattr(torch, storage.dtype).itemsize if storage.dtype else 1
        first, held = self.spans.get(storage.key, (0, -1))
        start, wanted = storage.start * element, storage.numel * element
        if start + wanted > held or wanted % dtype.itemsize:
            raise WeightsError(
                f"The checkpoint promises {wanted} bytes of memory {storage.key[:40]!r} and holds {max(held, 0)}. Get it again."
            )
        if not wanted:
            return torch.empty(0, dtype=dtype)
        raw = torch.frombuffer(self.memory, dtype=torch.uint8, count=wanted, offset=first + start)
        return (raw.clone() if (first + start) % dtype.itemsize else raw).view(dtype)


def open_archive(path: Path) -> Archive:
    """Open what `torch.save` (of any age since 2017) or TorchScript wrote.

    Raises:
        UnsafeFile: the index asks for code to be run.
        WeightsError: the file is damaged or something else.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise WeightsError("The file is empty. Get it again.")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return _open_zip(path, memory) if memory[:2] == b"PK" else _open_legacy(memory)


def _open_zip(path: Path, memory: mmap.mmap) -> Archive:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) != len(archive.infolist()):
                raise WeightsError("The checkpoint holds two entries of one name. Get it again.")
            prefix = _prefix(entries)
            sources = _sources(archive, prefix)
    except WeightsError:
        raise
    except Exception as error:  # zipfile and zlib have a dozen ways to fail on garbled bytes; all of them mean the same
        raise WeightsError(f"The file is a damaged archive ({str(error)[:100]}). Get it again.") from None
    ours = (f"{prefix}data.pkl", f"{prefix}byteorder", f"{prefix}data/")
    spans = _spans([entry for name, entry in entries.items() if name.startswith(ours)], memory)
    if memory[slice(*_bounds(spans.get(f"{prefix}byteorder", (0, 0))))] == b"big":
        raise WeightsError("The checkpoint was written on a big-endian machine, which is not supported.")
    root, _ = parse(memory[slice(*_bounds(spans[f"{prefix}data.pkl"]))])
    data = f"{prefix}data/"
    return Archive(root, memory, {name[len(data) :]: span for name, span in spans.items() if name.startswith(data)}, sources)


def _prefix(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """The folder inside the archive that holds everything."""
    found = [name.removesuffix("data.pkl") for name in entries if name.split("/")[-1] == "data.pkl" and name.count("/") <= 1]
    if len(found) != 1:
        inside = ", ".join(sorted(entries)[:8])
        raise WeightsError(f"The file is a zip archive, but no checkpoint; it holds: {inside[:300]}. Unpack it and name the files in it.")
    return found[0]


def _sources(archive: zipfile.ZipFile, prefix: str) -> dict[str, str]:
    """TorchScript's source, the only compressed part of an archive."""
    code = f"{prefix}code/"
    entries = [entry for entry in archive.infolist() if entry.filename.startswith(code) and entry.filename.endswith(".py")]
    if sum(entry.file_size for entry in entries) > MAX_SOURCE:
        raise WeightsError(f"The archive holds more than {MAX_SOURCE} bytes of program text; no published one does.")
    return {entry.filename[len(code) :]: archive.read(entry).decode("utf-8", errors="replace") for entry in entries}


def _spans(entries: Sequence[zipfile.ZipInfo], memory: mmap.mmap) -> dict[str, Span]:
    """Where each entry lies. Entries are stored as they are and apart from each other, or the file is refused."""
    spans: dict[str, Span] = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise WeightsError(f"Entry {entry.filename[:80]!r} of the archive is compressed or encrypted; torch.save writes neither.")
        header = memory[entry.header_offset : entry.header_offset + LOCAL_HEADER.size]
        signature, name, extra = LOCAL_HEADER.unpack(header) if len(header) == LOCAL_HEADER.size else (b"", 0, 0)
        first = entry.header_offset + LOCAL_HEADER.size + name + extra
        if signature != b"PK\x03\x04" or entry.header_offset < end or first + entry.file_size > len(memory):
            raise WeightsError(f"Entry {entry.filename[:80]!r} of the archive is cut off or overlaps another. Get the file again.")
        spans[entry.filename] = (first, entry.file_size)
        end = first + entry.file_size
    return spans


def _open_legacy(memory: mmap.mmap) -> Archive:
    """A row of pickles (magic number, protocol, machine, index, storage keys), then the storages: count of values, values."""
    stream = cast(IO[bytes], memory)
    if not _starts_with_magic(stream):
        raise WeightsError(_not_a_checkpoint(memory[:200]))
    parse(stream), parse(stream)
    root, storages = parse(stream)
    keys, _ = parse(stream)
    element = {storage.key: getattr(torch, storage.dtype).itemsize if storage.dtype else 1 for storage in storages}
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) and str(key) in element for key in keys):
        raise WeightsError("The checkpoint's list of memories does not fit its index. Get it again.")
    spans: dict[str, Span] = {}
    position = memory.tell()
    for key in map(str, keys):
        (count,) = struct.unpack_from("<q", memory, position) if position + 8 <= len(memory) else (-1,)
        spans[key] = (position + 8, count * element[key])
        position += 8 + max(count, 0) * element[key]
        if count < 0 or position > len(memory):
            raise WeightsError("The checkpoint is cut off in the middle of its values. Get it again.")
    return Archive(root, memory, spans)


def _starts_with_magic(stream: IO[bytes]) -> bool:
    try:
        return bool(parse(stream)[0] == LEGACY_MAGIC)
    except UnsafeFile:
        raise
    except WeightsError:
        return False


def _not_a_checkpoint(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "The file is a web page, not a checkpoint; the download was not what it seemed. Get it again in a browser."
    if text.startswith(b"version https://git-lfs"):
        return "The file is a Git LFS pointer, not the checkpoint itself. Run `git lfs pull`, or download the file."
    return "The file is not a checkpoint that torch.save, TorchScript or safetensors wrote."


def _bounds(span: Span) -> Span:
    return span[0], span[0] + span[1]

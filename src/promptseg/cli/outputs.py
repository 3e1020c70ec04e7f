"""The output folder of a run: one folder per photo, complete or not there, so that an interrupted run can go on. Imports no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import ExportError

if TYPE_CHECKING:
    from ..masks import Mask

RECORD = "done.json"

__all__ = ["OutputFolder", "Row", "model_stamp", "recorded", "stamp"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary: ``area`` is the share of the photo, 0..1."""

    label: str
    found: bool
    score: float
    area: float

    @classmethod
    def of(cls, mask: Mask) -> Row:
        """What a prompt's mask says; found is what is judged present and has a pixel."""
        area = mask.area
        return cls(mask.label, mask.present and area > 0, mask.score, area / (mask.size[0] * mask.size[1]))


class OutputFolder:
    """``root/STEM/`` for every photo; another photo of the same name gets ``root/STEM-DIGEST/``.

    The record in a photo's folder is written last. It says which photo was asked what, so another question, or a photo that changed,
    does not count as done.
    """

    def __init__(self, root: Path, request: dict[str, Any], *, beside: bool = False) -> None:
        """``beside``: what else was asked of the same photo stays, but for files of the same names."""
        self.root, self._beside = root, beside
        self._request = json.loads(json.dumps(request))  # as it will be read back

    def place(self, photo: Path) -> Path:
        """The photo's own folder: called like the photo, unless that already holds another photo's results."""
        full = str(photo.resolve())
        folder = self.root / photo.stem
        if _read(folder).get("photo", full) != full:
            folder = self.root / f"{photo.stem}-{blake2b(full.encode('utf-8', 'surrogateescape'), digest_size=4).hexdigest()}"
        return folder

    def image_id(self, photo: Path) -> int | str:
        """The photo in COCO's files: its number, if that is its name, as in COCO's own photos, else the name of its folder."""
        name = self.place(photo).name
        return int(name) if name.isascii() and name.isdigit() else name

    def done(self, photo: Path) -> list[Row] | None:
        """The summary of an earlier run that asked the same of the same photo and whose files are all there, else None."""
        folder = self.place(photo)
        for answer in _answers(folder, photo):
            if answer["request"] == self._request and all((folder / name).is_file() for name in answer["files"]):
                return [Row(**row) for row in answer["rows"]]
        return None

    def write(self, photo: Path, rows: list[Row], save: Callable[[Path], object]) -> Path:
        """Let ``save`` fill a draft, move its files into the photo's folder, and record them.

        Raises:
            ExportError: the place cannot be written.
        """
        folder = self.place(photo)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self.root, prefix=".draft-") as draft:
                save(Path(draft))
                self._publish(Path(draft), folder, photo, rows)
        except OSError as error:
            raise ExportError(f"{folder} cannot be written ({error.strerror or error}). Choose another folder with -o.") from error
        return folder

    def _publish(self, draft: Path, folder: Path, photo: Path, rows: list[Row]) -> None:
        files = sorted(path.relative_to(draft).as_posix() for path in draft.rglob("*") if path.is_file())
        kept = [answer for answer in _answers(folder, photo) if self._beside and not set(files) & set(answer["files"])]
        stale = recorded(folder).difference(files, *(answer["files"] for answer in kept))
        (folder / RECORD).unlink(missing_ok=True)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft / name, folder / name)
        for name in stale:
            (folder / name).unlink(missing_ok=True)
        answer = {"request": self._request, "rows": [asdict(row) for row in rows], "files": files}
        record = {**_which(photo), **answer} | ({"beside": kept} if kept else {})
        (draft / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8", errors="surrogateescape")
        os.replace(draft / RECORD, folder / RECORD)


def recorded(folder: Path) -> frozenset[str]:
    """The files that a run wrote below a photo's folder, relative to it and with forward slashes; none in any other folder."""
    record = _read(folder)
    return frozenset(record.get("files", ())).union(*(answer["files"] for answer in record.get("beside", ())))


def stamp(file: str | Path) -> list[int]:
    """What changes when the file does; empty when there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def model_stamp(model: str) -> list[Any]:
    """The same for a model that is named by its folder or file: trained anew, it answers anew."""
    return [model, *stamp(model), *stamp(Path(model) / "model.safetensors")]


def _which(photo: Path) -> dict[str, Any]:
    """The file, as it is now."""
    return {"photo": str(photo.resolve()), "version": stamp(photo)}


def _answers(folder: Path, photo: Path) -> list[dict[str, Any]]:
    """What was asked of the photo as it is now, each with ``request``, ``rows`` and ``files``; the last first."""
    record = _read(folder)
    if any(record.get(key) != value for key, value in _which(photo).items()):
        return []
    return [{key: record.get(key) for key in ("request", "rows", "files")}, *record.get("beside", ())]


def _read(folder: Path) -> dict[str, Any]:
    """The record of a folder; empty when there is none or it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and {"photo", "files", "rows"} <= record.keys() else {}

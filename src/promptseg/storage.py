"""Reading results back: the index files that `save` writes, and ``.npz``."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import DataError
from .masks import Mask
from .prompts import Box, Classes, Points, Prompt, Scribble, Text
from .regions import checked_radius
from .rle import Rle
from .sources import RunSource

__all__ = ["index_entry", "read_index", "read_masks", "taken_apart"]

COLUMNS = ("labels", "scores", "presence_thresholds", "feathers", "classes")  # of a .npz, beside the masks
WHOLE = {"Text": Text, "Points": Points, "Box": Box, "Scribble": Scribble, "Classes": Classes}  # prompts that JSON holds completely


def index_entry(mask: Mask) -> dict[str, Any]:
    """What an index needs to give the mask back: its prompt, its runs, how soft its edge is and from which score it counts as present."""
    kind = type(mask.prompt).__name__
    prompt = {"type": kind} | (asdict(mask.prompt) if kind in WHOLE else {})
    counts = mask.runs.to_string()
    return {
        "prompt": prompt,
        "presence_threshold": mask.presence_threshold,
        "segmentation": {"size": list(mask.size), "counts": counts},
        "feather": mask.softness,
    }


def read_masks(path: Path, kind: str, name: str, *needed: str) -> tuple[list[Mask], dict[str, Any]]:
    """The masks of a saved folder, index file or ``.npz``, and the index's head with ``labels``, the class of every
    mask, and ``boxes``, the detector's, None where there was none.

    Raises:
        DataError: nothing is there, or it is another kind of result. Damage raises anything: see `taken_apart`.
    """
    if path.suffix == ".npz" and needed:
        raise DataError(f"{path} does not hold {' and '.join(needed)}; read it with Masks.load(), or give the folder that save() wrote.")
    if path.suffix == ".npz":
        return _read_npz(path)
    head = read_index(path, kind, name, "masks", *needed)
    entries = head.pop("masks")
    columns = {"labels": [entry["class"] for entry in entries], "boxes": [entry.get("detected") for entry in entries]}
    return [_mask(entry) for entry in entries], head | columns


@contextmanager
def taken_apart(path: Path, name: str) -> Iterator[None]:
    """Whatever a damaged index does to those who take it apart becomes a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path / name if path.is_dir() else path} is damaged: {error!r}. Save the result again.") from error


def read_index(path: Path, kind: str, name: str, *needed: str) -> dict[str, Any]:
    """The index of a saved folder, whole, with its size and everything that is ``needed``.

    Raises:
        DataError: nothing is there, it is no JSON, incomplete, or another kind of result.
    """
    file = path / name if path.is_dir() else path
    try:
        head = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give a folder that save() wrote, or its {name}.") from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}. Save the result again.") from error
    found = head.get("kind") if isinstance(head, dict) else None
    if found != kind:
        raise DataError(f"{file} holds {found or 'something else'}, not {kind}" + (f"; read it with {found}.load()." if found else "."))
    if missing := [key for key in ("size", "photo", "model", *needed) if key not in head]:
        raise DataError(f"{file} is damaged: it has no {', '.join(missing)}. Save the result again.")
    return dict(head)


def _mask(entry: dict[str, Any]) -> Mask:
    runs = Rle.from_string(entry["segmentation"]["counts"], (entry["segmentation"]["size"][0], entry["segmentation"]["size"][1]))
    fields = dict(entry["prompt"])
    make = WHOLE.get(fields.pop("type"))
    prompt: Prompt = Text(entry["label"]) if make is None else make(**{name: _tuples(value) for name, value in fields.items()})
    source = RunSource(runs, checked_radius(entry.get("feather", 0)))
    return Mask(source, prompt, presence=float(entry["score"]), presence_threshold=float(entry["presence_threshold"]))


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that prompts hold."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _read_npz(path: Path) -> tuple[list[Mask], dict[str, Any]]:
    """Mask by mask, never all of them at once."""
    try:
        with zipfile.ZipFile(path) as archive:
            labels, scores, thresholds, feathers, classes = (_column(archive, name) for name in COLUMNS)
            with archive.open("masks.npy") as file:
                runs, size = _read_runs(file)
        masks = [
            Mask(RunSource(one, checked_radius(feather)), Text(label), presence=score, presence_threshold=threshold)
            for one, label, score, threshold, feather in zip(runs, labels, scores, thresholds, feathers, strict=True)
        ]
    except Exception as error:  # hostile bytes raise BadZipFile, zlib.error, NotImplementedError, TypeError, ...
        raise DataError(f"{path} cannot be read as a saved result: {error}") from error
    return masks, {"size": size, "labels": classes}


def _column(archive: zipfile.ZipFile, name: str) -> list[Any]:
    """One entry per mask."""
    with archive.open(f"{name}.npy") as file:
        values: list[Any] = np.lib.format.read_array(file, allow_pickle=False).tolist()
    return values


def _read_runs(file: IO[bytes]) -> tuple[list[Rle], tuple[int, int]]:
    np.lib.format.read_magic(file)
    (count, height, width), _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != np.bool_:
        raise ValueError(f"masks are of type {dtype}, not bool")
    runs = []
    for _ in range(count):
        data = file.read(height * width)
        runs.append(Rle.encode(np.frombuffer(data, dtype=np.bool_).reshape(height, width)))
    return runs, (height, width)

"""Checkpoints of runs: nested state in one safetensors file, written whole or not at all. No pickle is written or read.

A state is dictionaries, lists, tuples, tensors, numbers, strings, booleans and None, nested at will. Tensors become tensors of the file,
the rest the JSON in its header.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import DataError

NAME = re.compile(r"checkpoint-(\d{7,})\.safetensors")


def file_of(folder: Path, step: int) -> Path:
    """Where the state after ``step`` steps is kept."""
    return folder / f"checkpoint-{step:07d}.safetensors"


def found(folder: Path) -> list[Path]:
    """All complete checkpoints of a run, the newest first."""
    return sorted((file for file in folder.glob("checkpoint-*.safetensors") if NAME.fullmatch(file.name)), key=step_of, reverse=True)


def step_of(file: Path) -> int:
    """After how many steps a checkpoint was written."""
    match = NAME.fullmatch(file.name)
    return int(match[1]) if match else -1


def newest(folder: Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; one that cannot is passed over with a word in the log. None: there is none at all.

    Raises:
        DataError: there are checkpoints, but none can be read.
    """
    files = found(folder)
    broken: DataError | None = None
    for file in files:
        try:
            state: dict[str, Any] = load(file)
            return state
        except DataError as error:
            log(f"{error} Trying the one before.")
            broken = error
    if broken is not None:
        raise broken
    return None


def save(file: Path, state: Any) -> None:
    """Write under a temporary name, sync, rename: whatever happens, the file is either whole or not there, and others stay.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_take_out(state, tensors, ""))
    with replacing(file) as draft:
        save_file(tensors, draft, metadata={"state": skeleton})


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Inside, the place of a draft; what is written there is then synced and renamed to ``file``, which is whole whatever happens.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    draft = file.with_name(file.name + ".part")
    with writing(file):
        try:
            yield draft
            with draft.open("rb") as written:
                os.fsync(written.fileno())
            draft.replace(file)
            _sync_folder(file.parent)
        finally:
            draft.unlink(missing_ok=True)


def save_text(file: Path, text: str) -> None:
    """The same of a text, in UTF-8.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    with replacing(file) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """What goes wrong while something of a run is written inside, in words.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} could not be written: {_reason(error)}. Earlier checkpoints are whole: go on with --resume.") from None


def load(file: Path) -> Any:
    """What `save` was given.

    Raises:
        DataError: the file is damaged or none of ours.
    """
    try:
        with safe_open(file, framework="pt") as reader:
            skeleton = (reader.metadata() or {}).get("state")
            if skeleton is None:
                raise DataError(f"{file} is not a checkpoint of a training run.")
            return _put_back(json.loads(skeleton), {name: reader.get_tensor(name) for name in reader.keys()})  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"The checkpoint {file} cannot be read: {_reason(error)}.") from None


def keep_last(folder: Path, count: int) -> None:
    """Remove all but the newest ``count`` checkpoints, and what interrupted writes left."""
    for file in found(folder)[count:]:
        file.unlink(missing_ok=True)
    for file in folder.glob("checkpoint-*.part"):
        file.unlink(missing_ok=True)


def prepare(folder: Path, resume: bool) -> None:
    """Make the output folder and try to write in it.

    Raises:
        DataError: it cannot be written, or holds a run that ``resume`` does not ask to continue.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"  # each process of a run asks for itself
        probe.write_bytes(b"?")
        probe.unlink()
    except OSError as error:
        raise DataError(f"The output folder {folder} cannot be written: {error.strerror}. Choose another with --output.") from None
    if not resume and found(folder):
        raise DataError(f"{folder} already holds a run. Continue it with --resume, or choose another folder with --output.")


def check_room(folder: Path, weights: Mapping[str, Tensor], copies: int) -> None:
    """Complain before the first step if the disk cannot hold the run: ``copies`` times the size of its weights.

    Raises:
        DataError: there is less room than that.
    """
    needed = copies * sum(tensor.numel() * tensor.element_size() for tensor in weights.values()) / 2**20
    free = shutil.disk_usage(folder).free / 2**20
    if free < needed:
        raise DataError(f"{folder} has {free:.0f} MB free; a run needs {needed:.0f} MB. Choose another with --output.")


def _take_out(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON of the state, tensors moved to ``tensors``. Anything but a list, text, number or None becomes a table with one key, its kind."""
    if isinstance(value, Tensor):
        name = f"{where}#{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()  # a file holds no two views of one memory
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_take_out(key, tensors, where), _take_out(item, tensors, f"{where}/{key}")] for key, item in value.items()]}
    if isinstance(value, list):
        return [_take_out(item, tensors, f"{where}/{index}") for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_take_out(item, tensors, f"{where}/{index}") for index, item in enumerate(value)]}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{where or 'the state'} holds a {type(value).__name__}, which a checkpoint cannot.")


def _put_back(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_put_back(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_put_back(key, tensors): _put_back(item, tensors) for key, item in content}
    if kind == "tuple":
        return tuple(_put_back(item, tensors) for item in content)
    raise ValueError(f"{kind!r} is no kind of value")


def _sync_folder(folder: Path) -> None:
    """The rename itself is on disk only when the folder is; systems that cannot sync folders need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    if "No space left" in str(error):  # safetensors passes the system's words on
        return "the disk is full"
    return str(error) or type(error).__name__


def keep_batch(file: Path, batch: Any) -> str:
    """Keep a batch for inspection as far as a checkpoint can hold it -> what to tell the user."""
    try:
        save(file, {"batch": plain(batch)})
    except (DataError, TypeError) as error:
        return f"no file ({error})"
    return str(file)


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries of their fields; NumPy arrays as tensors; anything unknown as its text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return value if value is None or isinstance(value, (Tensor, str, int, float, bool)) else str(value)


def random_state() -> dict[str, Any]:
    """The states of all generators that a step may draw from."""
    import random

    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002  # libraries may draw from it
    return {
        "python": (version, numbers, gauss),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue all generators where `random_state` saw them."""
    import random

    random.setstate(state["python"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])

"""What a run tells of itself: one JSON line per step, pictures, and trackers for those who use them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .checkpoints import save_text, writing

if TYPE_CHECKING:
    from PIL.Image import Image

LOG = "log.jsonl"
PICTURES = "pictures"


class _Tracker(Protocol):
    def add(self, step: int, values: Mapping[str, float]) -> None: ...
    def picture(self, step: int, image: Image) -> None: ...
    def close(self) -> None: ...


class Journal:
    """Writes ``log.jsonl`` and ``pictures/`` under a folder; as a context manager it closes its trackers.

    ``first``: the step from which the run (re)starts; lines of later steps are forgotten, for they will be taken again. A validation and a
    picture after so many steps belong to the last of these.

    Raises:
        DataError: something cannot be written, at once or when it reaches the disk.
    """

    def __init__(self, folder: Path, name: str, first: int, trackers: Sequence[str] = ()) -> None:
        self.folder = folder
        self._trackers: list[_Tracker] = [_TRACKERS[tracker](folder, name, first) for tracker in trackers]
        with writing(folder / LOG):
            _forget_after(folder / LOG, first)
            self._log = (folder / LOG).open("a", encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with writing(self.folder / LOG):
                self._log.close()
        finally:
            for tracker in self._trackers:
                tracker.close()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """The figures of a step: losses, rate, seconds, memory."""
        with writing(self.folder / LOG):
            self._log.write(json.dumps({"step": step, **{key: _rounded(value) for key, value in values.items()}}) + "\n")
        for tracker in self._trackers:
            tracker.add(step, values)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a validation after ``step`` steps, marked by their prefix."""
        named = {f"validation/{key}": value for key, value in values.items()}
        with writing(self.folder / LOG):
            self._log.write(json.dumps({"step": step - 1, **named}) + "\n")
        for tracker in self._trackers:
            tracker.add(step - 1, named)

    def picture(self, step: int, image: Image) -> None:
        """Kept as ``pictures/0000500.png``."""
        file = self.folder / PICTURES / f"{step:07d}.png"
        with writing(file):
            file.parent.mkdir(exist_ok=True)
            image.save(file)
        for tracker in self._trackers:
            tracker.picture(step - 1, image)

    def flush(self) -> None:
        """Called before a checkpoint is written, so that the log is never behind it."""
        with writing(self.folder / LOG):
            self._log.flush()


class _TensorBoard:
    def __init__(self, folder: Path, name: str, first: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("The tracker 'tensorboard' needs its package: pip install 'promptseg[tensorboard]'.") from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def picture(self, step: int, image: Image) -> None:
        self._writer.add_image(PICTURES, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """Knows no way to forget: the steps between the last checkpoint and an interruption stand there twice."""

    def __init__(self, folder: Path, name: str, first: int) -> None:
        try:
            trackio: Any = import_module("trackio")
        except ImportError:
            raise ImportError("The tracker 'trackio' needs its package: pip install 'promptseg[trackio]'.") from None
        self._image = trackio.Image
        self._run = trackio.init(project=name.replace("/", "-"), name=folder.name, resume="allow")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: Image) -> None:
        self._run.log({PICTURES: self._image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[Path, str, int], _Tracker]] = {"tensorboard": _TensorBoard, "trackio": _Trackio}


def _forget_after(log: Path, first: int) -> None:
    """Drop the lines of steps that will be taken again, and a last line that was cut off."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] < first:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    save_text(log, "".join(kept))


def _rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}") if math.isfinite(value) else value

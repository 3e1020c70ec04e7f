"""What a run tells of itself: one JSON line per step, pictures, and trackers for those who use them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

LOG = "log.jsonl"
PICTURES = "pictures"


class _Tracker(Protocol):
    def add(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Journal:
    """Writes ``log.jsonl`` and ``pictures/`` under a folder; as a context manager it closes its trackers.

    ``first``: the step from which the run (re)starts; lines of later steps are forgotten, for they will be taken again.
    """

    def __init__(self, folder: Path, name: str, first: int, trackers: Sequence[str] = ()) -> None:
        self.folder = folder
        _forget_after(folder / LOG, first)
        self._trackers: list[_Tracker] = [_TRACKERS[tracker](folder, name) for tracker in trackers]
        self._log = (folder / LOG).open("a", encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._log.close()
        for tracker in self._trackers:
            tracker.close()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """The figures of a step: losses, rate, seconds, memory."""
        self._log.write(json.dumps({"step": step, **{key: _rounded(value) for key, value in values.items()}}) + "\n")
        for tracker in self._trackers:
            tracker.add(step, values)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a validation after ``step`` steps, marked by their prefix."""
        named = {f"validation/{key}": value for key, value in values.items()}
        self._log.write(json.dumps({"step": step - 1, **named}) + "\n")
        for tracker in self._trackers:
            tracker.add(step, named)

    def picture(self, step: int, image: Image) -> None:
        """Kept as ``pictures/0000500.png``."""
        (self.folder / PICTURES).mkdir(exist_ok=True)
        image.save(self.folder / PICTURES / f"{step:07d}.png")

    def flush(self) -> None:
        """Called before a checkpoint is written, so that the log is never behind it."""
        self._log.flush()


class _TensorBoard:
    def __init__(self, folder: Path, name: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("The tracker 'tensorboard' needs its package: pip install 'promptseg[tensorboard]'.") from None
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    def __init__(self, folder: Path, name: str) -> None:
        try:
            trackio: Any = import_module("trackio")
        except ImportError:
            raise ImportError("The tracker 'trackio' needs its package: pip install 'promptseg[trackio]'.") from None
        self._run = trackio.init(project=name.replace("/", "-"), name=folder.name, resume="allow")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[Path, str], _Tracker]] = {"tensorboard": _TensorBoard, "trackio": _Trackio}


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
    log.write_text("".join(kept), encoding="utf-8")


def _rounded(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}") if math.isfinite(value) else value

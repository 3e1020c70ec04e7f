"""What an evaluation has counted so far, on disk: one line of JSON per photo, so that a killed one goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import ConfigError, DataError
from ..metrics import State
from .protocol import Metrics

__all__ = ["Journal"]


class Journal:
    """Sums by (part, case). The first line says of which model and protocol they are; a last line that broke off is dropped.

    Without a path nothing is kept on disk.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any]) -> None:
        """Open the journal, or begin one.

        Raises:
            ConfigError: it belongs to another model, protocol or option.
            DataError: it cannot be read or written.
        """
        self._path, self._file = path, None
        self._found: dict[tuple[str, int, str], dict[str, Any]] = {}
        if path is None:
            return
        wanted = json.dumps(head, sort_keys=True, default=str)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            size = self._read(path, wanted) if path.exists() else 0
            self._file = path.open("r+b" if path.exists() else "wb")
            self._file.truncate(size)
            self._file.seek(size)
            if not size:
                self._line(wanted)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}. Give a place that can with -o.") from None

    def _read(self, path: Path, wanted: str) -> int:
        """Take in all whole lines -> how many bytes they are."""
        size = 0
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break
            if number == 0:
                self._check(path, wanted, line)
            else:
                entry = json.loads(line)
                self._found[entry["part"], entry["case"], entry["key"]] = entry["sums"]
            size += len(line)
        return size

    def _check(self, path: Path, wanted: str, line: bytes) -> None:
        if line.decode().strip() != wanted:
            raise ConfigError(
                f"{path} holds an unfinished evaluation of another model, protocol or option. Give another place with -o, or delete it."
            )

    def get(self, part: str, case: int, key: str, empty: Metrics) -> Metrics | None:
        """The metrics of a case as `put` took them, or None. ``empty``: the same metrics before any photo."""
        sums = self._found.get((part, case, key))
        if sums is None:
            return None
        return {name: metric.from_state(_with_sums(metric.state(), sums[name])) for name, metric in empty.items()}

    def put(self, part: str, case: int, key: str, metrics: Metrics) -> None:
        """Note what a case has added; once this returns, no kill can lose it."""
        if self._file is not None:
            sums = {name: metric.state()["sums"] for name, metric in metrics.items()}
            self._line(json.dumps({"part": part, "case": case, "key": key, "sums": sums}))

    def _line(self, text: str) -> None:
        assert self._file is not None
        self._file.write(text.encode() + b"\n")
        self._file.flush()

    def finish(self) -> None:
        """The evaluation is complete and its results are written."""
        self.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave what was noted for the next run."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _with_sums(state: State, sums: Any) -> State:
    return {**state, "sums": sums}

"""Command lines run in the test's own process."""

from __future__ import annotations

import sys

import pytest

from promptseg.cli import main


class Cli:
    """``cli("segment", ...)`` -> exit code, standard output, standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "160")  # no table is cut

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["promptseg", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code if isinstance(stop.value.code, int) else 0, *self._capsys.readouterr()

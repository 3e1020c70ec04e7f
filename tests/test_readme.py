"""What the README shows, run as it stands there, with the built-in model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from command_line import Cli
from promptseg.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has what the README's commands name."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_the_first_command_finds_the_dog(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = next(line for line in blocks("sh")[0].splitlines() if line.startswith("promptseg "))
    arguments = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)[1:]]
    code, out, err = Cli(monkeypatch, capsys)(*arguments)
    assert (code, err) == (0, "")
    assert "yes" in out
    overlay, mask = Image.open("out/dog/overlay.png"), np.asarray(Image.open("out/dog/masks/000-a-dog.png")) > 0
    assert overlay.size == (480, 270)
    assert mask.shape == (270, 480)
    dog = mask[115:205, 165:320]
    assert dog.mean() > 0.2
    assert dog.sum() > 0.6 * mask.sum()


def test_every_command_shown_exists_with_its_options() -> None:
    pages = [README, *(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))]
    shown = [line for page in pages for line in re.findall(r"(?:^\$ |`)promptseg ([a-z][^`\n]*)", page, re.MULTILINE)]
    assert {"segment", "semantic", "models", "pull", "eval"} <= {line.split()[0] for line in shown}
    root, options = get_command(app), 0
    for line in shown:
        command, words = root, re.sub(r"""(["']).*?\1|#.*""", "", line).split()
        while verbs := getattr(command, "commands", None):
            assert words, line
            assert words[0] in verbs, line
            command, words = verbs[words[0]], words[1:]
        known = {name for parameter in command.params for name in parameter.opts}
        given = [word.partition("=")[0].rstrip(",") for word in words if re.match("--?[a-z]", word)]
        assert not [name for name in given if name not in known], line
        options += len(given)
    assert options > 20

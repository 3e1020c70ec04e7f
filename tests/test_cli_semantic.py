"""``promptseg semantic`` with the options that only some families have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import promptseg.segmenter
import small_groupvit
from command_line import Cli
from promptseg import zoo
from promptseg.contracts import Options
from promptseg.models.catseg import CatSegOptions
from promptseg.models.groupvit import GroupVitOptions
from promptseg.segmenter import Segmenter, load
from test_catseg import build

CLASSES = ("sky", "grass", "a dog", "a wall", "sand")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The current folder holds photo.png."""
    monkeypatch.chdir(tmp_path)
    blocks = np.random.default_rng(3).integers(0, 255, (4, 6, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    Image.fromarray(blocks).save("photo.png")
    return Cli(monkeypatch, capsys)


def catseg() -> Segmenter:
    return Segmenter(build(), zoo.card("catseg-base"), device="cpu", precision="float32")


def pocket() -> Segmenter:
    return load("pocket", device="cpu")


@pytest.mark.parametrize(
    ("make", "given", "options"),
    [
        (catseg, (), Options()),
        (catseg, ("--mode", "whole"), CatSegOptions(mode="whole")),
        (catseg, ("--mode", "slide"), CatSegOptions()),
        (catseg, ("--mode", "whole", "--max-classes", "2"), CatSegOptions(mode="whole", max_classes=2)),
        (catseg, ("--max-classes", "2", "--tile", "64"), CatSegOptions(max_classes=2, tile=64)),
        (small_groupvit.segmenter, ("--mode", "whole"), GroupVitOptions(mode="whole")),
        (small_groupvit.segmenter, ("--mode", "slide"), GroupVitOptions()),
    ],
)
def test_options_reach_the_model(make: Any, given: tuple[str, ...], options: Options, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = make()
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: segmenter)
    code, _, err = cli("semantic", "photo.png", *CLASSES, "--background", "0", *given)
    assert (code, err) == (0, "")
    wanted = segmenter.semantic("photo.png", CLASSES, background=0.0, options=options).labels
    np.testing.assert_array_equal(np.asarray(Image.open("maps/photo/labels.png")), wanted + 1)


def test_another_mode_is_another_question(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = catseg()
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: segmenter)
    ask = ("semantic", "photo.png", *CLASSES, "--mode", "whole")
    cli(*ask)
    assert "earlier" in cli(*ask)[1]
    assert "earlier" not in cli(*ask, "--max-classes", "1")[1]
    assert "earlier" not in cli(*ask[:-1], "slide")[1]


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (catseg, ("--mode", "sliding"), "'slide' or 'whole'"),
        (catseg, ("--max-classes", "0"), "at least 1"),
        (small_groupvit.segmenter, ("--max-classes", "3"), "no option --max-classes"),
        (pocket, ("--mode", "whole"), "no option --mode"),
        (catseg, ("--class", "sky"), "twice: 'sky'"),
    ],
)
def test_what_cannot_be(make: Any, given: tuple[str, ...], said: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: make())
    code, _, err = cli("semantic", "photo.png", *CLASSES, *given)
    assert code != 0
    assert said in err
    assert not list(Path().glob("maps/*/labels.png"))

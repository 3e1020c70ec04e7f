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
from promptseg.data.vocabularies import available, names, templates
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
        (small_groupvit.segmenter, ("--size", "96", "--crop", "64", "--stride", "32"), GroupVitOptions(size=96, crop=64, stride=32)),
        (small_groupvit.segmenter, ("--templates", "photo"), GroupVitOptions(templates=templates("photo"))),
        (pocket, ("--size", "160", "--templates", "worded.txt"), Options(size=160, templates=("a {}", "the {} there"))),
    ],
)
def test_options_reach_the_model(make: Any, given: tuple[str, ...], options: Options, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = make()
    Path("worded.txt").write_text("a {}\nthe {} there\n", encoding="utf-8")
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: segmenter)
    code, _, err = cli("semantic", "photo.png", *CLASSES, "--background", "0", *given)
    assert (code, err) == (0, "")
    wanted = segmenter.semantic("photo.png", CLASSES, background=0.0, options=options).labels
    np.testing.assert_array_equal(np.asarray(Image.open("maps/photo/labels.png")), wanted + 1)


def made(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """A tiny CAT-Seg, whatever model a command asks for."""
    segmenter = catseg()
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: segmenter)
    return segmenter


def shown(folder: str = "maps/photo") -> np.ndarray:
    """The labels that a command wrote, -1 for nothing."""
    return np.asarray(Image.open(f"{folder}/labels.png")).astype(int) - 1


def test_a_folder_of_photos(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of different shapes, in one call; each gets the map that it gets alone."""
    segmenter = made(monkeypatch)
    for number, (height, width) in enumerate(((40, 60), (60, 40), (40, 60)), 1):
        pixels = np.random.default_rng(number).integers(0, 255, (height // 10, width // 10, 3), dtype=np.uint8)
        Path("photos/deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.repeat(10, 0).repeat(10, 1)).save(f"photos/{'deep/' * (number == 3)}{number}.png")
    code, out, err = cli("semantic", "photos", *CLASSES)
    assert (code, err) == (0, "")
    for number in (1, 2, 3):
        assert f"{number}.png" in out
        wanted = segmenter.semantic(f"photos/{'deep/' * (number == 3)}{number}.png", CLASSES).labels
        np.testing.assert_array_equal(shown(f"maps/{number}"), wanted)


def test_a_vocabulary_that_ships(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the classes that are named; more than the network's 24 are truncated where that is asked for."""
    segmenter, maps = made(monkeypatch), []
    classes = [*names("context59"), "a unicorn", ["a lawn", "a meadow"]]
    ask = ("semantic", "photo.png", "--vocabulary", "context59", "a unicorn", "a lawn, a meadow", "--mode", "whole")
    for given, options in (((), CatSegOptions(mode="whole")), (("--truncate",), CatSegOptions(mode="whole", truncate=True))):
        code, out, err = cli(*ask, *given)
        assert (code, err) == (0, "")
        assert "earlier" not in out
        maps.append(shown())
        np.testing.assert_array_equal(maps[-1], segmenter.semantic("photo.png", classes, options=options).labels)
    assert (maps[0] != maps[1]).any()


def test_a_vocabulary_of_ones_own(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synonyms by commas, as on the line, asked for each or for their mean; another list is another question."""
    segmenter = made(monkeypatch)
    Path("mine.txt").write_text("\ufeffsky\n\n  grass, a dog \r\n", encoding="utf-8")
    ask = ("semantic", "photo.png", "a wall", "--vocabulary", "mine.txt")
    maps = []
    for synonyms in ("max", "mean"):
        code, out, err = cli(*ask, "--synonyms", synonyms)
        assert (code, err) == (0, "")
        assert "earlier" not in out
        maps.append(shown())
        wanted = segmenter.semantic("photo.png", ["sky", ["grass", "a dog"], "a wall"], options=Options(synonyms=synonyms)).labels
        np.testing.assert_array_equal(maps[-1], wanted)
    assert (maps[0] != maps[1]).any()
    Path("mine.txt").write_text("sky\ngrass\n", encoding="utf-8")
    assert "earlier" not in cli(*ask, "--synonyms", "mean")[1]
    assert shown().max() <= 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("ade15", "Did you mean 'ade150'? There are ade150, ade847, "),
        ("words.txt", "'words.txt' is no text file and no vocabulary that ships"),
        ("empty.txt", "empty.txt holds no class"),
        ("photo.png", "photo.png cannot be read"),
    ],
)
def test_no_such_vocabulary(given: str, said: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made(monkeypatch)
    Path("empty.txt").write_text("\n \n", encoding="utf-8")
    code, _, err = cli("semantic", "photo.png", "sky", "--vocabulary", given)
    assert code == 1
    assert said in err
    assert len(err.splitlines()) == 1
    if "There are" in said:
        assert all(name in err for name in available())


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
        (small_groupvit.segmenter, ("--max-classes", "3"), "no option 'max_classes', it has crop, fit, "),
        (small_groupvit.segmenter, ("--truncate",), "no option 'truncate'"),
        (pocket, ("--mode", "whole"), "no option 'mode'"),
        (catseg, ("--synonyms", "sum"), "'max' or 'mean'"),
        (catseg, ("--templates", "imagenet8"), "no set of templates. Did you mean 'imagenet80'? There are"),
        (catseg, ("--templates", "wrong.txt"), "'a {} by a {}' needs one {}"),
        (catseg, ("--templates", "empty.txt"), "empty.txt holds no wording"),
        (small_groupvit.segmenter, ("--stride", "600"), "leave some out"),
        (catseg, ("--vocabulary", "ade150"), "twice: 'sky', 'grass'"),
        (catseg, ("--class", "sky"), "twice: 'sky'"),
    ],
)
def test_what_cannot_be(make: Any, given: tuple[str, ...], said: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: make())
    Path("wrong.txt").write_text("a {}\na {} by a {}\n", encoding="utf-8")
    Path("empty.txt").write_text("\n", encoding="utf-8")
    code, _, err = cli("semantic", "photo.png", *CLASSES, *given)
    assert code != 0
    assert said in err
    assert not list(Path().glob("maps/*/labels.png"))

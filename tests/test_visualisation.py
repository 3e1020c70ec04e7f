"""The authors' modes of showing what a model with groups sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Cli
from promptseg import zoo
from promptseg.data.vocabularies import names
from promptseg.drawing import palette
from promptseg.errors import ConfigError, UnsupportedTask
from promptseg.maps import SemanticMap
from promptseg.models.groupvit import GroupVitOptions
from promptseg.segmenter import load
from promptseg.visualisation import MODES, blended, visualise
from small_groupvit import model, segmenter

PHOTO = np.random.default_rng(3).integers(0, 255, (3, 4, 3), dtype=np.uint8).repeat(24, 0).repeat(24, 1)
CLASSES = ("dog", "grass")


def half(colours: np.ndarray) -> np.ndarray:
    return np.asarray((PHOTO.astype(int) + colours + 1) // 2)


def test_groups_are_half_photo_and_half_a_colour_of_their_own() -> None:
    stages = segmenter().groups(PHOTO)
    pictures = visualise(segmenter(), PHOTO, ("input", "first_group", "final_group", "all_groups"))
    assert list(pictures) == ["input", "first_group", "final_group", "all_groups_layer0", "all_groups_layer1"]
    np.testing.assert_array_equal(pictures["input"], PHOTO)
    colours = np.array(palette(10))  # 6 groups of the first stage, 4 of the second
    np.testing.assert_array_equal(pictures["first_group"], half(colours[stages[0].labels]))
    np.testing.assert_array_equal(pictures["final_group"], half(colours[6 + stages[1].labels]))
    for index, name in enumerate(("first_group", "final_group")):
        np.testing.assert_array_equal(pictures[f"all_groups_layer{index}"], pictures[name])


def test_classes_are_blended_where_they_are() -> None:
    found = segmenter().semantic(PHOTO, CLASSES, background=0)
    pictures = visualise(segmenter(), PHOTO, ("pred", "input_pred"), CLASSES, background=0)
    assert pictures["pred"].mode == "P"
    np.testing.assert_array_equal(pictures["pred"], found.labels + 1)
    np.testing.assert_array_equal(pictures["input_pred"], half(np.array(palette(2))[found.labels]))


def test_background_is_the_photo_itself() -> None:
    labels = np.full(PHOTO.shape[:2], -1)
    labels[:10, :10] = 1
    shown = blended(PHOTO, labels, [(0, 0, 0), (255, 255, 255)])
    np.testing.assert_array_equal(shown[labels < 0], PHOTO[labels < 0])
    np.testing.assert_array_equal(shown[:10, :10], (PHOTO[:10, :10].astype(int) + 256) // 2)


def test_names_stand_in_the_middle_of_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.full(PHOTO.shape[:2], -1)
    labels[20:41, 30:51] = 1  # its middle is (40, 30)
    found = SemanticMap(labels, CLASSES, photo=PHOTO)
    monkeypatch.setattr(type(segmenter()), "semantic", lambda *_, **__: found)
    pictures = visualise(segmenter(), PHOTO, ("input_pred", "input_pred_label"), CLASSES)
    changed = (np.asarray(pictures["input_pred"]) != np.asarray(pictures["input_pred_label"])).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 30
    assert columns.min() >= 39
    assert changed.sum() > 50
    assert (np.asarray(pictures["input_pred_label"]) == (255, 69, 0)).all(-1).any(), "in orange red"


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no mode 'final_groups'. Did you mean 'final_group'"):
        visualise(segmenter(), PHOTO, ("final_groups",))
    with pytest.raises(ConfigError, match="'input_pred' shows classes: name some"):
        visualise(segmenter(), PHOTO, ("input_pred",))
    with pytest.raises(UnsupportedTask, match="groupvit-gcc-yfcc"):
        visualise(load("pocket", device="cpu"), PHOTO, ("final_group",))


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli = Cli(monkeypatch, capsys)
    weights, photo, output = zoo.save_folder(model(), tmp_path / "weights", "groupvit-gcc-yfcc"), tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(PHOTO).save(photo)
    common = ("-m", str(weights), "-o", str(output), "--device", "cpu")
    code, out, err = cli("groups", str(photo), "--vis", ",".join(MODES), "-c", "dog", "-c", "grass", "--background", "0.5", *common)
    assert (code, err) == (0, "")
    assert "input_pred_label" in out
    expected = {*MODES, "all_groups_layer0", "all_groups_layer1"} - {"all_groups"}
    assert {path.stem for path in (output / "a").glob("*.png")} == expected
    code, _, err = cli("groups", str(photo), "--vis", "pred", "--vocabulary", "voc21-groupvit", "--mode", "whole", *common)
    assert (code, err) == (0, "")
    whole = segmenter().semantic(photo, names("voc21-groupvit")[1:], options=GroupVitOptions(mode="whole"))
    with Image.open(output / "a" / "pred.png") as picture:
        np.testing.assert_array_equal(picture, whole.labels + 1)
    for words, message in (
        (("--vis", "last_group"), "allowed: input, first_group"),
        (("--vis", "pred"), "name some"),
        (("--vis", "input", "--token", "1"), "leave --token"),
        (("-c", "dog"), "--vis input_pred_label"),
        (("--mode", "whole"), "--vis input_pred_label"),
    ):
        code, _, err = cli("groups", str(photo), *words, *common)
        assert code in (1, 2)
        assert message in " ".join(err.replace("│", " ").split()), err

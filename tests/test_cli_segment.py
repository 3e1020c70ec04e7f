"""The commands end to end, with the toy family in the model's place; `test_readme` does it with the built-in model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import promptseg.segmenter
import toy_family
from command_line import Cli
from promptseg.cli import main


class ToyCli(Cli):
    """The toy takes the place of whatever model a command asks for, and counts the photos that it encodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(monkeypatch, capsys)
        self.segmenter = toy_family.segmenter()
        monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **__: self.segmenter)

    @property
    def encoded(self) -> int:
        return int(self.segmenter.model.encodings["image"])


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ToyCli:
    """The current folder holds photos/{one,two}.png, red on the left, and photos/Ünï cödé.png, all green."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for shift, name in enumerate(("one", "two")):
        Image.fromarray(np.roll(toy_family.photo(), shift, axis=1)).save(f"photos/{name}.png")
    Image.new("RGB", (30, 20), (0, 255, 0)).save("photos/Ünï cödé.png")
    return ToyCli(monkeypatch, capsys)


def read(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L")) > 0


def test_a_photo_and_two_phrases(cli: ToyCli) -> None:
    code, out, err = cli("segment", "photos/one.png", "red", "a unicorn")
    assert (code, err) == (0, "")
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "one.png" in line]
    assert [row[:3] for row in rows] == [["one.png", "red", "yes"], ["one.png", "a", "unicorn"]]
    assert rows[1][3:] == ["no", "0.00", "0.0%"]
    files = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))
    assert files == ["one/masks/000-red.png", "one/masks/001-a-unicorn.png", "one/overlay.png"]
    red = read("out/one/masks/000-red.png")
    assert red.shape == (40, 60)
    assert red[:, :17].all()
    assert not red[:, 23:].any()
    assert not read("out/one/masks/001-a-unicorn.png").any()


def test_every_format_is_written(cli: ToyCli) -> None:
    code, _, err = cli("segment", "photos", "red", "-o", "found", "-f", "overlay,png,coco,geojson,yolo,npz")
    assert (code, err) == (0, "")
    for name in ("one", "two", "Ünï cödé"):
        names = {path.name for path in (Path("found") / name).iterdir()}
        assert {"overlay.png", "masks", "coco.json", "masks.geojson", "yolo.txt", "masks.npz", "done.json"} <= names
    (entry,) = json.loads(Path("found/one/coco.json").read_text())
    assert (entry["image_id"], entry["segmentation"]["size"]) == ("one", [40, 60])
    assert Path("found/one/yolo.txt").read_text()
    assert Path("found/Ünï cödé/yolo.txt").read_text() == ""


def test_exemplar_by_mask_and_by_box(cli: ToyCli) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 42:] = 255
    Image.fromarray(mask).save("blue.png")
    by_mask = cli("segment", "photos/one.png", "--exemplar", "photos/one.png", "blue.png", "-o", "a")
    by_box = cli("segment", "photos/one.png", "--exemplar", "photos/one.png", "42,0,60,40", "-o", "b")
    assert (by_mask[0], by_box[0]) == (0, 0)
    (one,), (two,) = Path("a/one/masks").iterdir(), Path("b/one/masks").iterdir()
    np.testing.assert_array_equal(read(str(one)), read(str(two)))
    assert read(str(one))[:, 43:].all()


def test_negative_and_threshold_reach_the_model(cli: ToyCli) -> None:
    cli("segment", "photos/one.png", "red", "-o", "plain")
    cli("segment", "photos/one.png", "red", "--negative", "red", "--negative", "a unicorn", "-o", "same")
    cli("segment", "photos/one.png", "red", "--threshold", "0.999", "-o", "strict")
    plain, same, strict = (read(f"{name}/one/masks/000-red.png") for name in ("plain", "same", "strict"))
    np.testing.assert_array_equal(plain, same)  # equally probable stays in
    assert strict.sum() < plain.sum()


def test_too_large_photos_are_refused(cli: ToyCli, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(promptseg.segmenter, "load", lambda *_, **options: given.update(options) or toy_family.segmenter(max_pixels=999))
    code, _, err = cli("segment", "photos", "red", "--max-pixels", "999")
    assert (code, given["max_pixels"]) == (3, 999)
    assert "--max-pixels" in err


def test_device_and_precision_reach_the_model(cli: ToyCli, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, str]] = []

    def load(name: str, *, device: str, precision: str, max_pixels: int) -> promptseg.Segmenter:
        given.append((device, precision))
        return toy_family.segmenter(device=device, precision=precision)

    monkeypatch.setattr(promptseg.segmenter, "load", load)
    assert cli("segment", "photos/one.png", "red", "--device", "cpu", "--precision", "bfloat16")[0] == 0
    assert cli("segment", "photos/one.png", "red", "--overwrite")[0] == 0
    assert given == [("cpu", "bfloat16"), ("auto", "auto")]
    for option, wrong in (("--device", "abacus"), ("--precision", "exact")):
        code, _, err = cli("segment", "photos/one.png", "red", option, wrong)
        assert code == 1
        assert wrong in err


def test_tiles_reach_the_model(cli: ToyCli) -> None:
    cli("segment", "photos/one.png", "red", "--tile", "30")
    assert cli.encoded == 6


# --- going on -----------------------------------------------------------------------------------------------------------------------------


def test_a_second_run_does_only_what_is_left(cli: ToyCli) -> None:
    cli("segment", "photos/one.png", "red")
    assert cli.encoded == 1
    code, out, _ = cli("segment", "photos", "red")
    assert code == 0
    assert cli.encoded == 3
    assert "1 from an earlier run" in out
    cli.segmenter._runner.features.clear()
    cli("segment", "photos", "red", "--overwrite")
    assert cli.encoded == 6


def test_what_a_run_wrote_is_no_photo_unless_it_is_named(cli: ToyCli) -> None:
    for place, output in ((".", "out"), (".", "elsewhere"), ("photos", "photos")):  # the last one holds photos and results alike
        for _ in range(2):
            code, out, err = cli("segment", place, "red", "-o", output)
            assert (code, err) == (0, "")
            assert f"3 photos in {output}" in out
    assert "3 photos in maps" in cli("semantic", "**/*.png", "red", "green")[1]
    Image.open("photos/one.png").save("out/mine.png")  # beside the results of this run, where no record tells
    assert "3 photos in out" in cli("segment", ".", "red")[1]
    assert "2 photos in out" in cli("segment", "out/mine.png", "out/one/overlay.png", "red")[1]


def test_another_question_is_not_done(cli: ToyCli) -> None:
    cli("segment", "photos/one.png", "red")
    _, out, _ = cli("segment", "photos/one.png", "green")
    assert "earlier" not in out
    assert [path.name for path in Path("out/one/masks").iterdir()] == ["000-green.png"]


def test_a_changed_exemplar_is_another_question(cli: ToyCli) -> None:
    ask = ("segment", "photos/one.png", "--exemplar", "photos/two.png", "0,0,10,40")
    cli(*ask)
    Image.new("RGB", (30, 40), (0, 0, 255)).save("photos/two.png")
    assert "earlier" not in cli(*ask)[1]
    assert "earlier" in cli(*ask)[1]


def test_a_model_trained_anew_answers_anew(cli: ToyCli) -> None:
    Path("mine").mkdir()
    Path("mine/model.safetensors").write_bytes(b"old")
    ask = ("segment", "photos/one.png", "red", "--model", "mine")
    cli(*ask)
    assert "earlier" in cli(*ask)[1]
    Path("mine/model.safetensors").write_bytes(b"newer")
    assert "earlier" not in cli(*ask)[1]


def test_unreadable_photos_do_not_stop_the_others(cli: ToyCli) -> None:
    Path("photos/damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    Path("photos/empty.png").write_bytes(b"")
    code, out, err = cli("segment", "photos", "missing.jpg", "red")
    assert code == 3
    assert "3 photos in out" in out
    lines = err.splitlines()
    assert len(lines) == 3
    for name, line in zip(("damaged.jpg", "empty.png", "missing.jpg"), lines, strict=True):
        assert line.startswith("promptseg: ")
        assert name in line
    assert Path("out/two/overlay.png").exists()


def test_a_place_that_cannot_be_written(cli: ToyCli) -> None:
    Path("out").write_text("a file")
    code, _, err = cli("segment", "photos/one.png", "red")
    assert code == 3
    assert "-o" in err


def test_many_photos_are_summed_up_by_prompt(cli: ToyCli) -> None:
    for index in range(45):
        Image.new("RGB", (8, 8), (255 * (index % 2), 0, 0)).save(f"photos/{index}.png")
    _, out, _ = cli("segment", "photos", "red")
    assert "24 of 48" in out


# --- errors -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("segment", "a dog"), 1, "No photo was given"),
        (("segment", "photos/one.png"), 1, "No prompt was given"),
        (("segment", "photos/one.png", " "), 1, "empty"),
        (("segment", "photos/one.png", "red", "-f", "jpeg2000"), 1, "'jpeg2000' is no format; allowed: overlay"),
        (("segment", "photos/one.png", "red", "-f", ","), 1, "No format"),
        (("segment", "photos/one.png", "--exemplar", "photos/one.png", "1,2,3,x"), 1, "X0,Y0,X1,Y1"),
        (("segment", "photos/one.png", "--exemplar", "nowhere.png", "0,0,9,9"), 1, "nowhere.png does not exist"),
        (("segment", "photos/one.png", "red", "--threshold", "2"), 2, "threshold"),
        (("segment", "nowhere.png", "red", "--threshold", "nan"), 2, "threshold"),
        (("segment", "photos/one.png", "red", "--tile", "3"), 1, "at least 16"),
        (("segment", "photos/one.png", "red", "--upsample", "cubic"), 2, "cubic"),
        (("segment", "photos/one.png", "red", "-m", "catseg-base"), 1, "'catseg-base' cannot do 'masks'. Models that can: clipseg-rd64"),
        (("segment", "photos/one.png", "--exemplar", "photos/one.png", "0,0,9,9", "-m", "psalm"), 1, "no prompts of the kind 'exemplar'"),
        (("refer", "photos/one.png", "the left cup", "-m", "pocket"), 1, "'pocket' cannot do 'refer'. Models that can: psalm"),
        (("track", "photos", "--objects", "nowhere.png"), 1, "nowhere.png cannot be read as a picture: No such file or directory."),
        (("semantic", "photos/one.png", "red", "--background", "7"), 1, "0 to 1"),
        (("semantic", "nowhere.png", "red", "--background", "nan"), 1, "0 to 1"),
        (("segment", "photos/one.png", "red", "--modle", "pocket"), 2, "No such option: --modle"),
        (("segment",), 2, "Missing argument 'PHOTO... PROMPT...'"),
        (("panoptic", "photos/one.png", "a dog"), 2, "'a dog' is no photo, folder or glob"),
        (("segmnt", "photos/one.png", "red"), 2, "No such command 'segmnt'. Did you mean 'segment'"),
    ],
)
def test_errors_are_one_line_and_have_a_code(cli: ToyCli, arguments: tuple[str, ...], code: int, says: str) -> None:
    found, out, err = cli(*arguments)
    assert found == code
    assert says in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert err.startswith("promptseg: ")
    assert not out
    if code == 2:
        assert err.endswith(f" See promptseg{'' if arguments[0] == 'segmnt' else f' {arguments[0]}'} --help.\n")


def test_a_line_without_a_verb_shows_the_verbs(cli: ToyCli) -> None:
    code, out, err = cli()
    assert (code, err) == (2, "")
    assert "segment" in out


def test_the_version(cli: ToyCli) -> None:
    assert cli("--version") == (0, f"promptseg {promptseg.__version__}\n", "")


def test_debug_shows_the_traceback(cli: ToyCli, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptseg.errors import ImageError

    monkeypatch.setattr(sys, "argv", ["promptseg", "segment", "a dog", "--debug"])
    with pytest.raises(ImageError):
        main()


@pytest.mark.parametrize("error", [ZeroDivisionError("a\nb"), PermissionError(13, "Permission denied", "out")])
def test_errors_that_nobody_foresaw_are_one_line_too(cli: ToyCli, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(promptseg.segmenter, "load", fail)
    code, _, err = cli("segment", "photos/one.png", "red")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert ("--debug" if isinstance(error, ZeroDivisionError) else "'out'") in err
    monkeypatch.setattr(sys, "argv", ["promptseg", "--debug", "segment", "photos/one.png", "red"])
    with pytest.raises(type(error)):
        main()


def test_names_that_the_terminal_cannot_show(cli: ToyCli, tmp_path: Path) -> None:
    """In a process of its own, whose output takes ASCII only; the file's name is not even text."""
    name = os.fsencode(tmp_path / "photos") + b"/caf\xe9.png"
    try:
        Image.open("photos/one.png").save(os.fsdecode(name))
    except OSError:  # macOS and Windows have no such names
        name = os.fsencode(tmp_path / "photos/Ünï cödé.png")
    code = """
import sys, toy_family, promptseg.segmenter
from promptseg.cli import main
promptseg.segmenter.load = lambda *_, **__: toy_family.segmenter()
main()
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code, "segment", name, "красный"], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout
    (folder,) = Path("out").iterdir()
    assert promptseg.Masks.load(folder).labels == ["красный"]


def test_warnings_are_one_line(cli: ToyCli, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    def ask(*_: Any, **__: Any) -> None:
        warnings.showwarning("the phrase is long", UserWarning, "file.py", 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(promptseg.segmenter, "load", ask)
    code, _, err = cli("segment", "photos/one.png", "red")
    assert code == 130
    assert err.splitlines()[0] == "promptseg: the phrase is long"


# --- semantic -----------------------------------------------------------------------------------------------------------------------------


def test_semantic_maps(cli: ToyCli) -> None:
    code, out, err = cli("semantic", "photos", "red", "green", "blue", "white", "--background", "0.5")
    assert (code, err) == (0, "")
    assert "Ünï cödé.png" in out
    labels = np.asarray(Image.open("maps/one/labels.png"))
    assert labels.shape == (40, 60)
    assert [int(labels[20, x]) for x in (5, 30, 55)] == [1, 2, 3]
    code, out, _ = cli("semantic", "photos", "red", "green", "blue", "white", "--background", "0.5")
    assert "3 from an earlier run" in out


def test_names_of_the_background_are_not_looked_for_and_synonyms_are_one_class(cli: ToyCli) -> None:
    code, out, err = cli("semantic", "photos/one.png", "red, scarlet", "green", "--background", "blue,white")
    assert (code, err) == (0, "")
    assert [line.replace("│", " ").split()[1] for line in out.splitlines() if "one.png" in line] == ["red", "green"]

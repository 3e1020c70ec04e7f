"""``promptseg groups`` and the search for what a group stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Cli
from promptseg import concepts, zoo
from promptseg.cli.photos import sort_arguments
from promptseg.errors import ConfigError, ImageError, MemoryLimitError, NumericalError, UnsupportedTask
from promptseg.segmenter import Segmenter, load
from small_groupvit import model, segmenter


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        blocks = np.random.default_rng(seed).integers(0, 255, (2, 3, 3), dtype=np.uint8).repeat(30, 0).repeat(30, 1)
        Image.fromarray(blocks).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The small network, as a folder."""
    return zoo.save_folder(model(), tmp_path / "weights", "groupvit-gcc-yfcc")


def test_photos_in_the_order_in_which_a_group_fires(folder: Path) -> None:
    photos = sorted(folder.glob("*.png"))
    maps = [segmenter().groups(photo)[1] for photo in photos]
    group = int(max(range(4), key=lambda index: sum(int(one.areas[index] > 0) for one in maps)))
    fired = concepts.fired_most(segmenter(), photos, group, stage=2)
    expected = {photo: float(one.scores[group]) for photo, one in zip(photos, maps, strict=True) if one.areas[group]}
    assert {one.photo: one.score for one in fired} == pytest.approx(expected)
    assert [one.score for one in fired] == sorted(expected.values(), reverse=True)
    assert len(concepts.fired_most(segmenter(), photos, group, stage=2, count=1)) == 1
    assert concepts.sheet(fired).width > concepts.sheet(fired[:1]).width


def test_what_there_is_not(folder: Path) -> None:
    photos = sorted(folder.glob("*.png"))
    with pytest.raises(ConfigError, match="0 to 3, not 4"):
        concepts.fired_most(segmenter(), photos, 4, stage=2)
    with pytest.raises(ConfigError, match="1 to 2"):
        concepts.fired_most(segmenter(), photos, 0, stage=3)
    with pytest.raises(ConfigError, match="no pixel"):
        concepts.sheet([])
    with pytest.raises(ImageError):
        concepts.fired_most(segmenter(), [folder / "none.png"], 0)
    heard: list[Path] = []
    concepts.fired_most(segmenter(), [folder / "none.png"], 0, failed=lambda photo, error: heard.append(photo))
    assert heard == [folder / "none.png"]
    with pytest.raises(UnsupportedTask, match="groupvit-gcc-yfcc"):
        concepts.fired_most(load("pocket", device="cpu"), photos, 0)


def test_command(cli: Cli, folder: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    code, out, err = cli("groups", str(folder / "0.png"), "-m", str(weights), "-o", str(output), "--device", "cpu")
    assert (code, err) == (0, "")
    first, second = segmenter().groups(folder / "0.png")
    shown = np.flatnonzero(first.areas).tolist()
    wholes = {whole: [str(part) for part in shown if first.parents[part] == whole] for whole in range(4)}
    made = ", ".join(f"{whole} of {' '.join(parts)}" for whole, parts in wholes.items() if parts)
    assert f"stage 1: {len(shown)} groups, stage 2: {np.count_nonzero(second.areas)} groups ({made}) -> " in out
    assert sorted(path.name for path in (output / "0").iterdir()) == [
        "done.json", "stage-1-labels.png", "stage-1.png", "stage-2-labels.png", "stage-2.png",
    ]  # fmt: skip
    owned = int(np.flatnonzero(segmenter().groups(folder / "0.png")[0].areas)[0])
    (folder / "damaged.png").write_bytes(b"no picture")
    code, out, err = cli("groups", str(folder), "--token", str(owned), "-m", str(weights), "-o", str(output), "--device", "cpu")
    assert code == 3
    assert "damaged.png" in err
    assert (output / f"stage-1-group-{owned}" / "sheet.png").is_file()
    code, _, err = cli("groups", str(folder), "--token", "6", "-m", str(weights), "-o", str(output), "--device", "cpu")
    assert (code, "0 to 5" in err) == (1, True)


def test_photos_of_one_name_do_not_meet(cli: Cli, folder: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    other = (folder / "1.png").rename(tmp_path / "0.png")
    for further in ((), ("--vis", "final_group")):
        code, out, _ = cli("groups", str(folder / "0.png"), str(other), *further, "-m", str(weights), "-o", str(output), "--device", "cpu")
        places = [Path(line.rsplit(" -> ", 1)[1]) for line in out.splitlines() if " -> " in line]
        assert (code, len(set(places)), {place.parent for place in places}) == (0, 2, {output})
        name = "final_group.png" if further else "stage-2-labels.png"
        assert len({(place / name).read_bytes() for place in places}) == 2


def test_photos_that_cannot_be_read_are_named_whatever_follows(cli: Cli, folder: Path, weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    common = ("-m", str(weights), "-o", str(tmp_path / "out"), "--device", "cpu")
    code, out, err = cli("groups", str(damaged), "--token", "1", *common)
    assert (code, out, err.count("damaged.png"), "no pixel" in err) == (3, "", 1, False)
    code, _, err = cli("groups", str(damaged), str(folder / "0.png"), *common)
    assert (code, "damaged.png" in err, (tmp_path / "out" / "0" / "stage-1.png").is_file()) == (3, True, True)


def test_what_cannot_be_is_told_before_the_first_photo_is_looked_at(cli: Cli, folder: Path, weights: Path, tmp_path: Path) -> None:
    (folder / "0.png").write_bytes(b"no picture")
    for words, expected, message in (
        (("--token", "6"), 1, "0 to 5, not 6"),
        (("--stage", "9"), 1, "stage is 1 to 2 for this model, not 9"),
        (("--stage", "9", "--token", "1"), 1, "stage is 1 to 2"),
        (("--count", "3"), 2, "--count is of the sheet"),
        (("--vis", "input", "-c", "dog"), 2, "names nothing: add one of pred, input_pred"),
        (("--vis", "input,final_group", "--mode", "whole"), 2, "names nothing"),
        (("--vis", "all_groups", "--background", "0.5"), 2, "names nothing"),
        (("--vis", "first_group", "--vocabulary", "voc21-groupvit"), 2, "names nothing"),
    ):
        code, _, err = cli("groups", str(folder / "0.png"), *words, "-m", str(weights), "-o", str(tmp_path / "out"), "--device", "cpu")
        err = " ".join(err.replace("│", " ").split())
        assert (code, message in err, "0.png" in err) == (expected, True, False), err


def test_questions_leave_the_answers_to_others_alone(
    cli: Cli, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, place = folder / "0.png", tmp_path / "out" / "0"
    looked: list[object] = []
    groups = Segmenter.groups
    monkeypatch.setattr(Segmenter, "groups", lambda self, image: looked.append(image) or groups(self, image))

    def ask(*words: str) -> str:
        looked.clear()
        code, out, err = cli("groups", str(photo), *words, "-m", str(weights), "-o", str(tmp_path / "out"), "--device", "cpu")
        assert (code, err) == (0, "")
        return out

    stages = {"stage-1", "stage-1-labels", "stage-2", "stage-2-labels"}
    ask("--stage", "1")
    ask()
    ask("--vis", "final_group,pred", "-c", "dog", "-c", "grass")
    written = {path.stem: path.stat().st_mtime_ns for path in place.glob("*.png")}
    assert written.keys() == {*stages, "final_group", "pred"}
    for words in ((), ("--stage", "2"), ("--vis", "final_group"), ("--vis", "pred,final_group", "-c", "dog", "-c", "grass")):
        assert "1 from an earlier run; --overwrite makes them anew" in ask(*words)
        assert not looked
    ask("--vis", "pred,final_group", "-c", "cat", "-c", "grass", "--background", "0")
    again = {path.stem: path.stat().st_mtime_ns for path in place.glob("*.png")}
    assert {name for name in written if again[name] != written[name]} == {"pred"}, "the other names are asked for, nothing else"
    ask("--overwrite")
    assert {path.stem for path in place.glob("*.png") if path.stat().st_mtime_ns != again[path.stem]} == stages
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(photo)
    ask("--stage", "1")
    assert {path.stem for path in place.glob("*.png")} == {"stage-1", "stage-1-labels"}, "what another photo of this name gave is no answer"


def test_what_it_wrote_is_no_photo_of_the_next_run(
    cli: Cli, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    photos = sort_arguments(["."], need_prompt=False).photos
    common = ("-m", str(weights), "--device", "cpu")
    (owned, *_) = np.flatnonzero(segmenter().groups(folder / "0.png")[0].areas).tolist()
    assert cli("groups", ".", "--token", str(owned), *common)[0] == 0
    assert cli("groups", ".", *common)[0] == cli("groups", ".", "--vis", "input", *common)[0] == 0
    assert len(list(folder.rglob("*.png"))) == 3 + 1 + 3 * 5
    assert sort_arguments(["."], need_prompt=False).photos == photos
    monkeypatch.setattr(Segmenter, "groups", None)  # a sheet of the same photos is there already
    code, out, _ = cli("groups", ".", "--token", str(owned), *common)
    assert (code, out.count(" of the photo"), out.splitlines()[-1]) == (0, out.count("share"), f"-> groups/stage-1-group-{owned}/sheet.png")
    assert "0.png: share" in out


def test_photos_that_fail_otherwise_do_not_stop_the_rest(
    cli: Cli, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = Segmenter.groups

    def picky(self: Segmenter, image: Path) -> object:
        for name, error in (("0.png", MemoryLimitError), ("1.png", NumericalError)):
            if image.name == name:
                raise error("too much")
        return groups(self, image)

    monkeypatch.setattr(Segmenter, "groups", picky)
    (owned, *_) = np.flatnonzero(segmenter().groups(folder / "2.png")[0].areas).tolist()
    for words, made in (
        ((), "2/stage-2.png"),
        (("--vis", "final_group"), "2/final_group.png"),
        (("--token", str(owned)), f"stage-1-group-{owned}/sheet.png"),
    ):
        code, out, err = cli("groups", str(folder), *words, "-m", str(weights), "-o", str(tmp_path / "out"), "--device", "cpu")
        assert (code, err.count("too much"), "0.png" in err, "1.png" in err, "2.png" in out) == (3, 2, True, True, True)
        assert (tmp_path / "out" / made).is_file()

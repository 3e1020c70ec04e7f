"""``promptseg groups`` and the search for what a group stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Cli
from promptseg import concepts, zoo
from promptseg.errors import ConfigError, ImageError, UnsupportedTask
from promptseg.segmenter import load
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


def test_command(cli: Cli, folder: Path, tmp_path: Path) -> None:
    weights = zoo.save_folder(model(), tmp_path / "weights", "groupvit-gcc-yfcc")
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
    assert (output / f"stage-1-group-{owned}.png").is_file()
    code, _, err = cli("groups", str(folder), "--token", "6", "-m", str(weights), "-o", str(output), "--device", "cpu")
    assert (code, "0 to 5" in err) == (1, True)


def test_photos_of_one_name_do_not_meet(cli: Cli, folder: Path, tmp_path: Path) -> None:
    weights, output = zoo.save_folder(model(), tmp_path / "weights", "groupvit-gcc-yfcc"), tmp_path / "out"
    other = (folder / "1.png").rename(tmp_path / "0.png")
    for further in ((), ("--vis", "final_group")):
        code, out, _ = cli("groups", str(folder / "0.png"), str(other), *further, "-m", str(weights), "-o", str(output), "--device", "cpu")
        places = [Path(line.rsplit(" -> ", 1)[1]) for line in out.splitlines()]
        assert (code, len(set(places)), {place.parent for place in places}) == (0, 2, {output})
        name = "final_group.png" if further else "stage-2-labels.png"
        assert len({(place / name).read_bytes() for place in places}) == 2


def test_photos_that_cannot_be_read_are_named_whatever_follows(cli: Cli, folder: Path, tmp_path: Path) -> None:
    weights = zoo.save_folder(model(), tmp_path / "weights", "groupvit-gcc-yfcc")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    common = ("-m", str(weights), "-o", str(tmp_path / "out"), "--device", "cpu")
    code, out, err = cli("groups", str(damaged), "--token", "1", *common)
    assert (code, out, err.count("damaged.png"), "no pixel" in err) == (3, "", 1, False)
    code, _, err = cli("groups", str(damaged), str(folder / "0.png"), "--token", "6", *common)
    assert (code, "damaged.png" in err, "0 to 5" in err) == (1, True, True)

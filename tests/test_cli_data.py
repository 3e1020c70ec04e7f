"""``promptseg data``: the list, the layouts, and the check of a data set on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import replicas
from promptseg.cli import app
from promptseg.data.catalogue import SETS
from promptseg.data.own import own
from promptseg.data.samples import spread
from promptseg.data.sheet import GAP, SIDE, compared, contact_sheet
from promptseg.errors import DataError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_list_names_every_set() -> None:
    output = run("list").output
    assert all(name in output for name in SETS)


@pytest.mark.parametrize("name", SETS)
def test_every_layout_says_where_photos_lie(name: str) -> None:
    output = run("list", name).output
    assert "ROOT" in output
    assert "Raises" not in output
    assert f"Split unless named: {SETS[name].split}" in output
    assert SETS[name].source in output


def test_a_whole_set(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = run("check", "voc", replicas.voc(tmp_path), "--sheet", sheet)
    assert result.exit_code == 0, result.output
    assert "4 photos, 21 classes" in result.output
    assert "note: classes that no photo shows: bird; boat; bottle and 14 more" in result.output
    assert "note: 1449 photos are published, 4 are listed here" in result.output
    assert "Everything is there" in result.output
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 328 + 8, 328 + 8)


def test_a_part_of_a_set(tmp_path: Path) -> None:
    result = run("check", "voc", replicas.voc(tmp_path), "--sheet", tmp_path / "sheet.png", "--only", "2")
    assert "voc: 2 photos" in result.output
    assert "4 are listed here" in result.output


def test_mistakes_set_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    replicas.own_maps(tmp_path / "own", values=(0, 2, 3))
    (tmp_path / "own" / "images" / "a.jpg").unlink()
    result = run("check", "own", tmp_path / "own")
    assert result.exit_code == 1
    assert "wrong: annotations that cannot be used: " in result.output
    assert "wrong: label maps without a photo in images: " in result.output
    assert not list(tmp_path.glob("*.png"))  # nothing could be drawn


def test_a_set_of_another_name() -> None:
    result = run("check", "voc2012", "x")
    assert isinstance(result.exception, DataError)
    assert "`promptseg data list`" in str(result.exception)


def test_photos_are_packed_and_read_again(tmp_path: Path) -> None:
    result = run("pack", "own", replicas.own_yolo(tmp_path / "own"), "-o", tmp_path / "shards", "--per-shard", "2")
    assert "2 tar files" in result.output
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 2
    result = run("check", "own", tmp_path / "shards", "--sheet", tmp_path / "sheet.png")
    assert "own: 3 photos, 2 classes" in result.output
    assert "Everything is there" in result.output


def test_a_sheet_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    photos = own(replicas.own_yolo(tmp_path))
    (tmp_path / "images" / "train" / "a.jpg").write_bytes(b"")
    sheet = contact_sheet(photos)
    assert sheet is not None
    assert sheet.size == (2 * 328 + 8, 328 + 8)


def test_what_is_said_lies_beside_the_truth() -> None:
    photo, left = np.full((40, 40, 3), 90, dtype=np.uint8), np.arange(40)[None] < np.full((40, 1), 20)
    truth = {"cup": left, "spoon": ~left}
    sheet = np.asarray(compared([(photo, truth, truth), (photo, {"spoon": left}, truth), (photo, {}, {})]))
    assert sheet.shape == (2 * (SIDE + GAP) + GAP, 4 * (SIDE + GAP) + GAP, 3)
    cells = [sheet[row + GAP : row + GAP + SIDE, column + GAP : column + GAP + SIDE]
             for row in (0, SIDE + GAP) for column in range(0, 4 * (SIDE + GAP), SIDE + GAP)]  # fmt: skip
    assert (cells[0] == cells[1]).all()
    assert (cells[2][200, 40] == cells[3][200, 280]).all(), "a spoon's colour is the same in both"
    assert not (cells[2][200, 40] == cells[3][200, 40]).all()
    assert (cells[4] == cells[5]).all()
    assert [len(spread(range(count))) for count in (0, 1, 6, 7, 100)] == [0, 1, 6, 4, 6]


def test_the_page_shows_every_layout_as_it_is() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    assert not [name for name, entry in SETS.items() if f"```text\n{entry.layout}\n```" not in page or entry.source not in page]

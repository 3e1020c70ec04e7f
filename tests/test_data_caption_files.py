"""Published lists of captions, in miniature, cleaned and packed."""

from __future__ import annotations

import csv
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import small_captions
from promptseg.cli import app
from promptseg.data import caption_files
from promptseg.data.caption_files import cc3m, cleaned, redcaps, yfcc
from promptseg.data.captions import captioned_photos
from promptseg.errors import DataError, ExportError

KEYS = [f"{number:03x}{number:03x}{'0' * 26}" for number in range(8)]
DESCRIPTIONS = [
    "My+dog%2C+asleep", "<b>A red</b> <a href='x'>barn</a>", "single", None, "two%0Alines", "a+b", "elsewhere though", "100%25+wool",
]  # fmt: skip


def prepare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)], env={"COLUMNS": "200"})


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


def test_cleaning() -> None:
    assert cleaned("My+dog%2C+asleep") == "My dog, asleep"
    assert cleaned("<b>A red</b> <a href='x'>barn</a>%0A%3Ci%3Ein%3C/i%3E snow") == "A red barn in snow"


@pytest.mark.parametrize(("name", "swapped"), [("cc3m", True), ("cc12m", False)])
def test_conceptual_captions(name: str, swapped: bool, tmp_path: Path) -> None:
    """CC3M has the caption first, CC12M the address."""
    lines = [("http://x.org/1.jpg", 'a "quoted" dog'), ("http://x.org/2.jpg", ""), ("no address", "a cat"), ("https://x.org/3", "a cat")]
    file = tmp_path / "list.tsv"
    file.write_text("".join("\t".join(pair[::-1] if swapped else pair) + "\n" for pair in lines) + "broken line\n", encoding="utf-8")
    result = prepare(name, file, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"{name}.tsv: 2" in result.output
    found = table(tmp_path / "out" / f"{name}.tsv")
    assert found == [["url", "caption"], ["http://x.org/1.jpg", 'a "quoted" dog'], ["https://x.org/3", "a cat"]]


def redcaps_folder(root: Path) -> Path:
    root.mkdir()
    for place, name in enumerate(("cats_2020", "ants_2019")):
        entries = [{"url": f"http://r/{name}/{number}", "caption": f"the\t{name}\n{number}", "score": 1} for number in range(3 + place)]
        (root / f"{name}.json").write_text(json.dumps({"info": {}, "annotations": entries}))
    return root


def test_redcaps(tmp_path: Path) -> None:
    folder = redcaps_folder(tmp_path / "annotations")
    assert prepare("redcaps", folder, "--output", tmp_path / "one").exit_code == 0
    assert prepare("redcaps", folder, "--output", tmp_path / "two", "--parts", 2).exit_code == 0
    whole = table(tmp_path / "one" / "redcaps.tsv")[1:]
    assert sorted(whole)[0] == ["http://r/ants_2019/0", "the ants_2019 0"]
    assert len(whole) == 7
    assert whole != sorted(whole), "shuffled"
    parts = [table(tmp_path / "two" / f"redcaps_part{part}.tsv")[1:] for part in range(2)]
    assert parts == [whole[0::2], whole[1::2]], "dealt out in turn"


def yfcc_files(root: Path) -> list[Path]:
    """Six of eight photos are in the subset; in the zip files one is there twice and one is none of the subset."""
    root.mkdir()
    subset, database = root / "yfcc100m_subset_data.tsv", root / "yfcc100m_dataset.sql"
    subset.write_text("".join(f"{line}\t{100 + number}\t{KEYS[number]}\n" for line, number in enumerate((0, 1, 2, 3, 4, 7))))
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE yfcc100m_dataset (photoid INTEGER, uid TEXT, description TEXT)")
    connection.executemany("INSERT INTO yfcc100m_dataset VALUES (?, 'x', ?)", [(100 + n, text) for n, text in enumerate(DESCRIPTIONS)])
    connection.commit()
    connection.close()
    zips = [root / "images-000.zip", root / "images-001.zip"]
    for place, numbers in enumerate(((0, 1, 2, 6), (4, 0, 7))):
        with zipfile.ZipFile(zips[place], "w") as archive:
            archive.writestr("data/images/readme.txt", "no photo")
            for number in numbers:
                name = list(small_captions.COLOURS)[number]
                archive.writestr(f"data/images/{KEYS[number][:3]}/{KEYS[number]}.jpg", small_captions.encoded(name, number))
    return [subset, database, *zips]


def test_yfcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_files, "PER_SHARD", 3)
    files = yfcc_files(tmp_path / "yfcc")
    result = prepare("yfcc", *files, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = table(tmp_path / "out" / "yfcc14m.tsv")
    assert found[:2] == [["file", "caption"], [f"000/000/{KEYS[0]}.jpg", "My dog, asleep"]]
    captions = {"My dog, asleep": 0, "A red barn": 1, "two lines": 4, "100% wool": 7}
    assert [row[1] for row in found[1:]] == list(captions)
    photos = captioned_photos(tmp_path / "out")
    assert [photo.captions for photo in photos] == [(caption,) for caption in captions]
    assert [photo.id.split("/") for photo in photos] == [
        [f"yfcc14m-{place // 3:06d}", KEYS[number]] for place, number in enumerate(captions.values())
    ]
    assert all(photo.image().shape == (40, 48, 3) for photo in photos)
    assert {path.name: count for path, count in yfcc(files, tmp_path / "again").items()} == {
        "yfcc14m.tsv": 4, "yfcc14m-000000.tar": 3, "yfcc14m-000001.tar": 1,
    }  # fmt: skip


def test_shards_end_before_they_grow_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_files, "SHARD_BYTES", 1)
    yfcc(yfcc_files(tmp_path / "yfcc"), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.tar"))) == 4


def test_mistakes_are_named(tmp_path: Path) -> None:
    subset, database, first, _ = yfcc_files(tmp_path / "yfcc")
    (tmp_path / "empty.tsv").write_text("no tabs\n")
    with pytest.raises(DataError, match=r"Nothing is left for .*cc3m\.tsv"):
        cc3m([tmp_path / "empty.tsv"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(DataError, match="cannot be read: No such file"):
        cc3m([tmp_path / "gone.tsv"], tmp_path / "out")
    with pytest.raises(DataError, match="YFCC takes two files"):
        yfcc([subset], tmp_path / "out")
    with pytest.raises(DataError, match="is not line, photo id and key"):
        yfcc([tmp_path / "empty.tsv", database], tmp_path / "out")
    with pytest.raises(DataError, match="is no database"):
        yfcc([subset, first], tmp_path / "out")
    with pytest.raises(DataError, match="is not there"):
        yfcc([subset, tmp_path / "gone.sql"], tmp_path / "out")
    with pytest.raises(DataError, match="cannot be read as a zip file"):
        yfcc([subset, database, subset], tmp_path / "out")
    with pytest.raises(ExportError, match="is there already"):
        yfcc([subset, database], tmp_path / "out")
    (tmp_path / "coco.json").write_text('{"annotations": [{"image_id": 1}]}')
    with pytest.raises(DataError, match="no file of RedCaps"):
        redcaps([tmp_path / "coco.json"], tmp_path / "out")
    with pytest.raises(DataError, match="at least one part"):
        redcaps([redcaps_folder(tmp_path / "annotations")], tmp_path / "out", parts=0)

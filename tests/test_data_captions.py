"""Photos with captions: a folder with a table, and tar files."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

import small_captions
from promptseg.data.captions import CaptionShards, captioned_folder, captioned_photos, captioned_shards, names
from promptseg.errors import DataError


def test_a_photo_has_all_its_captions(tmp_path: Path) -> None:
    photos = captioned_photos(small_captions.folder(tmp_path))
    assert [one.id for one in photos] == names(photos) == [f"{place:03d}" for place in range(8)]
    assert photos[0].captions == ("the tomato", "a tomato, closely")
    np.testing.assert_array_equal(photos[2].image(), np.asarray(small_captions.photo("ocean", 2)))


def test_lines_of_a_photo_need_not_follow_each_other(tmp_path: Path) -> None:
    small_captions.folder(tmp_path)
    (tmp_path / "captions.csv").write_text("\ufeffimage,caption\n001.png,one\n000.png,two\n\n001.png, three \n", encoding="utf-8")
    assert [(one.id, one.captions) for one in captioned_folder(tmp_path)] == [("001", ("one", "three")), ("000", ("two",))]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("picture,text\n000.png,a dog\n", "begins with 'picture,text'; its first line must be image,caption"),
        ("", "its first line must be image,caption"),
        ("image,caption\n", "no captions below its header"),
        ("image,caption\n000.png,a dog, asleep\n", "line 2: '000.png,a dog, asleep' is not a photo and a caption; quote"),
        ("image,caption\n000.png,a dog\n000.png,\n", "line 3"),
        ("image,caption\ngone.png,a dog\n", "names 1 photos that are not in .*images, such as gone.png"),
        ('image,caption\n000.png,"a dog\n', "cannot be read: unexpected end of data"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, table: str, message: str) -> None:
    small_captions.folder(tmp_path)
    (tmp_path / "captions.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        captioned_photos(tmp_path)


def test_tables_of_another_encoding_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        captioned_folder(tmp_path)
    small_captions.folder(tmp_path)
    (tmp_path / "captions.csv").write_bytes("image,caption\n000.png,Tür\n".encode("latin-1"))
    with pytest.raises(DataError, match="It is a UTF-8 table"):
        captioned_folder(tmp_path)


def test_shards_below_a_folder_are_one_data_set(tmp_path: Path) -> None:
    photos = captioned_photos(small_captions.shards(tmp_path))
    assert isinstance(photos, CaptionShards)
    assert [one.captions for one in photos] == [(f"the {name}",) for name in small_captions.COLOURS], "incomplete ones are left out"
    assert photos[0].id == "000000/000000000"
    shown, drawn = photos[6].image().astype(int), np.asarray(small_captions.photo("plum", 2)).astype(int)
    assert shown.shape == (40, 48, 3)
    assert np.abs(shown.mean((0, 1)) - drawn.mean((0, 1))).max() < 3
    part = photos[2:5]
    assert (len(part), part[0].captions, names(part)) == (3, photos[2].captions, names(photos)[2:5])


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.tar files"):
        captioned_shards(tmp_path)
    with pytest.raises(DataError, match="holds no photos with captions: put captions"):
        captioned_photos(tmp_path)
    file = tmp_path / "000000.tar"
    with tarfile.open(file, "w:gz") as tar:
        small_captions.add(tar, "1.txt", b"a dog")
    with pytest.raises(DataError, match="complete and not compressed"):
        captioned_shards(tmp_path)
    with tarfile.open(file, "w") as tar:
        small_captions.add(tar, "1.txt", b"a dog")
        small_captions.add(tar, "2.jpg", b"no picture")
    with pytest.raises(DataError, match=r"No photo in the 1 tar files .* has a caption"):
        captioned_shards(tmp_path)
    with tarfile.open(file, "w") as tar:
        small_captions.add(tar, "1.jpg", b"no picture")
        small_captions.add(tar, "1.txt", b"a dog")
        small_captions.add(tar, "2.jpg", small_captions.encoded("plum", 2))
        small_captions.add(tar, "2.txt", "Tür".encode("latin-1"))
    photos = captioned_shards(tmp_path)
    with pytest.raises(DataError, match="the photo of 000000/1 cannot be read"):
        photos[0].image()
    with pytest.raises(DataError, match="the caption of 000000/2 cannot be read"):
        photos[1]

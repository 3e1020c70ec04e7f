"""``promptseg data prepare`` on miniature downloads: files, values and sizes of the published preparation, read back by our readers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import replicas
import small_downloads
from promptseg.cli import app
from promptseg.data import catalogue, preparation, vocabularies
from promptseg.data.preparation import PREPARATIONS, prepare
from promptseg.data.samples import IGNORE
from promptseg.errors import DataError, ExportError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)], env={"COLUMNS": "200"})


def values(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def rows(file: Path) -> list[int]:
    """The value of every row of a map of horizontal stripes."""
    found = values(file)
    assert (found == found[:, :1]).all()
    return [int(value) for value in found[:, 0]]


def test_ade847(tmp_path: Path) -> None:
    root = small_downloads.ade847(tmp_path)
    result = run("ade847", root)
    assert result.exit_code == 0, result.output
    assert "4 files written" in result.output
    place = root / "ADE20K_2021_17_01"
    large, small = (place / "annotations_detectron2" / "validation" / f"ADE_val_0000000{number}.tif" for number in (1, 2))
    assert values(large).dtype == np.uint16
    assert values(large).shape == (512, round(700 / 620 * 512))
    source = np.repeat([0, 1, 65535, 843], 155).astype(np.int32)[:, None].repeat(700, 1)
    np.testing.assert_array_equal(values(large), cv2.resize(source, (578, 512), interpolation=cv2.INTER_NEAREST))
    assert rows(small) == [0] * 7 + [1] * 8 + [65535] * 7 + [843] * 8
    samples = catalogue.read("ade847", root)
    assert [photo.image().shape for photo in samples] == [(512, 578, 3), (30, 40, 3)]
    assert np.unique(samples[0].labels()).tolist() == [IGNORE, 0, 1, 843]


@pytest.mark.parametrize("shape", [(620, 700), (1531, 513), (800, 800), (513, 2049)])
def test_sizes_and_pixels_are_those_of_opencv(shape: tuple[int, int], tmp_path: Path) -> None:
    """Maps exactly; photos but for the last bit."""
    size = preparation._shrunk(shape)
    assert min(size) == 512
    numbers = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
    ours = numbers[preparation._nearest(shape[0], size[0])[:, None], preparation._nearest(shape[1], size[1])]
    np.testing.assert_array_equal(ours, cv2.resize(numbers, size[::-1], interpolation=cv2.INTER_NEAREST))
    replicas.photo(tmp_path / "a.jpg", shape)
    photo = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    theirs = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(preparation._shrunk_photo(tmp_path / "a.jpg").astype(int) - theirs).max() <= 1


def test_small_photos_keep_their_size() -> None:
    assert preparation._shrunk((512, 3000)) == (512, 3000)
    assert preparation._shrunk((100, 90)) == (100, 90)


def test_ade150(tmp_path: Path) -> None:
    root = replicas.ade150(tmp_path)
    prepare("ade150", root)
    made = values(root / "ADEChallengeData2016" / "annotations_detectron2" / "validation" / "ADE_val_00000001.png")
    source = values(root / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_val_00000001.png")
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, source - np.uint8(1))


def test_context59(tmp_path: Path) -> None:
    root = small_downloads.context(tmp_path)
    prepare("context59", root)
    folder = root / "VOCdevkit" / "VOC2010" / "annotations_detectron2" / "pc59_val"
    assert sorted(file.name for file in folder.iterdir()) == ["2008_000002.png", "2008_000007.png"]
    names, made = vocabularies.names("context59"), values(folder / "2008_000002.png")
    assert names[made[0, 0]] == "motorbike"
    assert names[made[6, 20]] == "aeroplane"  # over the motorbike
    assert made[6, 6] == 255  # background over the aeroplane
    assert made[12, 22] == 255  # a class that is none of the 59
    assert made[26, 3] == 255  # nothing
    assert names[made[29, 3]] == "wood"
    np.testing.assert_array_equal(catalogue.read("context59", root)[0].labels(), np.where(made == 255, IGNORE, made.astype(int)))


def test_context459(tmp_path: Path) -> None:
    root = small_downloads.context(tmp_path)
    assert prepare("context459", root).new == 2
    folder = root / "VOCdevkit" / "VOC2010" / "annotations_detectron2" / "pc459_val"
    assert values(folder / "2008_000002.tif").dtype == np.uint16
    assert rows(folder / "2008_000002.tif") == [0] * 10 + [257] * 2 + [458] * 18
    assert rows(folder / "2008_000007.tif")[:11] == [65535] * 10 + [257]
    assert catalogue.read("context459", root)[1].labels()[0, 0] == IGNORE


def test_voc(tmp_path: Path) -> None:
    root = replicas.voc(tmp_path)
    place = root / "VOCdevkit" / "VOC2012"
    replicas.labels(place / "SegmentationClassAug" / "2007_000001.png", np.array([[0, 1, 20, 255]], np.uint8))
    replicas.labels(place / "SegmentationClassAug" / "2007_000002.png", np.array([[0, 0, 255, 255]], np.uint8))
    replicas.labels(place / "SegmentationClassAug" / "2007_000003.png", np.array([[255, 255]], np.uint8))
    prepare("voc20", root)
    assert values(place / "annotations_detectron2" / "val" / "2007_000001.png").tolist() == [[255, 0, 19, 255]]
    assert [file.stem for file in sorted((place / "annotations_detectron2" / "val").iterdir())] == ["2007_000001", "2007_000004"]
    prepare("voc20b", root)
    with_background = place / "annotations_detectron2_bg" / "val"
    assert values(with_background / "2007_000001.png").tolist() == [[20, 0, 19, 255]]
    assert sorted(file.stem for file in with_background.iterdir()) == ["2007_000001", "2007_000002", "2007_000004"]


@pytest.mark.parametrize("published", [True, False])
def test_coco_stuff(published: bool, tmp_path: Path) -> None:
    """From either place where the maps may lie."""
    root = (small_downloads if published else replicas).coco_stuff(tmp_path)
    assert len(prepare("coco-stuff", root).folders) == (2 if published else 1)
    if published:
        assert rows(root / "annotations_detectron2" / "train2017" / "000000000009.png") == [0] * 10 + [255] * 2 + [79] * 2 + [170] * 16
    else:
        assert set(np.unique(values(root / "annotations_detectron2" / "val2017" / "000000000001.png")).tolist()) == {16, 112, 255}


def test_tables_are_the_published_ones() -> None:
    """Codes of ADE20K and ids of PASCAL-Context, class by class."""

    def digest(numbers: list[int]) -> str:
        return hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:16]

    codes, ids = vocabularies.table("ade847")["codes"], vocabularies.table("context59")["ids"]
    assert (len(set(codes)), digest(codes)) == (847, "bcfc1752c4119012")
    assert (len(set(ids)), digest(ids)) == (59, "2a01c8aa031c8f92")
    assert ids == sorted(ids)


def test_what_is_there_stays_and_the_rest_is_done(tmp_path: Path) -> None:
    root = small_downloads.context(tmp_path)
    first = root / "VOCdevkit" / "VOC2010" / "annotations_detectron2" / "pc59_val" / "2008_000002.png"
    replicas.labels(first, np.zeros((2, 2), np.uint8))
    result = run("context59", root / "VOCdevkit" / "VOC2010")
    assert "1 files written, 1 were there already" in result.output
    assert values(first).shape == (2, 2)
    assert not list(first.parent.glob("*.part"))


# --- what cannot be -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PREPARATIONS)
def test_a_folder_without_the_download(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Check|Unpack"):
        prepare(name, tmp_path)


def test_voc_needs_the_augmented_maps(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SegmentationClassAug\.zip"):
        prepare("voc20", replicas.voc(tmp_path, aug=False))


def test_context_needs_its_list_and_files(tmp_path: Path) -> None:
    root = small_downloads.context(tmp_path)
    place = root / "VOCdevkit" / "VOC2010"
    (place / "trainval" / "2008_000002.mat").write_bytes(b"no mat")
    with pytest.raises(DataError, match="LabelMap"):
        prepare("context459", root)
    (place / "pascalcontext_val.txt").write_text("2008_000009\n")
    with pytest.raises(DataError, match=r"trainval\.tar\.gz"):
        prepare("context459", root)
    (place / "pascalcontext_val.txt").unlink()
    with pytest.raises(DataError, match="cvlab-kaist/CAT-Seg"):
        prepare("context459", root)


def test_classes_beyond_the_459(tmp_path: Path) -> None:
    from scipy.io import savemat

    root = small_downloads.context(tmp_path)
    savemat(root / "VOCdevkit" / "VOC2010" / "trainval" / "2008_000002.mat", {"LabelMap": np.full((3, 4), 460, np.uint16)})
    with pytest.raises(DataError, match="1 to 459"):
        prepare("context459", root)


@pytest.mark.parametrize("content", [{"images": [{"image_id": 1}]}, [], {"images": 3, "annos_segmentation": []}])
def test_another_json(content: Any, tmp_path: Path) -> None:
    root = small_downloads.context(tmp_path)
    replicas.write_json(root / "VOCdevkit" / "VOC2010" / "trainval_merged.json", content)
    with pytest.raises(DataError, match="trainval_merged"):
        prepare("context59", root)


def test_damaged_runs(tmp_path: Path) -> None:
    root = small_downloads.context(tmp_path)
    file = root / "VOCdevkit" / "VOC2010" / "trainval_merged.json"
    file.write_text(file.read_text().replace('"size": [30, 40]', '"size": [3, 4]').replace('"counts": "', '"counts": "1'))
    with pytest.raises(DataError, match="2008000002 is damaged"):
        prepare("context59", root)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    root = replicas.ade150(tmp_path)
    (root / "ADEChallengeData2016" / "annotations_detectron2").write_text("a file")
    with pytest.raises(ExportError, match="cannot be written"):
        prepare("ade150", root)


def test_two_folders_or_another_name(tmp_path: Path) -> None:
    assert isinstance(run("ade150", tmp_path, tmp_path).exception, DataError)
    assert "ade150" in str(run("ade15", tmp_path).exception)
    with pytest.raises(DataError, match="ade150"):
        prepare("ade15", tmp_path)

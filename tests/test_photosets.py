"""Readers of annotated photographs, on miniature replicas of each format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from promptseg.data import photosets
from promptseg.errors import DataError


def _image(path: Path, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    region = np.zeros((16, 20), np.uint8)
    region[4:12, 10:18] = 1
    packed = coco_mask.encode(np.asfortranarray(region))
    packed["counts"] = packed["counts"].decode()
    table = {
        "images": [{"id": 7, "file_name": "7.jpg", "height": 16, "width": 20}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": [[2, 2, 8, 2, 8, 10, 2, 10]]},
            {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [16, 20], "counts": [100, 60, 160]}},
            {"id": 3, "image_id": 7, "category_id": 2, "iscrowd": 0, "segmentation": packed},
        ],
    }
    _image(tmp_path / "images" / "7.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(table))
    return tmp_path


def test_coco_masks_absences_and_crowds(coco_root: Path) -> None:
    (photo,) = photosets.coco(coco_root)
    assert photo.present == ("dog", "person")
    assert photo.absent == ("cat",)
    masks, unknown = photo.masks()
    wanted = np.zeros((16, 20), bool)
    wanted[2:10, 2:8] = True
    assert (masks["person"] == wanted).mean() > 0.97
    assert masks["dog"].sum() == 64
    assert unknown.any()
    assert not (unknown & masks["dog"]).any()


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_cocos(seed: int) -> None:
    truth = np.random.default_rng(seed).random((37, 53)) > 0.5
    packed = coco_mask.encode(np.asfortranarray(truth.astype(np.uint8)))
    np.testing.assert_array_equal(photosets.segmentation_mask(packed, (37, 53)), truth)


def test_label_maps_ignore_what_is_not_labelled(tmp_path: Path) -> None:
    labels = np.zeros((16, 20), np.uint8)
    labels[:4], labels[8:12] = 1, 2
    (tmp_path / "labels").mkdir()
    Image.fromarray(labels).save(tmp_path / "labels" / "a.png")
    _image(tmp_path / "images" / "a.jpg")
    (tmp_path / "classes.txt").write_text("sky\ngrass\nhorse\n")
    (photo,) = photosets.label_maps(tmp_path, "msrc", drop=("grass",))
    assert photo.present == ("sky",)
    assert photo.absent == ("horse",)
    masks, unknown = photo.masks()
    assert masks["sky"].sum() == 80
    assert unknown.sum() == 16 * 20 - 80
    (complete,) = photosets.label_maps(tmp_path, "ccp", zero_is_known=True)
    assert not complete.masks()[1].any()


def test_davis_and_named_photos(tmp_path: Path) -> None:
    _image(tmp_path / "JPEGImages" / "480p" / "swan" / "00000.jpg")
    annotations = tmp_path / "Annotations" / "480p" / "swan"
    annotations.mkdir(parents=True)
    Image.fromarray(np.eye(16, 20, dtype=np.uint8)).save(annotations / "00000.png")
    (tmp_path / "prompts.json").write_text('{"swan": "black swan"}')
    (sequence,) = photosets.davis(tmp_path)
    assert sequence.prompt == "black swan"
    assert sequence.mask(0).sum() == 16
    _image(tmp_path / "images" / "n1.jpg")
    (tmp_path / "names.csv").write_text('wnid,name\nn1,"tench, fish"\nn2,nowhere\n')
    assert [name for _, name in photosets.named_photos(tmp_path, tmp_path / "names.csv")] == ["tench, fish"]


def test_split_is_the_published_one() -> None:
    wanted = ["3", "5", "7", "8", "10", "19", "23", "27"]  # crc32(id) % 5 == 1, worked out apart from this code
    assert [key for key in map(str, range(32)) if photosets.is_validation(key)] == wanted


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not valid JSON"), ('{"images": []}', "not a COCO"), ('{"images": 1, "categories": []}', "not a COCO")]
)
def test_broken_annotation_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(DataError, match=message):
        photosets.coco(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        photosets.coco(tmp_path)
    with pytest.raises(DataError, match=r"classes\.txt"):
        photosets.label_maps(tmp_path, "msrc")
    _image(tmp_path / "images" / "a.jpg")
    (tmp_path / "classes.txt").write_text("sky\n")
    with pytest.raises(DataError, match=r"a\.png"):
        photosets.label_maps(tmp_path, "msrc")

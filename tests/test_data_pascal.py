"""Pascal VOC, its zero-shot splits, and one-shot episodes on Pascal-5i and COCO-20i."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import replicas
from promptseg.data import coco20i, pascal5i
from promptseg.data.coco20i import Coco20i
from promptseg.data.pascal import pascal_zero_shot, voc, zero_shot
from promptseg.data.pascal5i import Pascal5i
from promptseg.data.samples import IGNORE
from promptseg.data.tensors import labelled
from promptseg.errors import ConfigError, DataError

GOLDEN = Path(__file__).parent / "golden" / "clipseg"


def test_voc_reads_maps_by_name_and_ignores_255(tmp_path: Path) -> None:
    photos = voc(replicas.voc(tmp_path))
    assert len(photos) == 4
    assert photos[0].image().shape == (60, 80, 3)
    labels = photos[0].labels()
    assert (labels[:2] == IGNORE).all()
    masks, unknown = photos[0].masks()
    assert set(masks) == {"background", "aeroplane", "person"}
    assert masks["aeroplane"].sum() == 52 * 48
    assert unknown.sum() == 2 * 80
    assert [sample.id for sample in photos[1:3]] == ["2007_000002", "2007_000003"]


@pytest.mark.parametrize("split", ["train", "val", "trainval", "trainaug"])
def test_every_split_of_voc(tmp_path: Path, split: str) -> None:
    assert len(voc(replicas.voc(tmp_path) / "VOCdevkit", split)) == 4


def test_mistakes_in_voc_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder JPEGImages"):
        voc(tmp_path)
    place = replicas.voc(tmp_path) / "VOCdevkit" / "VOC2012"
    with pytest.raises(DataError, match="choose one of train, val"):
        voc(tmp_path, "test")
    map_file = place / "SegmentationClass" / "2007_000001.png"
    replicas.labels(map_file, np.full((60, 80), 21, np.uint8))
    with pytest.raises(DataError, match=r"2007_000001.png holds the values \[21\]; allowed are 0..20"):
        voc(tmp_path)[0].masks()
    replicas.labels(map_file, np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(DataError, match="colour picture"):
        voc(tmp_path)[0].masks()
    map_file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2007_000001.png cannot be read as a label map"):
        voc(tmp_path)[0].masks()
    (place / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val.txt cannot be read"):
        voc(tmp_path)


def test_zero_shot_splits(tmp_path: Path) -> None:
    photos = pascal_zero_shot(replicas.voc(tmp_path))
    assert photos.classes[zero_shot(2).unseen[0]] == "cow"
    assert [photos.classes[index] for index in zero_shot(10).unseen] == (
        ["airplane", "bottle", "cat", "chair", "cow", "motorbike", "pottedplant", "sofa", "train", "tvmonitor"]
    )
    for unseen in (2, 4, 5, 6, 8, 10):
        split = zero_shot(unseen)
        assert len(split.unseen) == unseen
        assert sorted((*split.seen, *split.unseen)) == list(range(21))
    assert set(zero_shot(2).unseen) < set(zero_shot(4).unseen) < set(zero_shot(6).unseen) < set(zero_shot(8).unseen)
    with pytest.raises(ConfigError, match="2, 4, 5, 6, 8, 10"):
        zero_shot(3)


def test_labels_keep_their_values_when_stretched(tmp_path: Path) -> None:
    sample = voc(replicas.voc(tmp_path))[0]
    image, small = labelled(sample, 30)
    assert image.shape == (3, 30, 30)
    assert small.dtype == torch.int64
    np.testing.assert_array_equal(small, sample.labels()[::2][:, np.arange(30) * 80 // 30])


def test_pascal5i_episodes(tmp_path: Path) -> None:
    data = Pascal5i(pascal5i.pascal5i(replicas.voc(tmp_path)), 0, image_size=64)
    assert len(data) == 4
    assert {name for name, photos in data.by_class.items() if len(photos) == 2} == {1, 2}
    episode = data[0]
    assert (episode.phrase, episode.prompt, episode.group) == ("aeroplane", "a photo of a aeroplane.", 0)
    assert episode.image.shape == (3, 64, 64)
    assert episode.target.shape == episode.valid.shape == (1, 80, 80)  # the photo's longer side
    assert not episode.valid[0, 60:].any()
    assert episode.target.sum() == 52 * 48
    assert episode.support.mask[:48].any()
    assert not episode.support.mask[48:].any()
    assert all(torch.equal(a.image, b.image) for a, b in zip(data, data, strict=True))


def test_pascal5i_needs_a_second_photo(tmp_path: Path) -> None:
    place = replicas.voc(tmp_path) / "VOCdevkit" / "VOC2012"
    replicas.labels(place / "SegmentationClassAug" / "2007_000002.png", np.zeros((60, 80), np.uint8))
    data = Pascal5i(pascal5i.pascal5i(tmp_path), 0)
    with pytest.raises(DataError, match="No other photo than 2007_000001"):
        data[0]
    with pytest.raises(DataError, match="class of fold 3"):
        Pascal5i(pascal5i.pascal5i(tmp_path), 3)


@pytest.mark.parametrize(("size", "shown"), [((60, 80), (60, 80)), ((200, 100), (64, 32)), ((90, 128), (40, 64)), ((1000, 8), (64, 8))])
def test_pascal5i_shrinks_to_multiples_of_eight(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert pascal5i._fitting(*size, 80 if size == (60, 80) else 64) == shown


def test_coco20i_folds_are_the_published_ones() -> None:
    folds = {str(fold): {f"{kind}_class_ids": list(coco20i.fold_classes(fold, kind)) for kind in ("val", "train")} for fold in range(4)}
    for fold, table in json.loads((GOLDEN / "component_coco20i.json").read_text())["folds"].items():
        assert all(table[key] == ids for key, ids in folds[fold].items())
    with pytest.raises(ConfigError, match="not 4"):
        coco20i.fold_classes(4)


def test_coco20i_episodes(tmp_path: Path) -> None:
    data = Coco20i(replicas.coco20i(tmp_path), 0, image_size=32)
    assert len(data) == 1000
    for index in range(30):
        episode = data[index]
        assert coco20i.CLASSES[data.class_ids[episode.group]] == episode.phrase == episode.prompt
        assert episode.target.shape == (1, 32, 32)
        assert episode.target.any()
        assert episode.support.mask.any()
        assert torch.equal(episode.image, data[index].image)
    assert len({data[index].phrase for index in range(60)}) > 12
    data.epoch = 1
    assert [data[index].phrase for index in range(8)] != [Coco20i(tmp_path, 0, image_size=8)[index].phrase for index in range(8)]


def test_coco20i_negatives_change_the_example_alone(tmp_path: Path) -> None:
    data = Coco20i(replicas.coco20i(tmp_path), 0, image_size=16, negatives=1.0)
    for index in range(10):
        assert data[index].negative
        assert data[index].target.any()
        assert not data[index].support.mask.any()


def test_coco20i_photos(tmp_path: Path) -> None:
    photos = coco20i.coco20i(replicas.coco20i(tmp_path), "val-0")
    assert len(photos) == 40
    masks, _ = photos[2].masks()
    assert set(masks) == {"background", "airplane"}


class Wicked:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo run",)


def test_coco20i_lists_run_no_code(tmp_path: Path) -> None:
    file = replicas.coco20i(tmp_path) / "splits" / "val" / "fold0.pkl"
    file.write_bytes(pickle.dumps({0: [Wicked()]}))
    with pytest.raises(DataError, match=r"fold0.pkl is not a list of photos .*system"):
        Coco20i(tmp_path, 0)
    file.write_bytes(pickle.dumps({0: ["one.jpg"]}))
    with pytest.raises(DataError, match="fewer of person, airplane"):
        Coco20i(tmp_path, 0)
    with pytest.raises(DataError, match=r"fold1.pkl cannot be read"):
        Coco20i(tmp_path, 1)

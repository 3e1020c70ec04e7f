"""COCO's formats, LVIS, ADE20K and PASCAL-Context on miniature replicas; vocabularies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import replicas
from promptseg.data import vocabularies
from promptseg.data.ade20k import ade150, ade847
from promptseg.data.coco import coco_instances, coco_panoptic, coco_stuff, read_coco
from promptseg.data.filling import fill_coco
from promptseg.data.lvis import LvisOneShot, asked_by_use, lvis
from promptseg.data.pascal_context import context59, context459
from promptseg.data.samples import IGNORE
from promptseg.errors import ConfigError, DataError


def test_instances_and_crowds(tmp_path: Path) -> None:
    photos = coco_instances(replicas.coco_instances(tmp_path))
    assert photos.classes == ("person", "car", "dog")
    assert [sample.id for sample in photos] == ["1", "2", "3"]
    masks, unknown = photos[0].masks()
    assert set(masks) == {"person"}
    assert unknown.any()
    assert not (unknown & masks["person"]).any()
    assert [region.crowd for region in photos[0].regions()] == [False, True]
    assert photos[1].masks()[0]["dog"].sum() == 120
    assert photos[0].image().shape == (30, 40, 3)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and NumPy 2
@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(-9, 50), st.floats(-9, 40)), min_size=3, max_size=9), min_size=1, max_size=3), st.booleans())
def test_polygons_are_filled_as_coco_does(polygons: list[list[tuple[float, float]]], whole: bool) -> None:
    arrays = [np.round(polygon) if whole else np.array(polygon) for polygon in polygons]
    packed = coco_mask.frPyObjects([array.ravel().tolist() for array in arrays], 30, 40)
    wanted = coco_mask.decode(coco_mask.merge(packed)).astype(bool)
    np.testing.assert_array_equal(fill_coco(arrays, (30, 40)), wanted)


def test_stuff_ids_become_indices(tmp_path: Path) -> None:
    photos = coco_stuff(replicas.coco_stuff(tmp_path))
    assert set(photos[0].masks()[0]) == {"dog", "grass"}
    assert set(photos[1].masks()[0]) == {"toothbrush", "sky-other"}
    assert photos[0].masks()[1].sum() == 2 * 40
    replicas.labels(tmp_path / "stuffthingmaps" / "val2017" / f"{1:012d}.png", np.full((30, 40), 11, np.uint8))
    with pytest.raises(DataError, match=r"holds the values \[11\], which are no ids of COCO-Stuff"):
        photos[0].labels()
    with pytest.raises(DataError, match="holds no label maps"):
        coco_stuff(tmp_path, "train2017")


def test_stuff_as_prepared_for_catseg(tmp_path: Path) -> None:
    replicas.coco_stuff(tmp_path / "a")
    (tmp_path / "b" / "images").mkdir(parents=True)
    (tmp_path / "a" / "stuffthingmaps").rename(tmp_path / "b" / "annotations")
    (tmp_path / "a" / "val2017").rename(tmp_path / "b" / "images" / "val2017")
    assert coco_stuff(tmp_path / "b")[1].image().shape == (30, 40, 3)


def test_panoptic_segments(tmp_path: Path) -> None:
    (photo,) = coco_panoptic(replicas.coco_panoptic(tmp_path))
    person, grass, crowd = photo.regions()
    assert (person.name, person.thing, person.mask.sum()) == ("person", True, 15 * 20)
    assert (grass.name, grass.thing) == ("grass-merged", False)
    assert crowd.crowd
    assert (person.mask | grass.mask | crowd.mask)[2:].all()
    assert photo.masks()[1].sum() == crowd.mask.sum() + 2 * 40
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[..., 1] = 9
    replicas.labels(tmp_path / "annotations" / "panoptic_val2017" / "000000000001.png", colours)
    with pytest.raises(DataError, match=r"holds the segments \[2304\]"):
        photo.regions()


def test_lvis_and_its_episodes(tmp_path: Path) -> None:
    photos = lvis(replicas.lvis(tmp_path), "train")
    assert photos.classes == ("deck chair", "bow (weapon)")
    assert set(photos[0].masks()[0]) == {"deck chair", "bow (weapon)"}
    data = LvisOneShot(tmp_path, image_size=32)
    assert len(data) == 3  # the bow is too small and on one photo only
    for item, again in zip(data, data, strict=True):
        assert item.phrase == "deck chair"
        assert item.target.shape == (1, 32, 32)
        assert item.support.mask.any()
        assert not torch.equal(item.image, item.support.image)
        assert torch.equal(item.support.image, again.support.image)
    for item in LvisOneShot(tmp_path, image_size=32, templates=("a {}.",), text_weight=(0.2, 0.3)):
        assert item.prompt == "a deck chair."
        assert 0.2 <= item.text_weight < 0.3
    with pytest.raises(ConfigError, match="lower min_share"):
        LvisOneShot(tmp_path, removed="pas5i-1")  # which chairs are of
    with pytest.raises(ConfigError, match="no category 'chairs'"):
        LvisOneShot(tmp_path, categories=["chairs"])
    with pytest.raises(ConfigError, match="lower min_share"):
        LvisOneShot(tmp_path, min_share=0.9)


def test_what_things_are_asked_by_use() -> None:
    asked = asked_by_use()
    assert len(asked) == 8
    assert set(asked["sit on"]) < set(asked["has legs"])


def test_ade_and_context(tmp_path: Path) -> None:
    (photo,) = ade150(replicas.ade150(tmp_path))
    assert set(photo.masks()[0]) == {"sky", "flag"}
    assert photo.masks()[1].sum() == 10 * 40
    (photo,) = ade847(replicas.ade847(tmp_path / "full"))
    assert photo.masks()[0].keys() == {photo.classes[2], photo.classes[846]}
    assert photo.classes[1] == "building"
    replicas.context(tmp_path)
    (photo,), (fine,) = context59(tmp_path), context459(tmp_path)
    assert set(photo.masks()[0]) == {"aeroplane"}
    assert (photo.labels()[10:] == IGNORE).all()
    assert set(fine.masks()[0]) == {"aeroplane", fine.classes[458]}
    for reader, name in ((ade150, "ADE20K"), (ade847, "ADE20K"), (context59, "PASCAL-Context"), (context459, "PASCAL-Context")):
        with pytest.raises(DataError, match=f"split of {name} 'test'"):
            reader(tmp_path, "test")
        with pytest.raises(DataError, match="holds no"):
            reader(tmp_path, "training")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "not in COCO's format"),
        ({"annotations": [{"id": 5, "image_id": 99, "category_id": 1}]}, "annotation 5 names image 99"),
        ({"annotations": [{"id": 5, "image_id": 1, "category_id": 2}]}, "annotation 5 names category 2"),
        ({"categories": [{"name": "person"}]}, "not in COCO's format: KeyError"),
    ],
)
def test_malformed_tables_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "table.json"
    replicas.write_json(file, replicas.coco_table() | change)
    with pytest.raises(DataError, match=message):
        read_coco(file)


@pytest.mark.parametrize(
    "annotation",
    [
        {"category_id": 1},
        {"category_id": 1, "segmentation": {"size": [30, 40], "counts": [5, 5]}},
        {"category_id": 1, "segmentation": [["a", "b", "c", "d", "e", "f"]]},
    ],
)
def test_unusable_masks_are_named(tmp_path: Path, annotation: dict[str, object]) -> None:
    table = replicas.coco_table(1) | {"annotations": [{"id": 7, "image_id": 1, **annotation}]}
    replicas.write_json(tmp_path / "annotations" / "instances_val2017.json", table)
    with pytest.raises(DataError, match="annotation 7 has no usable segmentation"):
        coco_instances(tmp_path)[0].regions()


def test_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_coco(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"y.json cannot be read: No such file"):
        read_coco(tmp_path / "y.json")


COUNTS = {"voc20": 20, "coco80": 80, "coco-stuff171": 171, "coco-panoptic133": 133, "ade150": 150, "ade847": 847, "context459": 459}
COUNTS["imagenet1000"] = 1000


@pytest.mark.parametrize("name", vocabularies.available())
def test_every_vocabulary_names_its_source(name: str) -> None:
    table = vocabularies.table(name)
    assert table["source"]
    names = vocabularies.names(name)
    assert all(names)
    assert len(names) == COUNTS.get(name, len(names))
    assert len(names) == len(set(names)) or name in ("ade847", "imagenet1000")


def test_vocabularies_in_detail() -> None:
    assert vocabularies.synonyms("ade847")[1] == ("building", "edifice")
    assert len(vocabularies.templates("imagenet80")) == 80
    assert set(vocabularies.templates("imagenet7")) < set(vocabularies.templates("imagenet80"))
    assert vocabularies.templates("scene") == ("A photo of a {} in the scene",)
    assert len(vocabularies.templates("shuffle+")) == 9
    sets = json.loads((Path(vocabularies.__file__).parent / "templates.json").read_text(encoding="utf-8"))
    assert all(one["source"] and all(wording.count("{}") == 1 for wording in one["templates"]) for one in sets.values())
    panoptic = vocabularies.table("coco-panoptic133")
    assert (len(panoptic["ids"]), panoptic["things"]) == (133, 80)
    with pytest.raises(DataError, match="Did you mean 'ade150'"):
        vocabularies.names("ade15")
    with pytest.raises(DataError, match="imagenet80, imagenet7, photo, "):
        vocabularies.templates("imagenet")
    assert json.dumps(vocabularies.names("coco80")[0]) == '"person"'

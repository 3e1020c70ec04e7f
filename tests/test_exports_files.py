"""Every export holds exactly the mask, reads back where its format is lossless, and takes an empty result."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from masks_of import masks, of_array, photo, three
from promptseg import Instances, Mask, Masks, PanopticMap, Points, SemanticMap, Text, memory, regions
from promptseg.errors import DataError, ExportError, ImageError, MemoryLimitError
from promptseg.exports import VERTEX_BYTES
from promptseg.results import Segment
from promptseg.rle import Rle
from promptseg.sources import RunSource
from promptseg.writers import BY_SUFFIX, FORMATS
from test_polygons import fill

BoolArray = NDArray[np.bool_]
EVERYTHING = tuple(FORMATS)


def none() -> Masks:
    """No prompts at all."""
    return Masks([], (60, 80), photo=photo())


# --- round trips ------------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(array=masks(), score=st.floats(0, 1), least=st.floats(0, 1), feather=st.sampled_from([0, 0, 1, 2.5]))
def test_png_npz_and_index_give_the_mask_back(
    tmp_path_factory: pytest.TempPathFactory, array: BoolArray, score: float, least: float, feather: float
) -> None:
    runs = RunSource(Rle.encode(array))
    mask = Mask(runs, Text("ein Öl/Bild"), presence=score, presence_threshold=least).feather(feather)
    folder, result = tmp_path_factory.mktemp("result"), Masks([mask], mask.size)
    result.save(folder, EVERYTHING)
    result.save(folder / "alone.npz")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(result.to_png()[0]))) == 255, array)
    assert np.array_equal(np.asarray(Image.open(folder / "masks" / "000-ein-Öl-Bild.png")) == 255, array)
    for path in (folder, folder / "masks.json", folder / "masks.npz", folder / "alone.npz"):
        again = Masks.load(path)
        assert np.array_equal(again.to_numpy(), result.to_numpy())
        assert again.labels == ["ein Öl/Bild"]
        assert again[0].score == score
        assert again.present.tolist() == [score >= least]
        assert np.array_equal(again[0].probabilities, regions.feather(array, feather))
    with np.load(folder / "masks.npz") as archive:
        assert np.array_equal(archive["masks"], array[None])


@settings(deadline=None, max_examples=60)
@given(masks())
def test_geojson_fills_to_the_mask(array: BoolArray) -> None:
    collection = of_array(array).to_geojson()
    total = np.zeros(array.shape, dtype=int)
    for polygon in collection["features"][0]["geometry"]["coordinates"]:
        for index, ring in enumerate(polygon):
            assert ring[0] == ring[-1]
            total += fill(np.array(ring[:-1]), array.shape).astype(int) * (1 if index == 0 else -1)
    assert np.array_equal(total, array.astype(int))


@settings(deadline=None, max_examples=60)
@given(masks())
def test_yolo_fills_to_the_mask(array: BoolArray) -> None:
    total = np.zeros(array.shape, dtype=int)
    for line in of_array(array).to_yolo().splitlines():
        index, *numbers = line.split()
        assert index == "0"
        corners = np.array(numbers, dtype=float).reshape(-1, 2)
        assert corners.min() >= 0
        assert corners.max() <= 1
        total += fill(np.rint(corners * (array.shape[1], array.shape[0])).astype(np.int64), array.shape)
    assert np.array_equal(total, array.astype(int))


def test_a_saved_folder(tmp_path: Path) -> None:
    result = three()
    written = result.save(tmp_path / "out", ", ".join(EVERYTHING))
    names = {"overlay.png", "masks", "coco.json", "masks.geojson", "yolo.txt", "masks.npz", "masks.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names == {path.name for path in written}
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == [
        "000-a-dog.png",
        "001-grass-öl-b.png",
        "002-a-unicorn.png",
    ]
    again = Masks.load(tmp_path / "out")
    assert again.prompts == result.prompts
    assert again.present.tolist() == result.present.tolist()
    assert again.model == "test"
    assert np.array_equal(again.to_numpy(), result.to_numpy())
    assert json.loads((tmp_path / "out" / "coco.json").read_text()) == result.to_coco()
    assert json.loads((tmp_path / "out" / "masks.geojson").read_text("utf-8")) == result.to_geojson()
    assert (tmp_path / "out" / "yolo.txt").read_text() == result.to_yolo()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "overlay.png")), np.asarray(result.overlay()))


def test_saving_again_leaves_no_mask_of_before_and_all_that_is_yours(tmp_path: Path) -> None:
    three().save(tmp_path)
    (tmp_path / "masks" / "mine.png").write_bytes(b"keep")
    three()[:1].save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["000-a-dog.png", "mine.png"]
    (tmp_path / "masks.json").write_text("[]")
    three().save(tmp_path)
    assert len(list((tmp_path / "masks").iterdir())) == 4


def test_the_default_folder_and_single_files(tmp_path: Path) -> None:
    result = three()
    result.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"overlay.png", "masks", "masks.json"}
    for name in ("a.png", "a.jpg", "a.json", "a.geojson", "a.txt", "a.npz"):
        assert result.save(tmp_path / "deep" / name) == [tmp_path / "deep" / name]
        assert (tmp_path / "deep" / name).stat().st_size > 100
    result[0].save(tmp_path / "dog.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "dog.png")) > 0, result[0].mask)


def test_other_prompts_survive_the_index(tmp_path: Path) -> None:
    prompts = [Points(((1.5, 2.0),), (0,)), Text("x", templates=("a {}",))]
    parts = [Mask.from_array(np.eye(3, dtype=bool), prompt, score=0.25) for prompt in prompts]
    Masks(parts, (3, 3)).save(tmp_path)
    assert Masks.load(tmp_path).prompts == tuple(prompts)


def test_instances_read_back(tmp_path: Path) -> None:
    parts = three().split()
    parts.save(tmp_path)
    again = Instances.load(tmp_path)
    assert again.labels == parts.labels
    assert again.classes == parts.classes == ("a dog", "grass/öl: <b>&", "a unicorn")
    assert np.array_equal(again.to_numpy(), parts.to_numpy())
    assert {entry["category_id"] for entry in parts.to_coco()} == {1, 2}
    with pytest.raises(DataError, match=r"holds Instances, not Masks; read it with Instances\.load"):
        Masks.load(tmp_path / "instances.json")


def test_an_unfinished_folder_has_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index comes last: a save that dies half-way leaves none, not even an older one."""
    result = three()
    result.save(tmp_path)
    monkeypatch.setattr(Mask, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device", "disk")))
    with pytest.raises(ExportError, match="No space left"):
        result.save(tmp_path)
    assert not (tmp_path / "masks.json").exists()


@pytest.mark.parametrize("damage", ["{", '{"kind": "Masks"}', "[]", '{"kind": "Masks", "size": [3, 3], "masks": [{"label": "x"}]}'])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "masks.json").write_text(damage)
    (tmp_path / "masks.npz").write_text(damage)
    for path in (tmp_path, tmp_path / "masks.npz", tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"masks\.|nothing"):
            Masks.load(path)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_of_every_kind_is_named(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever a byte or an entry has become, reading gives a result or a `DataError`."""
    folder = tmp_path_factory.mktemp("result")
    parts = of_array(np.eye(5, dtype=bool)).split()
    parts.save(folder, "npz")
    head = json.loads((folder / "instances.json").read_text())
    place = data.draw(st.sampled_from([head, head["masks"][0], head["masks"][0]["segmentation"], head["masks"][0]["prompt"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(st.sampled_from([None, -1, 3.5, "", "x", [], [0], [[]], {}]))
    (folder / "instances.json").write_text(json.dumps(head))
    content = bytearray((folder / "masks.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "masks.npz").write_bytes(content)
    for read, path in ((Instances.load, folder), (Masks.load, folder / "masks.npz"), (Instances.load, folder / "masks.npz")):
        with contextlib.suppress(DataError):
            again = read(path)
            assert again.present.shape == (len(again),)
            assert again.to_numpy().shape == (len(again), *again.size)


def test_impossible_places_and_formats(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    impossible: tuple[tuple[Path, Any, str], ...] = (
        (tmp_path / "a.xyz", None, "no format for the suffix '.xyz'"),
        (tmp_path / "a.npz", ["png"], "one file"),
        (tmp_path / "out", ["png", "gif", 5], "Unknown format gif, 5"),
        (tmp_path / "o\0t", None, "zero byte"),
        (tmp_path / "file", None, "cannot be written"),
    )
    for path, formats, says in impossible:
        with pytest.raises(ExportError, match=says):
            three().save(path, formats)


# --- single formats ---------------------------------------------------------------------------------------------------------------------


def test_coco_loads(tmp_path: Path) -> None:
    result = three()
    entries = result.to_coco(image_id=np.int64(7), category_ids=np.array([11, 12, 13]))
    json.dumps(entries)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 7, "height": 60, "width": 80}],
            "categories": [{"id": k} for k in (11, 12, 13)],
            "annotations": [],
        }
        truth.createIndex()
        loaded = truth.loadRes(entries)
    for index, annotation in enumerate(loaded.loadAnns(loaded.getAnnIds())):
        assert np.array_equal(loaded.annToMask(annotation).astype(bool), result[index].mask)
        assert annotation["area"] == result[index].area
        assert annotation["category_id"] == 11 + index
    with pytest.raises(ExportError, match="2 ids for 3"):
        result.to_coco(category_ids=[1, 2])


@pytest.mark.parametrize(
    "transform", [None, (2, 0, 100, 0, 2, 50), (0.5, 0, 500000, 0, -0.5, 6000000), (0.5, 0, 500000, 0, -0.5, 6000000, 0, 0, 1)]
)
def test_geojson_rings_and_places(transform: tuple[float, ...] | None) -> None:
    array = np.zeros((10, 12), bool)
    array[2:8, 3:9] = True
    array[4:6, 5:7] = False
    collection = of_array(array, "lake").to_geojson(transform=transform, crs="EPSG:32633" if transform else None)
    outer, hole = (np.array(ring) for ring in collection["features"][0]["geometry"]["coordinates"][0])
    for ring, sign in ((outer, 1), (hole, -1)):
        x, y = ring[:-1].T
        assert np.sign((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) == sign
    if transform is None:
        assert collection["coordinates"] == "pixels"
        assert {tuple(point) for point in outer.tolist()} == {(3, 2), (9, 2), (9, 8), (3, 8)}
    else:
        a, _, c, _, e, f = transform[:6]
        assert {tuple(point) for point in outer.tolist()} == {(a * x + c, e * y + f) for x, y in ((3, 2), (9, 2), (9, 8), (3, 8))}
        assert collection["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
        assert "coordinates" not in collection
    assert collection["features"][0]["properties"]["label"] == "lake"


@pytest.mark.parametrize(
    ("transform", "crs", "says"),
    [
        (None, "EPSG:4326", "needs transform"),
        ((1, 2, 3), None, "six numbers"),
        ((5, 0, 1, 6, 0, -1), None, "GDAL"),
        ((float("nan"),) * 6, None, "six"),
        (5, None, "six numbers"),
        ("abcdef", None, "six numbers"),
    ],
)
def test_impossible_transforms(transform: Any, crs: str | None, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        three().to_geojson(transform=transform, crs=crs)


def test_hugging_face_list() -> None:
    result = three()
    entries = result.to_hf()
    assert len(entries) == 3
    assert [entry["label"] for entry in entries] == result.labels
    for entry, mask in zip(entries, result, strict=True):
        assert set(entry) == {"score", "label", "mask"}
        assert entry["mask"].mode == "L"
        assert np.array_equal(np.asarray(entry["mask"]), mask.mask * 255)
    assert entries[-1]["label"] == entries[1:][-1]["label"] == "a unicorn"
    with pytest.raises(IndexError):
        entries[3]
    assert entries == list(entries)
    assert entries != entries[:2]
    assert result[:0].to_hf() == []
    assert "a unicorn" in repr(entries)


def test_supervision() -> None:
    result = three()
    detections = result.to_supervision()
    assert np.array_equal(detections.mask, result.to_numpy())
    assert np.array_equal(detections.xyxy, result.boxes)
    assert detections.class_id.tolist() == [0, 1, 2]
    assert list(detections["class_name"]) == result.labels
    assert len(none().to_supervision()) == 0


def test_dense_exports_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 20_000)
    for export in (three().to_numpy, three().to_supervision):
        with pytest.raises(MemoryLimitError, match=r"3 masks of 80x60 pixels needs 0\.00 GB, more than half"):
            export()
    assert three().to_numpy(force=True).shape == (3, 60, 80)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    with pytest.raises(MemoryLimitError, match="geojson"):
        three().to_geojson()


def test_outlines_may_take_so_much_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    squares = Masks([of_array(np.kron(np.eye(2), np.ones((2, 2))) > 0)[0]] * 3, (4, 4))  # two rings of five corners each
    whole = squares.to_geojson()
    assert sum(len(polygon[0]) for polygon in whole["features"][0]["geometry"]["coordinates"]) == 10
    monkeypatch.setattr("promptseg.exports.OUTLINES", 4 * 10 * VERTEX_BYTES)
    assert squares.to_geojson() == whole
    monkeypatch.setattr("promptseg.exports.OUTLINES", 4 * 10 * VERTEX_BYTES - 1)
    for transform in (None, (1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0)):
        with pytest.raises(MemoryLimitError, match=r"of 3 masks take .* save\('masks.geojson'\)"):
            squares.to_geojson(transform=transform)
    assert squares.to_geojson(force=True) == whole


def test_equal_coordinates_are_one_object() -> None:
    """Half of the memory of a collection."""
    rings = [
        ring
        for feature in of_array(np.eye(600, dtype=bool)).to_geojson(transform=(0.5, 0, 1000, 0, 0.5, 3000))["features"]
        for polygon in feature["geometry"]["coordinates"]
        for ring in polygon
    ]
    numbers = [number for ring in rings for corner in ring for number in corner]
    assert len({id(number) for number in numbers}) == len(set(numbers)) == 2 * 601


def test_free_memory_is_a_sensible_number() -> None:
    free = memory.free_bytes()
    assert free is None or 1e6 < free < 1e15


@pytest.mark.parametrize(("limit", "free"), [("1000", 1000 - (900 - 600)), ("max", None)])
@pytest.mark.parametrize(
    ("folder", "names", "unused"),
    [(".", ("memory.max", "memory.current"), "inactive_file"),
     ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file")],
)  # fmt: skip
def test_files_that_were_read_do_not_fill_a_container(
    tmp_path: Path, limit: str, free: int | None, folder: str, names: tuple[str, str], unused: str
) -> None:
    """Control groups of version 2 and 1."""
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    (group / "memory.stat").write_text(f"anon 200\nfile 700\n{unused} 600\nactive_file 100\n")
    for name, content in zip(names, (limit, "900"), strict=True):
        (group / name).write_text(f"{content}\n")
    assert memory._control_group(tmp_path) == free


@pytest.mark.parametrize(("answer", "free"), [(1, 5_000_000_000), (0, None)])
def test_windows_tells_its_free_memory(monkeypatch: pytest.MonkeyPatch, answer: int, free: int | None) -> None:
    """As its API states it: a structure of 64 bytes that knows its own length; 0 is a failure."""

    def status(where: Any) -> int:
        raw = (ctypes.c_ubyte * 64).from_address(ctypes.addressof(where._obj))
        assert int.from_bytes(bytes(raw[:4]), sys.byteorder) == ctypes.sizeof(where._obj) == 64
        raw[16:24] = (5_000_000_000).to_bytes(8, sys.byteorder)
        return answer

    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=SimpleNamespace(GlobalMemoryStatusEx=status)), raising=False)
    assert memory._windows() == free


NOTHING = np.full((60, 80), -1)
EMPTY = {
    "no prompts": none(),
    "empty mask": three()[2:],
    "no instances": none().split(),
    "no classes": SemanticMap(NOTHING, []),
    "classes without pixels": SemanticMap(NOTHING, ["sky", "grass"], scores=[0, 0], photo=photo()),
    "no segments": PanopticMap(NOTHING, []),
    "segments without pixels": PanopticMap(NOTHING, [Segment("sky", False)], photo=photo()),
}


@pytest.mark.parametrize("result", EMPTY.values(), ids=list(EMPTY))
def test_every_export_takes_an_empty_result(result: Masks | SemanticMap | PanopticMap, tmp_path: Path) -> None:
    count = len(result) if isinstance(result, Masks) else 0
    result.save(tmp_path, EVERYTHING)
    for suffix in BY_SUFFIX:
        assert result.save(tmp_path / f"one{suffix}") == [tmp_path / f"one{suffix}"]
    again = type(result).load(tmp_path)
    assert np.array_equal(again.to_numpy(), np.zeros((count, 60, 80), bool) if isinstance(result, Masks) else NOTHING)
    assert again.scores.tolist() == result.scores.tolist() == [0] * len(result.scores)
    assert len(Masks.load(tmp_path / "masks.npz")) == count
    assert json.loads((tmp_path / "one.json").read_text()) == result.to_coco()
    assert result.overlay().size == (80, 60)
    assert len(result.to_coco()) == len(result.to_hf()) == len(result.to_supervision()) == len(result.boxes) == count
    if isinstance(result, Masks):
        assert len(result.to_png()) == count
    else:
        assert not np.asarray(Image.open(io.BytesIO(result.to_png()))).any()
    assert len(result.to_geojson()["features"]) == count
    assert result.to_yolo() == ""
    assert result._repr_html_().startswith("<img")
    assert repr(result)


# --- pictures ---------------------------------------------------------------------------------------------------------------------------


def test_overlay_colours_masks_and_keeps_the_size() -> None:
    result = three()
    picture = np.asarray(result.overlay(legend=False))
    plain = np.asarray(result[2:].overlay(legend=False))
    assert picture.shape == (60, 80, 3)
    union = result.to_numpy().any(axis=0)
    assert np.array_equal(picture[~union], plain[~union])
    assert (picture[union] != plain[union]).any(axis=1).mean() > 0.95


def test_the_smaller_mask_lies_on_top() -> None:
    big, small = np.zeros((50, 50), bool), np.zeros((50, 50), bool)
    big[5:45, 5:45] = True
    small[20:30, 20:30] = True
    for order in ([big, small], [small, big]):
        result = Masks([Mask.from_array(array, str(array.sum())) for array in order], (50, 50))
        picture = np.asarray(result.overlay(legend=False))
        assert not np.array_equal(picture[25, 25], picture[12, 12])


def test_overlay_of_another_photo_is_refused() -> None:
    with pytest.raises(ImageError, match="not the photo that was segmented"):
        three().overlay(photo(10, 10))
    assert three().overlay(photo(60, 80)[:, ::-1]).size == (80, 60)


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (25, 300)])
def test_overlay_of_extreme_photos(size: tuple[int, int]) -> None:
    assert of_array(np.ones(size, bool), "a long name " * 20).overlay().size == (size[1], size[0])


def test_the_legend_holds_many_names() -> None:
    parts = [Mask.from_array(np.eye(300, dtype=bool), f"name {index} " * 9, score=index / 40) for index in range(40)]
    picture = Masks(parts, (300, 300)).overlay()
    assert picture.size == (300, 300)
    assert not np.array_equal(np.asarray(picture), np.asarray(Masks(parts, (300, 300)).overlay(legend=False)))


def test_notebooks_show_results() -> None:
    html = three()._repr_html_()
    assert "grass/öl: &lt;b&gt;&amp;" in html
    assert Image.open(io.BytesIO(three()._repr_png_())).format == "PNG"
    assert Image.open(io.BytesIO(three()[0]._repr_png_())).size == (80, 60)

"""One label per pixel: what maps hold, how they are made from logits, and that they read back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from masks_of import photo, smooth_logits
from promptseg import Masks, PanopticMap, SemanticMap
from promptseg.errors import ConfigError, DataError, ExportError, ImageError
from promptseg.postprocess import semantic_map
from promptseg.results import Segment
from promptseg.writers import FORMATS

CLASSES = ["sky", "grass", "dog", "cat"]
SIZE = (60, 80)


def enlarged(logits: np.ndarray) -> np.ndarray:
    return F.interpolate(torch.from_numpy(logits)[None], SIZE, mode="bilinear", align_corners=False)[0].sigmoid().numpy()


def scene() -> SemanticMap:
    return semantic_map(smooth_logits(4), SIZE, CLASSES, background=0.6, photo=photo(), model="test")


def panoptic() -> PanopticMap:
    index = np.full(SIZE, -1)
    index[:20], index[30:50, 5:30], index[30:50, 40:70] = 0, 1, 2
    return PanopticMap(index, [Segment("sky", False, 0.9), Segment("dog", True, 0.8), Segment("dog", True, 0.7)], photo=photo())


def test_every_pixel_is_its_best_class() -> None:
    logits = smooth_logits(4)
    for values in (logits, torch.from_numpy(logits), logits.astype(np.float64)):
        result = semantic_map(values, SIZE, CLASSES)
        assert np.array_equal(result.labels, enlarged(logits).argmax(axis=0))
    best = enlarged(logits).max(axis=0)
    for index in range(4):
        assert result.scores[index] == pytest.approx(best[result.labels == index].mean(), abs=1e-6)
    assert result.areas.tolist() == np.bincount(result.labels.ravel(), minlength=4).tolist()


def test_background_by_threshold_and_by_name() -> None:
    logits = smooth_logits(4)
    best, labels = enlarged(logits).max(axis=0), enlarged(logits).argmax(axis=0)
    assert np.array_equal(scene().labels, np.where(best > 0.6, labels, -1))
    for background in ("grass", ["grass"], ("grass",)):
        named = semantic_map(logits, SIZE, CLASSES, background=background)
        assert np.array_equal(named.labels, np.where(labels == 1, -1, labels))
        assert named.scores[1] == 0
    both = semantic_map(logits, SIZE, CLASSES, background=["grass", "sky"])
    assert np.array_equal(both.labels, np.where(labels < 2, -1, labels))


def test_many_classes_and_none() -> None:
    logits = smooth_logits(300, grid=(3, 4))
    result = semantic_map(logits, SIZE, [str(index) for index in range(300)])
    assert np.array_equal(result.labels, enlarged(logits).argmax(axis=0))
    png = np.asarray(Image.open(io.BytesIO(result.to_png())))  # 16 bits: more than a palette holds
    assert np.array_equal(png.astype(int) - 1, result.labels)
    empty = semantic_map(logits[:0], SIZE, [])
    assert (empty.labels == -1).all()
    assert len(empty.masks) == len(empty.to_coco()) == 0
    assert empty.overlay().size == (80, 60)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="4 logit maps for 3"):
        semantic_map(smooth_logits(4), SIZE, CLASSES[:3])
    with pytest.raises(ConfigError, match=r"\['wall'\] is not among"):
        semantic_map(smooth_logits(4), SIZE, CLASSES, background="wall")
    with pytest.raises(ImageError, match=r"-1\.\.3"):
        SemanticMap(np.full((2, 2), 4), CLASSES)
    with pytest.raises(ImageError, match="integers"):
        SemanticMap(np.zeros((2, 2)), CLASSES)
    with pytest.raises(ConfigError, match="2 scores for 4"):
        SemanticMap(np.zeros((2, 2), int), CLASSES, scores=[1, 2])
    with pytest.raises(ExportError, match="at most 65535 regions, not 66000"):
        SemanticMap(np.zeros((2, 2), int), ["x"] * 66000).to_png()


@pytest.mark.parametrize("result", [scene(), panoptic()], ids=["semantic", "panoptic"])
def test_both_maps_export_and_read_back(result: SemanticMap | PanopticMap, tmp_path: Path) -> None:
    result.save(tmp_path, tuple(FORMATS))
    again = type(result).load(tmp_path)
    assert np.array_equal(again.to_numpy(), result.to_numpy())
    assert again.scores.tolist() == result.scores.tolist()
    assert again.labels == result.labels if isinstance(result, PanopticMap) else np.array_equal(again.labels, result.labels)
    picture = Image.open(tmp_path / "labels.png")
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture).astype(int) - 1, result.to_numpy())
    shown = [index for index in range(len(result.scores)) if (result.to_numpy() == index).any()]
    assert np.array_equal(result.masks.to_numpy(), np.stack([result.to_numpy() == index for index in shown]))
    assert len(result.to_coco()) == len(result.to_hf()) == len(result.to_geojson()["features"]) == len(result.boxes) == len(shown)
    assert len(result.to_supervision()) == len(shown)
    assert result.overlay().size == (80, 60)
    assert result._repr_html_().startswith("<img")
    assert "80x60" in repr(result)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), count=st.sampled_from([0, 1, 3, 255, 256, 300]), seed=st.integers(0, 99))
def test_whatever_a_map_holds_reads_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(-1, count, data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20))))
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
    names = [data.draw(words), *(str(index) for index in range(1, count))][:count]
    scores, folder = random.random(count, dtype=np.float32), tmp_path_factory.mktemp("maps")
    classes = SemanticMap(labels, names, scores=scores, photo="näme.jpg", model="test")
    segments = PanopticMap(labels, [Segment(name, bool(index % 2), scores[index]) for index, name in enumerate(names)], model="test")
    for result in (classes, segments):
        result.save(folder, "coco,npz")
        again = type(result).load(folder)
        assert np.array_equal(again.to_numpy(), result.to_numpy())
        assert again.to_numpy().dtype == result.to_numpy().dtype
        assert again.scores.tolist() == result.scores.tolist()
        assert (again.classes, again.photo, again.model) == (result.classes, result.photo, "test")
        assert Masks.load(folder / "masks.npz").scores.tolist() == result.masks.scores.tolist()
    assert PanopticMap.load(folder).segments == segments.segments


def test_segments_keep_their_class_in_exports() -> None:
    assert [entry["category_id"] for entry in panoptic().to_coco()] == [1, 2, 2]
    assert panoptic().labels == ["sky", "dog", "dog"]
    assert [line.split()[0] for line in panoptic().to_yolo().splitlines()] == ["0", "1", "1"]
    picture = np.asarray(panoptic().overlay(np.zeros((*SIZE, 3), np.uint8), legend=False))
    assert not np.array_equal(picture[40, 15], picture[40, 55])  # two dogs are told apart


@given(st.data())
def test_a_panoptic_map_lists_the_segments_that_have_pixels(data: st.DataObject) -> None:
    """Whatever is listed is listed once per segment, in the order of the index."""
    count = data.draw(st.integers(0, 6))
    given_index = np.array(data.draw(st.lists(st.integers(-1, count - 1), min_size=12, max_size=12)), dtype=np.int64).reshape(3, 4)
    segments = [Segment("ab"[number % 2], number % 3 == 0, number / 8) for number in range(count)]
    found = PanopticMap(given_index, segments)
    kept = sorted(set(given_index[given_index >= 0].tolist()))
    assert found.segments == tuple(segments[number] for number in kept)
    assert found.labels == [mask.label for mask in found.masks] == [segment.label for segment in found.segments]
    assert found.scores.tolist() == [mask.score for mask in found.masks] == [segment.score for segment in found.segments]
    assert found.areas.tolist() == [mask.area for mask in found.masks] == [int((given_index == number).sum()) for number in kept]
    assert len(found.boxes) == len(found.to_coco()) == len(found.to_hf()) == len(kept)
    assert np.array_equal(found.masks.to_numpy(), np.array([given_index == number for number in kept]).reshape(-1, 3, 4))
    assert np.array_equal(found.to_numpy() < 0, given_index < 0)
    assert set(found.classes) == {segment.label for segment in found.segments}


def test_a_semantic_map_masks_the_classes_that_have_pixels() -> None:
    found = SemanticMap(np.array([[3, 1], [-1, 1]]), CLASSES, scores=[0, 0.5, 0, 0.75])
    assert found.areas.tolist() == [0, 2, 0, 1]
    assert found.masks.labels == ["grass", "cat"]
    assert found.masks.scores.tolist() == [0.5, 0.75]
    assert found.boxes.tolist() == found.masks.boxes.tolist() == [[1, 0, 2, 2], [0, 0, 1, 1]]


def test_damaged_maps_are_named(tmp_path: Path) -> None:
    scene().save(tmp_path)
    (tmp_path / "labels.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"labels\.png"):
        SemanticMap.load(tmp_path)
    Image.new("L", (3, 3)).save(tmp_path / "labels.png")
    with pytest.raises(DataError, match=r"\(3, 3\)"):
        SemanticMap.load(tmp_path)
    (tmp_path / "semantic.json").write_text('{"kind": "SemanticMap"}')
    with pytest.raises(DataError, match="no size, photo, model, classes"):
        SemanticMap.load(tmp_path)

"""Label maps with background among the classes, on miniatures, against figures counted pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import replicas
from promptseg.data.whole_maps import coco_objects, context60, objects_of_stuff, voc21
from promptseg.errors import ConfigError, DataError
from promptseg.evaluation import evaluate, protocol
from promptseg.metrics import MaskIoU
from small_groupvit import segmenter


def miniature(kind: str, root: Path) -> Path:
    """Two photos in the layout of the data set."""
    if kind == "voc-maps":
        return replicas.voc(root)
    values = replicas.rectangle((60, 80), (5, 5, 40, 50), 3)
    values[:2] = 255
    for number in range(2):
        if kind == "context-maps":
            place = root / "VOCdevkit" / "VOC2010"
            replicas.photo(place / "JPEGImages" / f"{number}.jpg", (60, 80), number)
            replicas.labels(place / "SegmentationClassContext" / f"{number}.png", values)
            (place / "ImageSets" / "SegmentationContext").mkdir(parents=True, exist_ok=True)
            (place / "ImageSets" / "SegmentationContext" / "val.txt").write_text("0\n1\n")
        else:
            replicas.photo(root / "images" / "val2017" / f"00{number}.jpg", (60, 80), number)
            name = f"00{number}_instanceTrainIds.png" if number else f"00{number}.png"
            ready = np.where(values == 255, 0, values)
            replicas.labels(root / "annotations" / "val2017" / name, ready if number else np.where(values == 3, 12, 255).astype(np.uint8))
    return root


READERS = {"voc-maps": voc21, "context-maps": context60, "coco-object-maps": coco_objects}


@pytest.mark.parametrize("kind", READERS)
def test_figures(kind: str, tmp_path: Path) -> None:
    root = miniature(kind, tmp_path)
    photos = READERS[kind](root)
    answers: list[NDArray[np.integer]] = []
    targets: list[NDArray[np.integer]] = []
    for sample in photos:
        found = segmenter().semantic(sample.image(), photos.classes[1:], background=0.2)
        answers.append(found.labels.ravel() + 1)
        targets.append(sample.labels().ravel())
    answer, target = np.concatenate(answers), np.concatenate(targets)
    answer, target = answer[target >= 0], target[target >= 0]
    both = {place: ((answer == place) & (target == place)).sum() for place in range(len(photos.classes))}
    either = {place: ((answer == place) | (target == place)).sum() for place in range(len(photos.classes))}
    expected = float(np.mean([both[place] / either[place] for place in both if either[place]]))
    table = evaluate(protocol(kind, root, background=0.2), segmenter(), resamples=0)
    figures = {row.name: row.value for row in table.rows}
    assert figures["mIoU"] == pytest.approx(expected)
    assert figures["pixel accuracy"] == pytest.approx(float((answer == target).mean()))


def test_asked_otherwise(tmp_path: Path) -> None:
    """The looks and wordings of the protocol reach the model, and are told."""
    root = miniature("voc-maps", tmp_path)
    (tmp_path / "worded.txt").write_text("one {}\n", encoding="utf-8")
    asked = protocol("voc-maps", root, mode="slide", size="96", crop="64", stride="48", templates=str(tmp_path / "worded.txt"))
    table, classes = evaluate(asked, segmenter(), resamples=0), voc21(root).classes
    options = segmenter().options(mode="slide", size=96, crop=64, stride=48, templates=("one {}",))
    metric = MaskIoU("skip")
    for sample in voc21(root):
        labels = segmenter().semantic(sample.image(), classes[1:], background=0.95, options=options).labels + 1
        for place in range(len(classes)):
            metric.update(classes[place], labels == place, sample.labels() == place, sample.labels() >= 0)
    assert {row.name: row.value for row in table.rows}["mIoU"] == pytest.approx(metric.compute().mean)
    assert {name: table.constants[name] for name in ("size", "crop", "templates")} == {"size": 96, "crop": 64, "templates": ["one {}"]}
    assert "mode" not in evaluate(protocol("voc-maps", root), segmenter(), resamples=0).constants


@pytest.mark.parametrize(("kind", "ours", "theirs"), [("voc-maps", 0.523, 0.530), ("context-maps", 0.224, 0.359)])
def test_published_figures(kind: str, ours: float, theirs: float) -> None:
    published = protocol(kind, ".").published()
    assert published["groupvit-gcc-yfcc"] == {"mIoU": ours}
    assert published["DeiT, fine-tuned"] == {"mIoU": theirs}


def test_pixel_maps_of_coco_stuff(tmp_path: Path) -> None:
    replicas.labels(tmp_path / "1.png", np.array([[0, 10, 12, 89, 91, 181, 255]], np.uint8))
    assert objects_of_stuff(tmp_path / "1.png").tolist() == [[1, 11, 12, 80, 0, 0, 0]]
    replicas.labels(tmp_path / "2.png", np.array([[11]], np.uint8))
    with pytest.raises(DataError, match="no id of COCO-Stuff"):
        objects_of_stuff(tmp_path / "2.png")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label maps"):
        coco_objects(tmp_path)
    with pytest.raises(ConfigError, match="probability"):
        protocol("voc-maps", tmp_path, background=2.0)

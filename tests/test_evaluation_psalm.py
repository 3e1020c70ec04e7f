"""PSALM's benchmarks on miniatures: an answerer that knows the truth gets everything, one that knows a part what the rules give it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import replicas
import small_psalm
from promptseg.data import instructions
from promptseg.errors import ConfigError, DataError, PromptError
from promptseg.evaluation import evaluate, protocol
from promptseg.maps import PanopticMap, Segment
from promptseg.segmenter import Segmenter

SIZE = replicas.COCO_SIZE
PERSON = np.zeros(SIZE, dtype=np.bool_)
PERSON[5:20, 5:25] = True
HALF = PERSON.copy()
HALF[5:20, 15:25] = False


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(small_psalm.model(), small_psalm.card(), device="cpu", precision="float32")


class Knowing(Segmenter):
    """Answers with given masks; everything else is the tiny model's."""

    def __init__(self, *masks: NDArray[np.bool_]) -> None:
        super().__init__(small_psalm.model(), small_psalm.card(), device="cpu", precision="float32")
        self.masks, self.asked = masks, list[Any]()

    def __call__(self, image: Any, prompts: Any, **_: Any) -> Any:
        self.asked.append(prompts)
        return [SimpleNamespace(mask=mask) for mask in self.masks[: len(prompts) if isinstance(prompts, list) else 1]]

    def refer(self, image: Any, expression: str, **_: Any) -> Any:
        self.asked.append(expression)
        return [SimpleNamespace(mask=self.masks[0])]

    person, grass = ("person",), ("grass-merged",)

    def panoptic(self, image: Any, things: Any = None, stuff: Any = None, *, order: Any = None, **_: Any) -> Any:
        assert (things, stuff, order) == ([self.person], [self.grass], [self.person[0], self.grass[0]])
        return PanopticMap(np.where(self.masks[0], 0, 1), [Segment(self.person[0], True, 0.9), Segment(self.grass[0], False, 0.9)])

    def semantic(self, image: Any, classes: Any = None, **_: Any) -> Any:
        return SimpleNamespace(labels=np.where(self.masks[0], 0, 1).astype(np.int16))

    def instances(self, image: Any, classes: Any = None, *, threshold: float | None = None, **_: Any) -> Any:
        assert classes == [self.person, self.grass]  # the question is the published one, stuff included
        least = self.card.presence_threshold if threshold is None else threshold
        listed = [(self.grass[0], ~self.masks[0], 0.9), (self.person[0], self.masks[0], 0.1)]
        listed = [one for one in listed if one[2] >= least]
        found = [SimpleNamespace(mask=mask, score=score) for _, mask, score in listed]
        return type("Found", (list,), {"labels": [label for label, _, _ in listed]})(found)

    def track(self, frames: Any, first: Any, **_: Any) -> Iterator[Any]:
        for _ in frames:
            yield [SimpleNamespace(mask=mask) for mask in self.masks[: len(first)]]


def values(name: str, root: Path, model: Segmenter, **options: Any) -> dict[str, float]:
    return {row.name: row.value for row in evaluate(protocol(name, root, **options), model, resamples=2)}


def references(root: Path, kind: str = "referring") -> Path:
    """One person with two sentences; for gRefCOCO also an expression for nothing."""
    replicas.coco_instances(root)
    ref = {"split": "val", "ann_id": 1, "image_id": 1, "file_name": "000000000001.jpg", "sentences": [{"sent": "a man"}, {"sent": "left"}]}
    table = replicas.coco_table()
    if kind == "generalised":
        nothing = {**ref, "ann_id": [-1], "sentences": [{"sent": "a horse"}]}
        entries = instructions.generalised([{**ref, "ann_id": [1]}, nothing], table, "val")
    else:
        entries = instructions.referring([ref], table, "val")
    replicas.write_json(root / "val.json", entries)
    return root


def test_expressions_together_and_one_by_one(tmp_path: Path) -> None:
    root = references(tmp_path)
    together, single = Knowing(HALF), Knowing(PERSON)
    found = values("refcoco", root, together, photos="val2017")
    assert (found["cIoU"], found["mIoU"], found["Pr@0.7"]) == (pytest.approx(0.5), pytest.approx(0.5, abs=1e-6), 0)
    assert together.asked == ["a man. left"]
    assert values("refcoco-sentences", root, single, photos="val2017")["cIoU"] == 1
    assert single.asked == ["a man", "left"]


def test_expressions_for_nothing(tmp_path: Path) -> None:
    root = references(tmp_path, "generalised")
    found = values("grefcoco", root, Knowing(PERSON), photos="val2017")
    assert found == {"cIoU": pytest.approx(2 / 3), "gIoU": pytest.approx(2 / 3), "N-acc": 0, "T-acc": 1}


def test_clicks_of_every_kind(tmp_path: Path, segmenter: Segmenter) -> None:
    replicas.coco_instances(tmp_path)
    table = replicas.coco_table(1)
    table["annotations"] = table["annotations"][:2]  # a person, and a crowd that is left out
    replicas.write_json(tmp_path / "instances_val2017_interactive.json", instructions.interactive(table, Random(0)))
    knowing = Knowing(PERSON)
    found = values("coco-interactive", tmp_path, knowing)
    assert len(found) == 8
    assert min(found.values()) > 0.9999
    assert [len(asked) for asked in knowing.asked] == [1, 1, 1, 1]
    areas = [np.asarray(asked[0].mask).sum() for asked in knowing.asked]
    assert 200 < areas[0] <= 317  # a disc around a point
    only = values("coco-interactive", tmp_path, segmenter, kinds="box")
    assert set(only) == {"cIoU, box", "mIoU, box"}
    with pytest.raises(ConfigError, match="kinds are some of"):
        protocol("coco-interactive", tmp_path, kinds="hand")


@pytest.mark.parametrize("name", ["coco-panoptic", "ade20k-panoptic"])
def test_things_and_stuff(name: str, tmp_path: Path, segmenter: Segmenter) -> None:
    root = replicas.coco_panoptic(tmp_path)
    if name == "ade20k-panoptic":
        (root / "annotations" / "panoptic_val2017.json").rename(root / "ade20k_panoptic_val.json")
        (root / "annotations" / "panoptic_val2017").rename(root / "ade20k_panoptic_val")
        (root / "images").mkdir()
        (root / "val2017").rename(root / "images" / "validation")
    found = values(name, root, Knowing(PERSON))
    assert [found["PQ, things"], found["AP"], found["AP50"]] == pytest.approx([1, 1, 1])
    assert found["PQ, stuff"] == pytest.approx(770 / 820)  # grass reaches under the crowd; unlabelled rows do not count
    assert found["mIoU"] == pytest.approx((300 / 350 + 770 / 820) / 2)  # in label maps the crowd is people, too
    half = values(name, root, Knowing(HALF))
    assert half["PQ, things"] == 0  # an overlap of exactly one half is no match here
    assert half["AP"] == pytest.approx(0.1)  # and the least that counts there
    tiny = values(name, root, segmenter)
    assert all(0 <= value <= 1 for value in tiny.values())


def test_things_and_stuff_by_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synonyms, as the published runs on ADE20K ask by; figures are filed under the data's own names."""
    root, listing = replicas.coco_panoptic(tmp_path), tmp_path / "names.txt"
    listing.write_text("somebody, people\nlawn\n", encoding="utf-8")
    knowing = Knowing(PERSON)
    monkeypatch.setattr(knowing, "person", ("somebody", "people"))
    monkeypatch.setattr(knowing, "grass", ("lawn",))
    table = evaluate(protocol("coco-panoptic", root, names=str(listing)), knowing, resamples=0)
    assert [table.value(name) for name in ("PQ, things", "AP")] == pytest.approx([1, 1])
    assert table.value("mIoU") == pytest.approx((300 / 350 + 770 / 820) / 2)
    assert table.constants["names"] == str(listing)
    listing.write_text("somebody\n", encoding="utf-8")
    with pytest.raises(DataError, match="names 1 classes; the data has 2"):
        evaluate(protocol("coco-panoptic", root, names=str(listing)), knowing)


def test_the_question_follows_the_order_of_the_categories(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = segmenter.model.to_panoptic
    monkeypatch.setattr(segmenter.model, "to_panoptic", lambda *given: asked.append(given[2:4]) or ask(*given))
    photo = np.zeros((20, 30, 3), np.uint8)
    segmenter.panoptic(photo, ["door", ["car", "auto"]], ["wall", "sky"], order=["wall", "door", "sky", "car"])
    assert asked == [([("wall",), ("door",), ("sky",), ("car", "auto")], [False, True, False, True])]
    with pytest.raises(PromptError, match="order"):
        segmenter.panoptic(photo, ["door"], ["wall"], order=["wall"])


def test_label_maps_by_published_synonyms(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ask = segmenter.model.to_class_maps
    monkeypatch.setattr(segmenter.model, "to_class_maps", lambda *given: asked.append(given[2]) or ask(*given))
    listing = tmp_path / "voc.txt"
    listing.write_text("".join(f"thing {number},kind {number}\n" for number in range(20)), encoding="utf-8")
    table = evaluate(protocol("voc20", replicas.voc(tmp_path), names=str(listing)), segmenter, resamples=0)
    assert 0 <= table.value("mIoU") <= 1
    assert asked[0] == tuple((f"thing {number}", f"kind {number}") for number in range(20))


def test_videos(tmp_path: Path, segmenter: Segmenter) -> None:
    other = np.zeros(SIZE, dtype=np.bool_)
    other[22:28, 5:25] = True
    for number in range(5):
        replicas.photo(tmp_path / "JPEGImages" / "480p" / "one" / f"{number:05d}.jpg", SIZE, number)
        replicas.labels(tmp_path / "Annotations" / "480p" / "one" / f"{number:05d}.png", (PERSON + 2 * other).astype(np.uint8))
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("one\n", encoding="utf-8")
    knowing = values("davis2017", tmp_path, Knowing(PERSON, other))
    assert (knowing["J&F"], knowing["J, decay"]) == (1, 0)
    half = values("davis2017", tmp_path, Knowing(HALF, other), split="all")
    assert half["J, mean"] == pytest.approx(0.75)
    assert 0 <= values("davis2017", tmp_path, segmenter)["J&F"] <= 1
    with pytest.raises(DataError, match=r"test\.txt"):
        evaluate(protocol("davis2017", tmp_path, split="test"), segmenter)


def test_files_that_are_something_else(tmp_path: Path, segmenter: Segmenter) -> None:
    (tmp_path / "val.json").write_text(json.dumps([{"image": "x"}]), encoding="utf-8")
    with pytest.raises(DataError, match="promptseg data prepare"):
        evaluate(protocol("refcoco", tmp_path), segmenter)


@pytest.mark.parametrize(("options", "figure"), [({}, 0.836), ({"data_set": "refcoco+"}, 0.729), ({"data_set": "refcocog"}, 0.738)])
def test_published_figures_stand_beside_ours(tmp_path: Path, options: dict[str, Any], figure: float) -> None:
    table = evaluate(protocol("refcoco", references(tmp_path), photos="val2017", **options), Knowing(PERSON), resamples=0)
    assert table.published == {"psalm": {"cIoU": figure}}


def test_figures_of_other_splits_and_rules(tmp_path: Path) -> None:
    assert protocol("refcoco", tmp_path, split="testB").published() == {"psalm": {"cIoU": 0.816}}
    assert protocol("refcoco", tmp_path, split="mine").published() == {}
    assert protocol("refcoco-sentences", tmp_path).published() == {}
    assert protocol("coco-panoptic", tmp_path).published() == {"psalm": {"PQ": 0.559, "AP": 0.457, "mIoU": 0.666}}
    with pytest.raises(ConfigError, match="refcocog"):
        protocol("refcoco", tmp_path, data_set="refclef")

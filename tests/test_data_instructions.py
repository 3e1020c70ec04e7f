"""The files of PSALM's training: prompts drawn for objects, questions joined with annotations. Exact values: tests/golden/psalm."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from random import Random

import numpy as np
import pytest
from typer.testing import CliRunner

from promptseg.cli import app
from promptseg.data.instructions import PROMPT_KEYS, generalised, instances, interactive, lvis, referring
from promptseg.data.visual_prompts import parts_of, visual_prompts
from promptseg.errors import DataError, ExportError
from promptseg.rle import Rle

BOX = [10, 10, 50, 10, 50, 30, 10, 30]
TABLE = {
    "images": [
        {
            "id": number,
            "file_name": f"{name}.jpg",
            "height": 60,
            "width": 80,
            "coco_url": f"http://images.cocodataset.org/val2017/{name}.jpg",
        }
        for number, name in ((1, "a"), (2, "b"))
    ],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [BOX]}],
    "categories": [{"id": 1, "name": "cat"}],
}


class Bounded(Random):
    """Fails where it would be asked for ever."""

    drawn = 0

    def uniform(self, a: float, b: float) -> float:
        self.drawn += 1
        assert self.drawn < 10_000
        return super().uniform(a, b)


def test_parts_leave_out_specks() -> None:
    mask = np.zeros((20, 30), dtype=np.bool_)
    mask[2:5, 3:9] = mask[5, 9] = mask[10, 2:7] = mask[15, 20:26] = True  # a corner touches; five pixels are too few
    assert [part.box for part in parts_of(mask)] == [(2, 3, 6, 10), (15, 20, 16, 26)]
    assert parts_of(mask)[1].centre == (15, 22.5)


def test_prompts_lie_on_and_around_the_object() -> None:
    mask = np.zeros((60, 80), dtype=np.bool_)
    mask[10:30, 10:50] = True
    found = visual_prompts(mask, Random(0))
    assert mask[found.pixels[0]]
    assert found.point.sum() == 1
    assert (found.mask & mask).sum() > 0.9 * mask.sum()
    assert (found.box & mask).sum() / (found.box | mask).sum() > 0.8
    assert found.scribble.sum() > 5
    empty = visual_prompts(np.zeros((9, 9), dtype=np.bool_), Random(0))
    assert not any((empty.point.any(), empty.mask.any(), empty.box.any(), empty.scribble.any()))


def test_a_thin_corner_gets_a_scribble() -> None:
    mask = np.zeros((120, 120), dtype=np.bool_)
    mask[10:110, 10:12] = mask[108:110, 10:110] = True  # no box around its centre overlaps its own by half
    assert visual_prompts(mask, Bounded(0)).scribble.any()


def test_photos_without_objects_are_left_out() -> None:
    (entry,) = interactive(TABLE, Random(0))
    assert (entry["image"], entry["new_img_id"]) == ("a.jpg", 0)
    runs = entry["anns"][0][PROMPT_KEYS["point"]]
    assert Rle.from_string(runs["counts"], tuple(runs["size"])).area == 1
    assert TABLE["annotations"][0].keys() == {"id", "image_id", "category_id", "iscrowd", "segmentation"}


def test_expressions_without_a_target() -> None:
    refs = [{"split": "val", "ann_id": [-1], "image_id": 1, "file_name": "a_0.jpg", "sentences": [{"sent": "dog"}, {"sent": "hat"}]}]
    built = generalised(refs, TABLE, "val")
    assert [entry["instruction"] for entry in built] == [[{"sent": "dog"}], [{"sent": "hat"}]]
    assert [entry["anns"] for entry in built] == [[], []]


def test_ids_that_name_nothing() -> None:
    with pytest.raises(DataError, match="one release"):
        referring([{"split": "val", "ann_id": 77, "image_id": 1, "sentences": []}], TABLE, "val")


@pytest.mark.parametrize(
    "table",
    [[], {}, {**TABLE, "annotations": [{**TABLE["annotations"][0], "image_id": 2000}]}, {**TABLE, "images": ["a.jpg"]}],
)
def test_prepare_names_the_file_that_is_malformed(table: object, tmp_path: Path) -> None:
    source = tmp_path / "something.json"
    source.write_text(json.dumps(table), encoding="utf-8")
    found = CliRunner().invoke(app, ["data", "prepare", "interactive", str(source), "--output", str(tmp_path / "out")]).exception
    assert isinstance(found, DataError)
    assert "something.json" in str(found)


def test_prepare_writes_the_same_again_and_never_over(tmp_path: Path) -> None:
    source = tmp_path / "instances_val2017.json"
    source.write_text(json.dumps(TABLE), encoding="utf-8")

    def prepare(folder: str, *more: str) -> Path:
        done = CliRunner().invoke(app, ["data", "prepare", "interactive", str(source), "--output", str(tmp_path / folder), *more])
        assert done.exit_code == 0, done.output
        assert "1 objects in 1 entries" in done.output
        return tmp_path / folder / "instances_val2017_interactive.json"

    first = prepare("one").read_text(encoding="utf-8")
    assert json.loads(first) == interactive(TABLE, Random(0))
    assert prepare("two").read_text(encoding="utf-8") == first
    assert prepare("three", "--seed", "1").read_text(encoding="utf-8") != first
    for what, build in (("instances", instances), ("lvis", lvis)):
        done = CliRunner().invoke(app, ["data", "prepare", what, str(source), "--output", str(tmp_path)])
        assert done.exit_code == 0
        assert json.loads((tmp_path / f"instances_val2017_{what}.json").read_text()) == build(TABLE)
    again = CliRunner().invoke(app, ["data", "prepare", "interactive", str(source), "--output", str(tmp_path / "one")])
    assert isinstance(again.exception, ExportError)


def test_prepare_writes_every_split_of_the_references(tmp_path: Path) -> None:
    refs = [{"split": split, "ann_id": 5, "image_id": 1, "sentences": [{"sent": f"of {split}"}]} for split in ("train", "val")]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (tmp_path / "instances.json").write_text(json.dumps(TABLE), encoding="utf-8")

    def prepare(*files: str) -> object:
        words = ["data", "prepare", "referring", *(str(tmp_path / file) for file in files), "--output", str(tmp_path / "out")]
        return CliRunner().invoke(app, words).exception

    assert prepare("refs(unc).p", "instances.json") is None
    written = json.loads((tmp_path / "out" / "val.json").read_text(encoding="utf-8"))
    assert written == referring(refs, TABLE, "val")
    assert (tmp_path / "out" / "train.json").is_file()
    assert "takes two files" in str(prepare("refs(unc).p"))
    (tmp_path / "bad.p").write_bytes(pickle.dumps(Random))
    assert "it asks for random.Random" in str(prepare("bad.p", "instances.json"))
    assert "holds no references" in str(prepare("instances.json", "instances.json"))

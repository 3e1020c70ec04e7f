"""What holds for every protocol: interruption, confidence intervals, files, and what happens when something does not fit."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mixing_network
import replicas
import small_photosets
import toy_family
from command_line import Cli
from promptseg.contracts import PromptKind, Task
from promptseg.errors import ConfigError, DataError, PromptSegError, UnsupportedPrompt, UnsupportedTask
from promptseg.evaluation import PROTOCOLS, Pocket, Table, evaluate, protocol
from promptseg.evaluation.bootstrap import Pool, draws
from promptseg.evaluation.report import CASES, chosen
from promptseg.evaluation.table import PhotoFigures, Row
from promptseg.metrics import Accumulator, MaskIoU, PairIoU, Presence, ReferringIoU, SemanticIoU, ThresholdSweep, TopK, ZeroShotIoU, merged
from promptseg.segmenter import Segmenter


class StoppedError(Exception):
    """Somebody pressed a key."""


@pytest.fixture
def segmenter() -> Segmenter:
    return mixing_network.segmenter()


def stop_at(case: int) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if done == case:
            raise StoppedError

    return progress


def many(root: Path, count: int = 7) -> Path:
    """Label maps of one's own on ``count`` photos more, all different; every third has no spoon."""
    replicas.own_maps(root)
    for index in range(count):
        replicas.photo(root / "images" / f"c{index}.jpg", replicas.COCO_SIZE, index)
        values = np.random.default_rng(index).integers(0, 2 + bool(index % 3), (6, 8), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
        replicas.labels(root / "masks" / f"c{index}.png", values)
    return root


# --- interruption -----------------------------------------------------------------------------------------------------------------------


def test_an_interrupted_evaluation_goes_on_and_equals_one_that_ran_through(tmp_path: Path, segmenter: Segmenter) -> None:
    root, output = many(tmp_path / "data"), tmp_path / "out" / "table.json"
    whole = evaluate(protocol("own", root), mixing_network.segmenter(), output=tmp_path / "whole.json", resamples=20)
    with pytest.raises(StoppedError):
        evaluate(protocol("own", root), segmenter, stop_at(4), output=output, resamples=20)
    assert [path.name for path in output.parent.iterdir()] == ["table.unfinished.jsonl"]
    with (output.parent / "table.unfinished.jsonl").open("a") as file:
        file.write('{"part": "photos", "case": 4, "ke')  # the line that a kill cut off
    again = mixing_network.segmenter()
    resumed = evaluate(protocol("own", root), again, output=output, resamples=20)
    assert resumed == whole
    assert output.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert again.model.encodings["image"] < 9 + 3 * CASES  # the sheet asks again, the first four photos are not counted again
    assert not (output.parent / "table.unfinished.jsonl").exists()


def test_nothing_is_asked_twice(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptseg.evaluation.report.sheet", lambda *_: None)
    root, output = many(tmp_path / "data"), tmp_path / "table.json"
    with pytest.raises(StoppedError):
        evaluate(protocol("own", root), segmenter, stop_at(4), output=output)
    again = mixing_network.segmenter()
    evaluate(protocol("own", root), again, output=output)
    assert (segmenter.model.encodings["image"], again.model.encodings["image"]) == (4, 5)


def test_a_killed_evaluation_goes_on(tmp_path: Path, segmenter: Segmenter) -> None:
    root, output = many(tmp_path / "data"), tmp_path / "table.json"
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import mixing_network
from promptseg.evaluation import evaluate, protocol
stop = lambda what, done, total: done == 5 and os.kill(os.getpid(), signal.SIGKILL)
evaluate(protocol("own", {str(root)!r}), mixing_network.segmenter(), stop, output={str(output)!r}, resamples=5)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len((tmp_path / "table.unfinished.jsonl").read_text().splitlines()) == 6
    resumed = evaluate(protocol("own", root), segmenter, output=output, resamples=5)
    assert resumed == evaluate(protocol("own", root), segmenter, resamples=5)


@pytest.mark.parametrize("change", ["option", "weights", "card"])
def test_the_unfinished_evaluation_of_something_else_is_not_continued(change: str, tmp_path: Path, segmenter: Segmenter) -> None:
    root, output = many(tmp_path / "data"), tmp_path / "table.json"
    with pytest.raises(StoppedError):
        evaluate(protocol("own", root), segmenter, stop_at(2), output=output)
    other = mixing_network.segmenter("another" if change == "card" else "mixing")
    if change == "weights":
        with torch.no_grad():
            other.model.gain += 1
    asked = protocol("own", root, template="a {}") if change == "option" else protocol("own", root)
    with pytest.raises(ConfigError, match="unfinished evaluation of another"):
        evaluate(asked, other, output=output)


# --- intervals --------------------------------------------------------------------------------------------------------------------------


def photo_metrics(seed: int) -> list[Accumulator[Any]]:
    """Every metric that protocols use, after one photo."""
    random = np.random.default_rng(seed)
    mask, target = random.random((2, 6, 6)) < 0.5
    labels = random.integers(0, 3, (2, 6, 6))
    name = "ab"[seed % 2]
    return [
        MaskIoU().update(name, mask, target),
        PairIoU().update(name, mask, target),
        TopK().update(name, labels[0].ravel(), seed % 36),
        Presence().update(bool(seed % 2), bool(seed % 3), float(mask.mean())),
        ReferringIoU().update(mask, target),
        ThresholdSweep((0.2, 0.5)).update(seed, random.random((6, 6)), target),
        SemanticIoU(("x", "y", "z")).update(*labels),
        ZeroShotIoU(("x", "y", "z"), unseen=("z",)).update(*labels),
    ]


def flat(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in value for number in flat(value[key])]
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if hasattr(value, "__slots__") or hasattr(value, "__dataclass_fields__"):
        return [number for name in value.__dataclass_fields__ for number in flat(getattr(value, name))]
    return [float(value)] if isinstance(value, (int, float)) else []


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_weighted_sums_are_the_metric_of_repeated_photos(weights: list[int]) -> None:
    empty = [MaskIoU(), PairIoU(), TopK(), Presence(), ReferringIoU(), ThresholdSweep((0.2, 0.5)), SemanticIoU(("x", "y", "z"))]
    empty.append(ZeroShotIoU(("x", "y", "z"), unseen=("z",)))
    photos = [photo_metrics(seed) for seed in range(4)]
    for place, start in enumerate(empty):
        repeated = [photos[index][place] for index, weight in enumerate(weights) for _ in range(weight)]
        found = Pool(start, [photo[place] for photo in photos]).weighted(np.array(weights)).compute()
        np.testing.assert_allclose(flat(found), flat(merged(repeated).compute()), rtol=1e-12)


def test_groups_are_drawn_as_a_whole() -> None:
    for weights in draws(["a", "a", "b", "c", "c", "c"], 50):
        assert weights[0] == weights[1]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[2] + weights[3] == 3


def test_intervals_have_the_width_that_theory_wants(tmp_path: Path, segmenter: Segmenter) -> None:
    table = evaluate(protocol("own", many(tmp_path, 40)), segmenter, resamples=400)
    row = table.rows[0]
    scores = np.array([photo.score for photo in table.photos])
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.value < row.high
    width = 2 * 1.96 * scores.std() / np.sqrt(len(scores))
    assert (row.high - row.low) == pytest.approx(width, rel=0.35)
    assert evaluate(protocol("own", tmp_path), segmenter, resamples=400) == table  # drawn alike every time


# --- files ------------------------------------------------------------------------------------------------------------------------------


def test_every_file_is_written_and_says_what_the_table_says(tmp_path: Path, segmenter: Segmenter) -> None:
    table = evaluate(protocol("own", many(tmp_path / "data")), segmenter, output=tmp_path / "table.json", resamples=10)
    written = json.loads((tmp_path / "table.json").read_text())
    assert [row["value"] for row in written["rows"]] == [row.value for row in table]
    assert written["constants"]["MaskIoU.absent"] == "skip"
    assert written["constants"]["interval"].startswith("bootstrap over photos, 10 draws")
    with (tmp_path / "table.photos.csv").open() as file:
        photos = list(csv.DictReader(file))
    assert [photo["photo"] for photo in photos] == [photo.key for photo in table.photos]
    assert float(photos[0]["present names: mean IoU"]) == pytest.approx(table.photos[0].score, abs=1e-5)
    with (tmp_path / "table.classes.csv").open() as file:
        assert {line["class"] for line in csv.DictReader(file)} == {"cup", "spoon"}
    markdown = (tmp_path / "table.md").read_text()
    assert table.markdown_row() in markdown
    assert f"| {table.rows[0].name} | {table.rows[0].value:.3f} |" in markdown
    sheet = Image.open(tmp_path / "table.png")
    assert sheet.width > sheet.height > 300
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data", "table.classes.csv", "table.json", "table.md", "table.photos.csv", "table.png",
    ]  # fmt: skip


@given(st.lists(st.floats(0, 1), max_size=40))
def test_best_median_and_worst_cases(scores: list[float]) -> None:
    kinds = chosen([PhotoFigures("part", str(index), {"score": score}) for index, score in enumerate([*scores, float("nan")])])
    cases = [case for kind in kinds for case in kind]
    assert len(cases) == len(set(cases)) == min(3 * CASES, len(scores))
    if len(kinds) == 3:
        best, middle, worst = ([scores[case] for case in kind] for kind in kinds)
        assert min(best) >= max(middle) >= min(middle) >= max(worst)
        assert best[0] == max(scores)
        assert worst[0] == min(scores)


def test_a_figure_that_is_not_defined_is_no_number_anywhere() -> None:
    table = Table("own", "model", (Row("nothing", float("nan")),), {"paper": {"nothing": 0.5}})
    assert table.json()["rows"][0]["value"] is None
    assert table.cells()[1] == [["nothing", "-", "", "0.500"]]


# --- pocket's own -----------------------------------------------------------------------------------------------------------------------


def test_the_pocket_protocol_is_what_its_photos_say(tmp_path: Path) -> None:
    """Counted anew from the segmenter's own masks, for the rows that are easy to count."""
    from promptseg.data import photosets

    root, segmenter = small_photosets.write(tmp_path), mixing_network.segmenter()
    table = evaluate(Pocket(root), segmenter, resamples=0)
    present, people = [], []
    for photo in photosets.label_maps(root / "msrc", "msrc", drop=("horse",)):
        if photo.validation:
            truth, unknown = photo.masks()
            for name in truth:
                mask = segmenter(photo.path, name)[0].mask & ~unknown
                present.append((mask & truth[name]).sum() / max(1, (mask | truth[name]).sum()))
    for photo in photosets.coco(root / "coco_person", "coco_person"):
        if photo.validation:
            mask, target = segmenter(photo.path, "person")[0].mask, photo.masks()[0]["person"]
            people.append((mask & target).sum() / (mask | target).sum())
    assert table.value("MSRC, present names: mean IoU") == pytest.approx(np.mean(present))
    assert table.value('coco_person, "person": mean IoU') == pytest.approx(np.mean(people))
    assert len(table) == 10


# --- what does not fit ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_names_a_missing_root(name: str, tmp_path: Path) -> None:
    able = mixing_network.segmenter(tasks=get_args(Task), prompts=get_args(PromptKind))
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match=str(tmp_path)):
            evaluate(protocol(name, root), able)


@pytest.mark.parametrize(
    ("name", "given_options", "says"),
    [
        ("phrasecuts", {}, "Did you mean 'phrasecut'"),
        ("phrasecut", {"treshold": "0.3"}, "Did you mean 'threshold'"),
        ("phrasecut", {"threshold": "0.33"}, "0.02, 0.04"),
        ("phrasecut", {"size": "large"}, "size='large'"),
        ("phrasecut", {"size": 3}, "16 to 8192"),
        ("pascal-zero-shot", {"unseen": 3}, "2, 4, 5, 6, 8, 10"),
        ("pascal5i", {"folds": "0,4"}, "0, 1, 2, 3"),
        ("pascal5i", {"folds": "1,1"}, "each once"),
        ("pocket", {"every": 0}, "at least 1"),
        ("own", {"template": "a photo"}, "one {}"),
        ("own", {"zero": "nothing"}, "zero='nothing'"),
    ],
)
def test_impossible_options(name: str, given_options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        protocol(name, ".", **given_options)
    assert says in str(raised.value)


def test_models_that_cannot_be_asked(tmp_path: Path) -> None:
    root = replicas.phrasecut(tmp_path)
    with pytest.raises(UnsupportedPrompt, match="exemplar"):
        evaluate(protocol("phrasecut-visual", root, split="train"), mixing_network.segmenter(prompts=("text",)))
    with pytest.raises(UnsupportedTask, match="masks"):
        evaluate(protocol("phrasecut", root, split="train"), mixing_network.segmenter(tasks=("semantic",)))
    with pytest.raises(ConfigError, match="3 models were given for the 2 parts"):
        evaluate(protocol("phrasecut-ablation", root, split="train"), [mixing_network.segmenter()] * 3)
    odd = mixing_network.segmenter(preprocess=replace(toy_family.CARD.preprocess, multiple=32))
    with pytest.raises(ConfigError, match="multiples of 32"):
        evaluate(protocol("phrasecut", root, split="train", size=40), odd)


def test_places_that_cannot_be_written(tmp_path: Path, segmenter: Segmenter) -> None:
    root = many(tmp_path / "data", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        evaluate(protocol("own", root), segmenter, output=tmp_path / "file" / "table.json")
    assert segmenter.model.encodings["image"] == 0  # told before the work, not after
    for place in ("own", "own.md", "own.png", "data", "folder.json"):
        (tmp_path / "folder.json").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=r"must be a file that ends in \.json"):
            evaluate(protocol("own", root), segmenter, output=tmp_path / place)
    assert segmenter.model.encodings["image"] == 0
    with pytest.raises(PromptSegError, match="0 or more"):
        evaluate(protocol("own", root), segmenter, resamples=-1)


# --- the command ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys)


def test_the_command_shows_what_can_be_measured(cli: Cli) -> None:
    code, out, _ = cli("eval", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:-1]] == list(PROTOCOLS)
    code, out, _ = cli("eval", "list", "pascal-zero-shot")
    assert code == 0
    for word in ("unseen=10", "promptseg data list pascal-zero-shot", "CLIPSeg (PC+): mIoU, seen 0.357, mIoU, unseen 0.431"):
        assert word in out
    code, _, err = cli("eval", "list", "own", "pocket")
    assert code == 1
    assert "one protocol at a time" in err


def test_the_command_measures_several_models(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptseg.segmenter.load", lambda name, **_: mixing_network.segmenter(name))
    replicas.phrasecut(Path("data"))
    asked = ("eval", "phrasecut", "split=train", "size=24", "--data", "data", "--resamples", "4", "-o", "table.json")
    code, out, err = cli(*asked, "--model", "one")
    assert (code, err) == (0, "")
    assert "CLIPSeg (PC+)" in " ".join(out.split())
    assert "threshold 0.3" in out
    assert json.loads(Path("table.json").read_text())["model"] == "one"
    code, out, _ = cli(*asked, "--model", "one", "--model", "two")
    assert code == 0
    assert Path("table.md").read_text().splitlines()[-1].startswith("| two |")
    assert {json.loads(Path(f"table.{number}.json").read_text())["model"] for number in (1, 2)} == {"one", "two"}

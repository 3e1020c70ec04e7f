"""MESS on miniatures of all its sets, against figures counted as its evaluator counts them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import replicas
from promptseg import zoo
from promptseg.data.mess import DOMAINS, SETS, mess
from promptseg.data.samples import IGNORE
from promptseg.errors import ConfigError, DataError
from promptseg.evaluation import evaluate, protocol
from promptseg.models.catseg import CatSegOptions
from promptseg.segmenter import Segmenter
from test_catseg import build

SIZE = (12, 16)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(build(), zoo.card("catseg-base"), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of every set, as its authors' preparation leaves them."""
    place = tmp_path_factory.mktemp("mess")
    for number, entry in enumerate(SETS.values()):
        for copy in (1, 2):
            stem = f"00{copy}" if entry.photos[1].startswith((".", "_")) else f"00{copy}_"
            values = np.random.default_rng(10 * number + copy).integers(0, len(entry.classes), SIZE).astype(np.uint8)
            values[:2] = 255
            replicas.labels(place / entry.maps[0] / f"{stem}{entry.maps[1]}", values)
            replicas.photo(place / entry.photos[0] / f"{stem}{entry.photos[1]}", SIZE, copy)
    replicas.labels(place / SETS["cwfid"].maps[0] / "003_annotation.png", np.zeros(SIZE, np.uint8))  # of another split: has no photo here
    return place


def answers(monkeypatch: pytest.MonkeyPatch, segmenter: Segmenter) -> dict[tuple[str, ...], list[np.ndarray]]:
    """What the model is made to answer, by the names it was asked with: always the first class but for a stripe of the second."""
    given: dict[tuple[str, ...], list[np.ndarray]] = {}

    def semantic(image: Any, classes: Any, *, background: float, options: Any) -> Any:
        assert (background, options) == (0.0, CatSegOptions(mode="slide", truncate=True))
        labels = np.zeros(image.shape[:2], np.int16)
        labels[:, :5] = 1
        given.setdefault(tuple(classes), []).append(labels)
        return SimpleNamespace(labels=labels)

    monkeypatch.setattr(segmenter, "semantic", semantic)
    return given


def by_hand(pairs: list[tuple[np.ndarray, np.ndarray]], count: int, interest: tuple[int, ...]) -> tuple[float, float, float]:
    """As MESS's evaluator: IoU of every class that is labelled or predicted somewhere; over all, over those of interest; pixel accuracy."""
    matrix = np.zeros((count, count), np.int64)
    for answer, target in pairs:
        known = target != IGNORE
        np.add.at(matrix, (answer[known], target[known]), 1)
    hits, labelled, predicted = matrix.diagonal().astype(float), matrix.sum(0), matrix.sum(1)
    valid = labelled + predicted > 0
    iou = np.zeros(count)
    iou[valid] = hits[valid] / (labelled + predicted - hits)[valid]
    wanted = np.bincount(interest, minlength=count).astype(bool)
    return iou[valid].mean(), iou[wanted & valid].mean(), hits.sum() / labelled.sum()


def test_figures_of_all_sets(root: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    given = answers(monkeypatch, segmenter)
    table = evaluate(protocol("mess", root), segmenter, resamples=2)
    assert set(given) == {entry.classes for entry in SETS.values()}
    answer = next(iter(given.values()))[0]
    scores: dict[str, list[float]] = {}
    for name, entry in SETS.items():
        photos = mess(root, name)
        assert len(photos) == 2
        every, interest, pixels = by_hand([(answer, photo.labels()) for photo in photos], len(entry.classes), entry.interest)
        assert table.value(f"{name}: mIoU") == pytest.approx(every)
        assert table.value(f"{name}: mIoU of classes of interest") == pytest.approx(interest)
        assert table.value(f"{name}: pixel accuracy") == pytest.approx(pixels)
        scores.setdefault(entry.title, []).append(every)
    assert len(scores) == 22
    for domain in DOMAINS:
        titles = {entry.title for entry in SETS.values() if entry.domain == domain}
        assert table.value(f"{domain}: mIoU") == pytest.approx(np.mean([np.mean(scores[title]) for title in titles]))
    assert table.value("mean: mIoU") == pytest.approx(np.mean([np.mean(values) for values in scores.values()]))
    assert len(table) == 3 * 25 + 5 + 1
    assert (table.constants["sets"], table.constants["mode"]) == (list(SETS), "slide")


def test_a_few_sets(root: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means are told of whole domains alone."""
    answers(monkeypatch, segmenter)
    names = [row.name for row in evaluate(protocol("mess", root, sets="suim,cub-200,cwfid,paxray-lungs"), segmenter, resamples=0).rows]
    assert len(names) == 4 * 3 + 1
    assert names[-1] == "Agriculture and Biology: mIoU"


def test_the_model_itself(root: Path, segmenter: Segmenter) -> None:
    table = evaluate(protocol("mess", root, sets="deepcrack", mode="whole"), segmenter, resamples=0)
    photos = mess(root, "deepcrack")
    options = CatSegOptions(mode="whole", truncate=True)
    pairs = [(segmenter.semantic(photo.image(), photo.classes, options=options).labels, photo.labels()) for photo in photos]
    assert table.value("deepcrack: mIoU") == pytest.approx(by_hand(pairs, 2, (1,))[0])


def test_the_sets_are_those_of_the_toolkit() -> None:
    """25 lists for 22 sets, and their counts by domain."""
    titles = {entry.title: entry.domain for entry in SETS.values()}
    assert [list(titles.values()).count(domain) for domain in DOMAINS] == [6, 5, 4, 4, 3]
    assert {name: len(entry.classes) for name, entry in SETS.items() if len(entry.classes) > 20} == {
        "foodseg103": 104,
        "atlantis": 56,
        "cub-200": 201,
    }
    everything = "|".join(f"{name}:{','.join(entry.classes)}:{entry.interest}" for name, entry in SETS.items())
    assert hashlib.sha256(everything.encode()).hexdigest()[:16] == "c0b3ebce24b5429d"


def test_what_cannot_be(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'deepcrack'"):
        protocol("mess", root, sets="deepcracks")
    with pytest.raises(ConfigError, match="each once"):
        protocol("mess", root, sets="suim,suim")
    with pytest.raises(ConfigError, match="slide"):
        protocol("mess", root, mode="both")
    with pytest.raises(DataError, match="SUIM"):
        mess(tmp_path, "suim")
    with pytest.raises(DataError, match="set of MESS"):
        mess(tmp_path, "voc")

"""The six benchmarks of CAT-Seg on miniatures, against figures counted as the published evaluator counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import replicas
import small_groupvit
from promptseg import zoo
from promptseg.data.pascal import voc20, voc20b
from promptseg.data.samples import IGNORE
from promptseg.data.vocabularies import names, synonyms
from promptseg.errors import ConfigError, DataError, UnsupportedTask
from promptseg.evaluation import evaluate, protocol
from promptseg.models.catseg import CatSegOptions
from promptseg.segmenter import Segmenter
from test_catseg import build

MINIATURES: dict[str, Callable[[Path], Path]] = {
    "ade847": replicas.ade847,
    "context459": replicas.context,
    "ade150": replicas.ade150,
    "context59": replicas.context,
    "voc20": replicas.voc,
    "voc20b": replicas.voc,
}
ASKED = {name: [words[0] for words in synonyms(name)] if name == "ade847" else [one.strip() for one in names(name)] for name in MINIATURES}
COUNTED = {name: 21 if name == "voc20b" else len(asked) for name, asked in ASKED.items()}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(build(), zoo.card("catseg-base"), device="cpu", precision="float32")


def by_hand(pairs: list[tuple[NDArray[Any], NDArray[Any]]], count: int) -> dict[str, float]:
    """One matrix over the set, predictions by labels; classes that no pixel is labelled with are left out."""
    matrix = np.zeros((count, count), np.int64)
    for answer, target in pairs:
        known = target != IGNORE
        np.add.at(matrix, (np.minimum(answer[known], count - 1), target[known]), 1)
    hits, labelled = matrix.diagonal().astype(float), matrix.sum(0)
    there = labelled > 0
    iou = hits[there] / (labelled + matrix.sum(1) - hits)[there]
    return {
        "mIoU": iou.mean(),
        "pixel accuracy": hits.sum() / labelled.sum(),
        "mean class accuracy": (hits[there] / labelled[there]).mean(),
    }


@pytest.mark.parametrize("name", MINIATURES)
def test_figures(name: str, tmp_path: Path, segmenter: Segmenter) -> None:
    """Everything as published but for the mode: one look is enough here."""
    benchmark = protocol(name, MINIATURES[name](tmp_path), mode="whole")
    pairs = [
        (segmenter.semantic(sample.image(), ASKED[name], options=CatSegOptions(mode="whole", truncate=True)).labels, sample.labels())
        for sample in benchmark.photos()
    ]
    table = evaluate(benchmark, segmenter, resamples=3)
    assert {row.name: row.value for row in table.rows} == pytest.approx(by_hand(pairs, COUNTED[name]))
    for card in ("catseg-base", "catseg-large"):
        assert table.published[card] == {"mIoU": zoo.card(card).metrics[f"{name}/mIoU"]}
    assert (table.constants["mode"], table.constants["truncate"], table.constants["MaskIoU.absent"]) == ("whole", True, "labelled")


@pytest.mark.parametrize("name", MINIATURES)
def test_how_the_model_is_asked(name: str, tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every name at once, in the way of the published figures; what knows the truth gets all of it."""
    benchmark = protocol(name, MINIATURES[name](tmp_path))
    truths = iter([sample.labels() for sample in benchmark.photos()])

    def know(image: Any, classes: Any, **given: Any) -> Any:
        assert list(classes) == ASKED[name]
        assert given == {"background": 0.0, "options": CatSegOptions(mode="slide", truncate=True)}
        truth = next(truths)
        return SimpleNamespace(labels=np.where(truth == COUNTED[name] - 1, len(ASKED[name]) - 1, truth).astype(np.int16))

    monkeypatch.setattr(segmenter, "semantic", know)
    assert [row.value for row in evaluate(benchmark, segmenter, resamples=0).rows] == [1, 1, 1]


def test_a_pixel_without_a_class_is_a_miss(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = protocol("voc20", replicas.voc(tmp_path))
    monkeypatch.setattr(segmenter, "semantic", lambda image, *_, **__: SimpleNamespace(labels=np.full(image.shape[:2], -1, np.int16)))
    assert [row.value for row in evaluate(benchmark, segmenter, resamples=0).rows] == [0, 0, 0]


def test_voc_without_background_and_with_it_last(tmp_path: Path) -> None:
    root = replicas.voc(tmp_path, aug=False)
    place = root / "VOCdevkit" / "VOC2012"
    values = np.array([[0, 1, 20, 255]], np.uint8)
    replicas.labels(place / "SegmentationClass" / "2007_000001.png", values)
    assert voc20(root)[0].labels().tolist() == [[IGNORE, 0, 19, IGNORE]]
    assert voc20b(root)[0].labels().tolist() == [[20, 0, 19, IGNORE]]
    replicas.labels(place / "SegmentationClassAug" / "2007_000001.png", values[:, ::-1])  # where it exists, the published one
    assert voc20b(root)[0].labels().tolist() == [[IGNORE, 19, 0, 20]]
    replicas.labels(place / "SegmentationClassAug" / "2007_000001.png", values + 1)
    with pytest.raises(DataError, match="holds the values"):
        voc20(root)[0].labels()


def test_other_families_are_asked_in_their_own_way(tmp_path: Path) -> None:
    table = evaluate(protocol("voc20", replicas.voc(tmp_path)), small_groupvit.segmenter(), resamples=0)
    assert 0 <= table.value("mIoU") <= 1
    assert "truncate" not in table.constants


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="slide"):
        protocol("voc20", tmp_path, mode="both")
    unable = SimpleNamespace(card=SimpleNamespace(name="unable", tasks=("masks",), prompts=("text",)))
    with pytest.raises(UnsupportedTask, match="unable"):
        evaluate(protocol("voc20", tmp_path), unable, resamples=0)  # type: ignore[arg-type]

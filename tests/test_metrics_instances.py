"""COCO mask AP: the same figures as pycocotools gives for the same files."""

from __future__ import annotations

import contextlib
import io
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from promptseg.errors import ConfigError, DataError
from promptseg.metrics import Found, Labelled, MaskAP

SIZE = (150, 160)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def photos(seed: int) -> list[tuple[list[Found], list[Labelled]]]:
    """Three photos with things of every size, found more or less well, and some false ones; scores repeat."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(3):
        places = [(*rng.integers(0, 50, 2), *rng.choice([10, 40, 99], 2)) for _ in range(4)]
        truth = [Labelled(box(*place), ("cat", "dog")[rng.integers(2)], crowd=bool(rng.random() < 0.2)) for place in places]
        found = [
            Found(box(*(np.array(place) + rng.integers(0, 4, 4))), one.category, float(rng.choice([0.3, 0.6, 0.9])))
            for place, one in zip(places, truth, strict=True)
            if rng.random() < 0.8
        ]
        result.append(([*found, Found(box(100, 100, 20, 20), "cat", 0.6)], truth))
    return result


def reference(data: list[tuple[list[Found], list[Labelled]]]) -> np.ndarray:
    """The twelve figures of pycocotools from files in COCO's format."""
    names, truths, found = ["cat", "dog"], [], []

    def record(image: int, one: Found | Labelled) -> dict[str, object]:
        rle = coco_mask.encode(np.asfortranarray(np.asarray(one.mask), dtype=np.uint8))
        return {"image_id": image, "category_id": names.index(one.category) + 1, "segmentation": rle}

    for image, (ours, labelled) in enumerate(data):
        found += [record(image, one) | {"score": one.score} for one in ours]
        for one in labelled:
            facts = {"id": len(truths) + 1, "iscrowd": int(one.crowd), "area": int(np.sum(one.mask)), "bbox": [0, 0, 1, 1]}
            truths.append(record(image, one) | facts)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image in range(len(data))],
        "annotations": truths,
        "categories": [{"id": 1}, {"id": 2}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(found), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.where(evaluator.stats < 0, np.nan, evaluator.stats)


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_figures_are_those_of_pycocotools(seed: int) -> None:
    data = photos(seed)
    metric = MaskAP(("cat", "dog"))
    for image, (found, labelled) in enumerate(data):
        metric.update(image, found, labelled)
    result = metric.compute()
    ours = [result.ap, result.ap50, result.ap75, *result.by_area.values(), *result.recall.values(), *result.recall_by_area.values()]
    np.testing.assert_allclose(ours, reference(data), rtol=1e-12)
    assert result.ap == pytest.approx(np.nanmean(list(result.per_class.values())))
    assert list(result.by_area) == list(result.recall_by_area) == ["small", "medium", "large"]


def test_masks_and_run_lengths_count_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    mask = box(5, 5, 40, 40)
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    for one in (mask, rle, {"size": list(SIZE), "counts": rle["counts"].decode()}):
        assert MaskAP(("cat",)).update("p", [Found(one, "cat", 0.5)], [Labelled(mask, "cat")]).compute().ap == pytest.approx(1.0)
    assert capsys.readouterr().out == ""  # the evaluator's own report is not printed


def test_absent_and_empty() -> None:
    nothing = MaskAP(("cat", "dog"))
    assert math.isnan(nothing.compute().ap)
    assert math.isnan(nothing.update("p", [Found(box(0, 0, 5, 5), "cat", 1.0)], []).compute().ap)
    missed = nothing.update("q", [], [Labelled(box(0, 0, 5, 5), "cat")]).compute()
    assert missed.ap == 0
    assert missed.per_class["cat"] == 0
    assert math.isnan(missed.per_class["dog"])
    assert missed.absent == "labelled"


def test_more_detections_than_the_limit_do_not_count() -> None:
    mask = box(5, 5, 40, 40)
    found = [Found(box(100, 100, 9, 9), "cat", 0.9), Found(mask, "cat", 0.5)]
    result = MaskAP(("cat",), limits=(1, 2)).update("p", found, [Labelled(mask, "cat")]).compute()
    assert result.recall == {1: 0.0, 2: 1.0}
    with pytest.raises(ConfigError, match="do not rise from at least 1"):
        MaskAP(("cat",), limits=(10, 1))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="'cow' is none of the 1 categories"):
        MaskAP(("cat",)).update("p", [Found(box(0, 0, 1, 1), "cow", 0.5)], [])
    with pytest.raises(DataError, match="masks of photo 'p' have the sizes"):
        MaskAP(("cat",)).update("p", [Found(np.ones((3, 3), bool), "cat", 0.5)], [Labelled(box(0, 0, 1, 1), "cat")])
    with pytest.raises(DataError, match="float64; a mask is bool"):
        MaskAP(("cat",)).update("p", [Found(np.ones((3, 3)), "cat", 0.5)], [])


def test_without_the_evaluator_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(ImportError, match=r"pip install 'promptseg\[eval\]'"):
        MaskAP(("cat",)).compute()

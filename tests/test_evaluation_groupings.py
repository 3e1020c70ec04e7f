"""Groups of CLIP's patches that no network formed: clusters that are known, and a miniature of Pascal VOC."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import replicas
import small_clipseg
import small_groupvit
import test_catseg
from promptseg import zoo
from promptseg.contracts import View
from promptseg.data.vocabularies import templates
from promptseg.data.whole_maps import voc21
from promptseg.errors import ConfigError, UnsupportedTask
from promptseg.evaluation import evaluate, groupings, protocol
from promptseg.evaluation.groupings import ALL, Grouping, VocGroupings, grouped, labelled, patches
from promptseg.images import to_pixels
from promptseg.prompts import Text
from promptseg.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """Its scale parts classes although its towers are random."""
    model = small_clipseg.build()
    model.logit_scale.data.fill_(np.log(1000.0))
    return Segmenter(model, zoo.card("clipseg-rd64"), device="cpu", precision="float32")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groupings, "SHORT", 64)


def heaps() -> tuple[np.ndarray, np.ndarray]:
    """60 rows of length 1 around three directions, and which of them."""
    random, owner = np.random.default_rng(0), np.arange(60) % 3
    rows = np.eye(8)[owner] + random.normal(0, 0.02, (60, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), owner


@pytest.mark.parametrize("how", [one for one in ALL if one != "pixels"])
def test_heaps_are_found(how: Grouping) -> None:
    features, owner = heaps()
    found = grouped(features, how, 3)
    assert found.shape == (60,)
    assert len(set(zip(found.tolist(), owner.tolist(), strict=True))) == 3
    assert len(set(found.tolist())) == 3


@pytest.mark.parametrize("how", ALL)
def test_few_patches_and_equal_ones(how: Grouping) -> None:
    assert grouped(heaps()[0][:3], how, 8).tolist() == [0, 1, 2]
    equal = grouped(np.tile(np.eye(4, dtype=np.float32)[:1], (12, 1)), how, 12)
    assert len(equal) == 12


def test_equal_patches_are_one_mean_shift_group() -> None:
    assert set(grouped(np.tile(np.eye(4, dtype=np.float32)[:1], (12, 1)), "mean-shift", 3).tolist()) == {0}


@pytest.mark.parametrize("how", ALL)
def test_groups_are_named_by_their_means(how: Grouping, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches that say "cat" on the left, "dog" on the right, and below something that is neither."""
    names = ("background", "dog", "cat", "bird")
    features = segmenter.embed_prompts([Text(name, templates("photo")) for name in names[1:]]).features.condition.float()
    texts = F.normalize(features, dim=-1)
    nothing = torch.linalg.svd(texts, full_matrices=True).Vh[-1]  # at right angles to all names
    shown = torch.empty(6, 8, texts.shape[1])
    alone = F.normalize(torch.linalg.pinv(texts).T, dim=-1)  # each like one name, at right angles to the others
    shown[:4, :4], shown[:4, 4:], shown[4:] = alone[1], alone[0], nothing
    shown += 1e-4 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(groupings, "patches", lambda *_: shown)
    answer = VocGroupings(Path(), groupings=(how,), clusters=3, background=0.9).answer(segmenter, np.zeros((60, 80, 3), np.uint8), names)
    assert answer.shape == (60, 80)
    assert set(answer[:35, :35].ravel().tolist()) == {2}
    assert set(answer[:35, 45:].ravel().tolist()) == {1}
    assert set(answer[50:].ravel().tolist()) == {0}


def test_patches_are_projected_as_the_class_token_is(segmenter: Segmenter) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    tower, view = segmenter.model.image, View((0, 0, 80, 60), (64, 85), (64, 85))
    with torch.no_grad():
        pixels = to_pixels(image, view, segmenter.card.preprocess)[None]
        x, grid = tower.embed_patches(pixels)
        for block in tower.blocks:
            x = block(x)
        projected = tower.norm_post(x[0]) @ tower.projection
        torch.testing.assert_close(tower(pixels).embedding[0], projected[0])
        torch.testing.assert_close(patches(segmenter, image), projected[1:].view(*grid, -1))
    assert grid == (4, 5)


def test_the_table(tmp_path: Path, segmenter: Segmenter) -> None:
    root = replicas.voc(tmp_path)
    asked = protocol("voc-groupings", root, background=0.0)
    assert isinstance(asked, VocGroupings)
    table = evaluate(asked, segmenter, resamples=0)
    assert [row.name for row in table] == [f"{name}: {figure}" for name in ALL for figure in ("mIoU", "pixel accuracy")]
    assert all(0 <= row.value <= 1 for row in table)
    photos = voc21(root)
    answers, targets = [], []
    for sample in photos:
        answers.append(asked.answer(segmenter, sample.image(), photos.classes).ravel())
        targets.append(sample.labels().ravel())
    answer, target = np.concatenate(answers), np.concatenate(targets)
    answer, target = answer[target >= 0], target[target >= 0]
    classes = np.union1d(answer, target)
    ious = [((answer == one) & (target == one)).sum() / ((answer == one) | (target == one)).sum() for one in classes]
    assert table.value("pixels: mIoU") == pytest.approx(np.mean(ious))
    assert table.value("pixels: pixel accuracy") == pytest.approx((answer == target).mean())
    published = {"pixels: mIoU": 0.201, "k-means: mIoU": 0.25, "mean-shift: mIoU": 0.207, "spectral: mIoU": 0.197}
    assert table.published["ViT-S (paper)"] == published


def test_other_models_that_hold_clips_transformer(tmp_path: Path) -> None:
    catseg = Segmenter(test_catseg.build(), zoo.card("catseg-base"), device="cpu", precision="float32")
    table = evaluate(protocol("voc-groupings", replicas.voc(tmp_path), groupings="k-means", background=0.0), catseg, resamples=0)
    assert [row.name for row in table] == ["k-means: mIoU", "k-means: pixel accuracy"]
    assert 0 < table.value("k-means: pixel accuracy") <= 1


def test_background_is_what_no_class_reaches() -> None:
    scores = torch.tensor([[0.6, 0.2], [0.4, 0.8]]).view(1, 2, 1, 2)
    assert labelled(scores, 0.7, (2, 2)).tolist() == [[0, 2], [0, 2]]
    assert labelled(scores, 0.0, (1, 2)).tolist() == [[1, 2]]


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedTask, match="patch-by-patch"):
        evaluate(protocol("voc-groupings", replicas.voc(tmp_path)), small_groupvit.segmenter())
    for wrong in ({"clusters": 0}, {"groupings": "k-means,k-means"}, {"groupings": ()}):
        with pytest.raises(ConfigError, match="groupings are some of"):
            protocol("voc-groupings", tmp_path, **wrong)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"promptseg\[eval\]"):
        grouped(heaps()[0], "k-means", 3)

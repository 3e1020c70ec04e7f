"""Every protocol on a miniature of its data set, against figures counted pixel by pixel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mixing_network
import replicas
import small_clipseg
import toy_family
from mixing_network import scores, weights
from promptseg import zoo
from promptseg.data import coco20i, lvis, pascal, pascal5i, phrasecut
from promptseg.data.items import Support
from promptseg.data.own import own
from promptseg.data.tensors import MEAN, STD, labelled, normalised, resize_image, resize_mask
from promptseg.data.vocabularies import names
from promptseg.errors import ConfigError
from promptseg.evaluation import comparison, evaluate, protocol
from promptseg.evaluation.squares import examples, probabilities
from promptseg.metrics import ThresholdSweep
from promptseg.models.clipseg.multilabel import multilabel
from promptseg.models.clipseg.visual import blend
from promptseg.segmenter import Segmenter

SIZE = 24
Answer = tuple[int | str, NDArray[np.floating], NDArray[np.bool_]]  # class, scores, target


@pytest.fixture
def segmenter() -> Segmenter:
    return mixing_network.segmenter()


def colours(image: torch.Tensor) -> NDArray[np.float64]:
    """(3, S, S) normalised -> 0..1."""
    return image.double().numpy() * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]


def fixed(answers: Iterable[Answer], threshold: float) -> dict[str, float]:
    """CLIPSeg's figures at one threshold, 1 added to every denominator."""
    table: dict[int | str, NDArray[np.int64]] = {}
    for name, found, target in answers:
        mask = found > threshold
        counts = [(mask & target).sum(), (mask & ~target).sum(), (~mask & target).sum(), (~mask & ~target).sum()]
        table[name] = table.get(name, np.zeros(4, np.int64)) + np.array(counts)
    tp, fp, fn, tn = sum(table.values())  # type: ignore[misc]
    foreground, background = tp / (1 + tp + fp + fn), tn / (1 + tn + fp + fn)
    each = [one[0] / (1 + one[:3].sum()) for one in table.values()]
    return {"mIoU": float(np.mean(each)), "IoU_FG": foreground, "IoU_BIN": (foreground + background) / 2}


def average_precision(answers: Iterable[Answer]) -> float:
    """The metric itself is compared with the published one elsewhere; here all answers go through it in one pass."""
    sweep = ThresholdSweep()
    for name, found, target in answers:
        sweep.update(name, found.astype(np.float32), target)
    return sweep.compute().average_precision


# --- PhraseCut --------------------------------------------------------------------------------------------------------------------------


def phrase_answers(root: Path, visual: bool) -> list[Answer]:
    found = phrasecut.phrases(root, "train")
    data = phrasecut.PhraseCut(found, image_size=SIZE, crop=False, with_support=visual, shuffle=False)
    answers = []
    for place, sample in enumerate(data):
        mixed = weights(sample.phrase)
        if visual:
            mixed = np.array(MEAN) - 0.5  # what has no example is asked by a picture of the mean colour
            if sample.support is not None:
                mixed = colours(sample.support.image)[:, sample.support.mask.numpy() > 0].mean(axis=1) - 0.5
        answers.append((place, scores(colours(sample.image), mixed), sample.target[0].numpy() > 0))
    return answers


def test_phrasecut_by_phrases(tmp_path: Path, segmenter: Segmenter) -> None:
    root = replicas.phrasecut(tmp_path)
    table = evaluate(protocol("phrasecut", root, split="train", size=SIZE, threshold="0.4"), segmenter, resamples=5)
    answers = phrase_answers(root, visual=False)
    expected = fixed(answers, 0.4)
    assert table.value("mIoU") == pytest.approx(expected["mIoU"])
    assert table.value("IoU_FG") == pytest.approx(expected["IoU_FG"])
    assert table.value("AP") == pytest.approx(average_precision(answers))
    swept = [fixed(answers, threshold)["mIoU"] for threshold in ThresholdSweep().thresholds]
    assert table.value("mIoU at its best threshold") == pytest.approx(max(swept))
    assert segmenter.model.encodings["image"] == 3 == len(table.photos)  # six phrases on three photos
    assert table.published["CLIPSeg (PC+), t .3"]["mIoU"] == 0.434


def test_phrasecut_by_examples(tmp_path: Path, segmenter: Segmenter) -> None:
    root = replicas.phrasecut(tmp_path)
    table = evaluate(protocol("phrasecut-visual", root, split="train", size=SIZE, threshold=0.5), segmenter, resamples=0)
    answers = phrase_answers(root, visual=True)
    expected = fixed(answers, 0.5)
    assert table.value("mIoU") == pytest.approx(expected["mIoU"])
    assert table.value("IoU_FG") == pytest.approx(expected["IoU_FG"])
    assert table.value("AP") == pytest.approx(average_precision(answers))


def test_the_ablation_is_a_table_over_models(tmp_path: Path) -> None:
    root = replicas.phrasecut(tmp_path)
    both = protocol("phrasecut-ablation", root, split="train", size=SIZE)
    first, second = (evaluate(both, mixing_network.segmenter(name), resamples=0) for name in ("one", "two"))
    text = evaluate(protocol("phrasecut", root, split="train", size=SIZE), mixing_network.segmenter(), resamples=0)
    visual = evaluate(protocol("phrasecut-visual", root, split="train", size=SIZE), mixing_network.segmenter(), resamples=0)
    assert first.value("text: mIoU at its best threshold") == text.value("mIoU at its best threshold")
    assert first.value("visual: AP") == visual.value("AP")
    lines = comparison([first, second]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *(f"{model} (published)" for model in first.published), "one", "two",
    ]  # fmt: skip
    assert lines[2].split("|")[2:6] == [" 0.436 ", " 0.767 ", " 0.254 ", " 0.556 "]


@pytest.mark.parametrize("technique", [None, "blur3_highlight01"])
def test_examples_are_shown_to_clipseg_as_published(technique: str | None) -> None:
    model, generator = small_clipseg.model(), torch.Generator().manual_seed(0)
    card = next(card for card in small_clipseg.cards() if card.name == "clipseg-rd64")
    image, mask = torch.randn(3, 352, 352, generator=generator), torch.zeros(352, 352)
    mask[100:220, 40:300] = 1
    found = examples(Segmenter(model, card, precision="float32"), [Support(image, mask), None], technique).condition
    with torch.inference_mode():
        drawn = blend(image, mask, technique or "crop_blur_highlight352")[0]
        expected = model.embed_images(torch.stack([drawn, torch.zeros_like(drawn)]))  # a phrase without example: zeros, not drawn on
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# --- Pascal, COCO, LVIS -----------------------------------------------------------------------------------------------------------------


def test_pascal_zero_shot(tmp_path: Path, segmenter: Segmenter) -> None:
    root, classes = replicas.voc(tmp_path), names("voc21-clipseg")
    table = evaluate(protocol("pascal-zero-shot", root, unseen=4, size=SIZE), segmenter, resamples=0)
    matrix = np.zeros((21, 21))
    for sample in pascal.pascal_zero_shot(root):
        image, labels = labelled(sample, SIZE)
        found = np.stack([scores(colours(image), weights(name)) * (3 if name == "background" else 1) for name in classes]).argmax(0)
        known = labels.numpy() >= 0
        np.add.at(matrix, (found[known], labels.numpy()[known]), 1)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    iou = np.divide(matrix.diagonal(), union, out=np.zeros(21), where=union > 0)
    unseen = [1, 10, 14, 18]
    seen = [index for index in range(21) if index not in unseen]
    assert 0 < iou[seen].mean() < 1
    assert table.value("mIoU, seen") == pytest.approx(iou[seen].mean())
    assert table.value("mIoU, unseen") == pytest.approx(iou[unseen].mean())
    assert table.value("mIoU, all") == pytest.approx(iou.mean())
    assert table.classes["IoU"]["aeroplane" if "aeroplane" in classes else "airplane"] == pytest.approx(iou[1])
    assert table.published["CLIPSeg (PC+)"] == {"mIoU, seen": 0.208, "mIoU, unseen": 0.473}
    assert "swapped" in table.constants["published columns"]


def test_classes_compete_as_in_the_published_model() -> None:
    from promptseg.evaluation.squares import texts
    from promptseg.evaluation.zero_shot import START

    model, card = small_clipseg.model(), next(card for card in small_clipseg.cards() if card.name == "clipseg-rd64")
    segmenter, classes = Segmenter(model, card, precision="float32"), names("voc21-clipseg")
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = probabilities(segmenter, image, texts(segmenter, classes))
    ours[0] *= 3
    with torch.inference_mode():
        torch.testing.assert_close(START + ours, multilabel(model, image[None], classes)[0])


def episode_answers(data: pascal5i.Pascal5i | coco20i.Coco20i, text: bool, prefix: str) -> list[Answer]:
    answers = []
    for sample in data:
        assert sample.support is not None
        mixed = weights(sample.prompt) if text else colours(sample.support.image)[:, sample.support.mask.numpy() > 0].mean(axis=1) - 0.5
        found = torch.from_numpy(scores(colours(sample.image), mixed))[None, None]
        size = sample.target.shape[-2:]
        found = torch.nn.functional.interpolate(found, size, mode="bilinear", align_corners=True) if size != found.shape[-2:] else found
        known = np.ones(size, bool) if sample.valid is None else sample.valid[0].numpy() > 0
        answers.append((f"{prefix}{sample.group}", found[0, 0].numpy()[known], sample.target[0].numpy()[known] > 0))
    return answers


@pytest.mark.parametrize("name", ["pascal5i", "pascal5i-text"])
def test_pascal5i_averages_its_folds(name: str, tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pascal5i, "MIN_PIXELS", 900)
    root = replicas.pascal5i(tmp_path)
    table = evaluate(protocol(name, root, folds="0,1", size=32, threshold=0.5), segmenter, resamples=3)
    photos = pascal5i.pascal5i(root)
    folds = [episode_answers(pascal5i.Pascal5i(photos, fold, image_size=32), "text" in name, "") for fold in (0, 1)]
    assert [len(answers) for answers in folds] == [4, 2]
    for figure in ("mIoU", "IoU_BIN"):
        assert table.value(figure) == pytest.approx(np.mean([fixed(answers, 0.5)[figure] for answers in folds]))
    assert table.value("AP") == pytest.approx(np.mean([average_precision(answers) for answers in folds]), abs=1e-3)  # float32, float64
    grid = ThresholdSweep().thresholds
    best = [grid[int(np.argmax([fixed(answers, one)["IoU_FG"] for one in grid]))] for answers in folds]
    crossed = [fixed(answers, threshold)["mIoU"] for answers, threshold in zip(folds, best[::-1], strict=True)]
    assert table.value("mIoU at the other folds' best threshold") == pytest.approx(np.mean(crossed))
    assert set(table.classes["IoU"]) == {"aeroplane", "bicycle", "car"}


def test_a_shift_moves_the_logits_and_each_fold_may_have_its_model(
    tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pascal5i, "MIN_PIXELS", 900)
    root = replicas.pascal5i(tmp_path)
    plain = evaluate(protocol("pascal5i", root, folds=(0,), size=32, threshold=0.5), segmenter, resamples=0)
    logit = float(np.log(0.62 / 0.38))
    moved = evaluate(protocol("pascal5i", root, folds=(0,), size=32, threshold=0.62, shift=logit), segmenter, resamples=0)
    assert moved.value("AP") != plain.value("AP")
    other = mixing_network.segmenter("other")
    both = evaluate(protocol("pascal5i", root, folds=(0, 1), size=32), [segmenter, other], resamples=0)
    assert both.model == "mixing + other"
    assert other.model.encodings["image"] == 2


def test_coco20i(tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco20i, "EPISODES", 12)
    root = replicas.coco20i(tmp_path)
    table = evaluate(protocol("coco20i", root, folds="0", size=SIZE, threshold=0.5), segmenter, resamples=0)
    answers = episode_answers(coco20i.Coco20i(root, 0, image_size=SIZE), False, "")
    for figure in ("mIoU", "IoU_BIN"):
        assert table.value(figure) == pytest.approx(fixed(answers, 0.5)[figure])
    assert table.value("AP") == pytest.approx(average_precision(answers))


def test_things_asked_by_their_use(tmp_path: Path, segmenter: Segmenter) -> None:
    root = replicas.lvis_by_use(tmp_path)
    table = evaluate(protocol("generalisation", root, size=SIZE), segmenter, resamples=0)
    asked = {  # photo -> phrase -> what answers it
        "affordances": {2: {"ride on": ["pony"]}, 3: {"sit on": ["deck chair"], "ride on": ["horse"]}},
        "attributes": {1: {"can fly": ["bird"], "can be driven": ["car (automobile)"]}},
        "meronymy": {
            1: {"has wheels": ["car (automobile)"], "has legs": ["bird"]},
            2: {"has legs": ["pony"]},
            3: {"has legs": ["deck chair", "horse"]},
        },
    }
    photos = {int(photo.id): photo for photo in lvis.lvis(root)}
    for group, cases in asked.items():
        answers: list[Answer] = []
        for number, phrases in cases.items():
            image = colours(normalised(resize_image(photos[number].image(), (SIZE, SIZE))))
            masks, _ = photos[number].masks()
            for phrase, things in phrases.items():
                target = resize_mask(np.any([masks[thing] for thing in things], axis=0), (SIZE, SIZE)).numpy() > 0
                answers.append((phrase, scores(image, weights(phrase)), target))
        best = max(fixed(answers, threshold)["IoU_FG"] for threshold in ThresholdSweep().thresholds)
        assert table.value(f"{group}: IoU_FG at its best threshold") == pytest.approx(best)
        assert table.value(f"{group}: AP") == pytest.approx(average_precision(answers))
    assert set(table.classes["AP"]) == {"sit on", "ride on", "can fly", "can be driven", "has wheels", "has legs"}


# --- one's own --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [replicas.own_maps, replicas.own_folders, replicas.own_coco, replicas.own_yolo, replicas.own_shards])
def test_ones_own_photos(build: object, tmp_path: Path, segmenter: Segmenter) -> None:
    root = build(tmp_path)  # type: ignore[operator]
    table = evaluate(protocol("own", root), segmenter, resamples=0)
    ious, totals, false = [], {"cup": np.zeros(2), "spoon": np.zeros(2)}, []
    for sample in own(root):
        truth, unknown = sample.masks()
        answers = segmenter(sample.image(), list(totals))
        for name, answer in zip(totals, answers, strict=True):
            mask, target = answer.mask & ~unknown, truth.get(name, np.zeros_like(unknown)) & ~unknown
            totals[name] += [(mask & target).sum(), (mask | target).sum()]
            if name in truth:
                ious.append((mask & target).sum() / (mask | target).sum())
            else:
                false.append(mask.mean() > 0.01)
    assert table.value("present names: mean IoU") == pytest.approx(np.mean(ious))
    assert table.value("mIoU over the set") == pytest.approx(np.mean([both / either for both, either in totals.values()]))
    assert table.value("absent names with a mask over 1 %") == pytest.approx(np.mean(false) if false else np.nan, nan_ok=True)
    assert table.constants["threshold"] == segmenter.card.threshold


def test_the_zero_is_said_of_label_maps_alone(tmp_path: Path, segmenter: Segmenter) -> None:
    assert "spoon" in evaluate(protocol("own", replicas.own_maps(tmp_path / "maps"), zero="ignore"), segmenter).classes["IoU over the set"]
    with pytest.raises(ConfigError, match="zero=ignore is about the value 0 of label maps"):
        evaluate(protocol("own", replicas.own_folders(tmp_path / "folders"), zero="ignore"), segmenter)


def test_the_cards_tell_the_same_published_figures() -> None:
    published = protocol("phrasecut", ".").published()
    card = zoo.card("clipseg-rd64").metrics
    for figure in ("mIoU", "IoU_FG", "AP"):
        assert published["CLIPSeg (PC+), t .3"][figure] == card[f"phrasecut/text/{figure}"]
    assert toy_family.CARD.metrics == {}


@pytest.mark.parametrize(("name", "figures", "columns"), [
    ("pascal5i", ("mIoU", "IoU_BIN", "AP"), {
        "CLIPSeg (PC+), t .3": (59.5, 75.0, 82.3),
        "CLIPSeg (PC), t .3": (52.3, 69.5, 72.4),
        "CLIP-Deconv (PC+), t .2": (48.0, 65.8, 68.0),
        "ViTSeg (PC+), t .2": (39.0, 59.0, 62.4),
    }),
    ("pascal5i-text", ("mIoU", "IoU_BIN", "AP"), {
        "CLIPSeg (PC+), t .3": (72.4, 83.1, 93.5),
        "CLIPSeg (PC), t .3": (70.3, 81.6, 84.8),
        "CLIP-Deconv (PC+), t .3": (63.2, 77.3, 85.3),
        "ViTSeg (PC+), t .2": (39.0, 59.0, 62.4),
    }),
    ("coco20i", ("mIoU", "IoU_BIN", "AP"), {
        "CLIPSeg (COCO), t .1": (33.2, 58.4, 40.5),
        "CLIPSeg (COCO+N), t .1": (33.3, 59.1, 41.7),
        "CLIP-Deconv (COCO+N), t .1": (29.8, 56.8, 40.8),
        "ViTSeg (COCO), t .1": (14.4, 46.1, 15.7),
    }),
])  # fmt: skip
def test_the_published_one_shot_figures(name: str, figures: tuple[str, ...], columns: dict[str, tuple[float, ...]]) -> None:
    published = {model: dict(zip(figures, (value / 100 for value in values), strict=True)) for model, values in columns.items()}
    assert protocol(name, ".").published() == {model: pytest.approx(values) for model, values in published.items()}

"""DenseCLIP's detectors learn: recipes as published, what becomes of a photo, and a run carried out in miniature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import replicas
from promptseg import evaluation, training, zoo
from promptseg.contracts import Preprocess
from promptseg.data.coco import coco_instances
from promptseg.data.samples import Region
from promptseg.errors import ConfigError
from promptseg.masks import Mask
from promptseg.metrics import BoxAP, Found, Labelled, MaskAP, merged
from promptseg.models.denseclip import RECIPES, Run
from promptseg.models.denseclip.detection.network import Detector
from promptseg.models.denseclip.detection.photos import findable, shown
from promptseg.models.denseclip.detection.recipes import DetectionTraining
from promptseg.models.denseclip.detection.run import DetectionRun
from promptseg.results import Instances
from promptseg.segmenter import Segmenter
from small_denseclip import RESNET, rates
from small_detectors import MASK, RETINA, build

NAMES = [f"denseclip/{base}{kind}-{size}" for base in ("", "baseline-") for kind in ("retinanet", "maskrcnn") for size in ("r50", "r101")]

# --- recipes ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_the_published_ones(name: str) -> None:
    made = training.recipe(name)
    rate = 2e-4 if "maskrcnn" in name else 1e-4
    assert (made.name, made.card, made.options.config) == (name, name.replace("/", "-"), zoo.config(name.replace("/", "-")))
    assert (made.steps, made.batch_size, made.lr, made.weight_decay, made.clip, made.ema) == (87_960, 16, rate, 1e-4, 0.1, None)
    assert made.options.clip == ("RN101.pt" if "r101" in name else "RN50.pt")
    rates = {0: 1e-3, 250: 0.5005, 499: 0.998002, 500: 1.0, 58_639: 1.0, 58_640: 0.1, 80_629: 0.1, 80_630: 0.01, 87_959: 0.01}
    assert {step: made.schedule.rate(1.0, step, made.steps) for step in rates} == pytest.approx(rates)  # component_lr_schedule.json


IMAGE_AND_TEXT = {"r50": ((174, 41_829_216), (149, 63_657_472)), "r101": ((327, 59_772_256), (149, 63_395_328))}
IMAGE = {"r50": (165, 23_527_264), "r101": (318, 42_519_392)}
REST = {
    "retinanet-r50": (94, 18_614_772), "retinanet-r101": (94, 18_218_484), "maskrcnn-r50": (100, 24_858_096),
    "maskrcnn-r101": (100, 24_461_808), "baseline-retinanet-r50": (36, 14_460_660), "baseline-retinanet-r101": (36, 14_460_660),
    "baseline-maskrcnn-r50": (42, 20_888_304), "baseline-maskrcnn-r101": (42, 20_888_304),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_the_published_ones(name: str) -> None:
    """Rate and decay -> tensors and numbers that have them (param_groups_* of the reference collection)."""
    recipe, kind, size = training.recipe(name), name.removeprefix("denseclip/"), name.rpartition("-")[2]
    if "baseline" in name:
        assert rates(recipe) == {(recipe.lr, 1e-4): REST[kind], (recipe.lr / 10, 1e-4): IMAGE[size]}
        return
    image, text = IMAGE_AND_TEXT[size]
    wanted = {(recipe.lr, 1e-4): REST[kind], (recipe.lr / 10, 1e-4): image, (0.0, 1e-4): text, (recipe.lr, 0.0): (18, 4_608)}
    assert rates(recipe) == wanted


# --- photos -----------------------------------------------------------------------------------------------------------------------------


def test_what_is_to_be_found_moves_with_the_photo() -> None:
    photo = np.zeros((40, 60, 3), np.uint8)
    photo[10:30, 6:18] = 255
    mask = photo[..., 0] > 0
    regions = [Region("dog", mask), Region("cat", mask, crowd=True), Region("cat", mask, box=(6.0, 10.0, 6.5, 30.0))]
    look = Preprocess(size=64, fit="native", rounded=True, mean=(0, 0, 0), std=(1, 1, 1))
    assert [box.tolist() for _, box in findable(regions, (40, 60))] == [[6, 10, 18, 30]]
    for mirrored in (False, True):
        pixels, truth = shown(photo, regions, ("cat", "dog"), look, (120, 80), mirrored)
        assert pixels.shape == (3, 96, 128)
        assert (truth.size, truth.padded) == ((80, 120), (96, 128))
        assert truth.labels.tolist() == [1]
        assert truth.boxes.tolist() == [[84, 20, 108, 60] if mirrored else [12, 20, 36, 60]]
        assert truth.masks is not None
        x0, y0, x1, y1 = truth.boxes[0].long().tolist()
        assert pixels[0, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() == 1
        assert truth.masks[0, y0:y1, x0:x1].all()
        assert truth.masks[0].sum() == 24 * 40
        assert not pixels[:, 80:].any()
        assert not pixels[:, :, 120:].any()
    _, none = shown(photo, [], ("cat", "dog"), look, (120, 80), mirrored=True)
    assert none.boxes.shape == (0, 4)
    assert none.masks is not None
    assert none.masks.shape == (0, 80, 120)


def test_annotated_boxes_are_read(tmp_path: Path) -> None:
    samples = coco_instances(coco(tmp_path), "train2017")
    assert samples[0].regions()[0].box == (5.0, 5.0, 25.5, 20.0)
    assert [sample.empty for sample in samples] == [False, False, True]


# --- box AP -----------------------------------------------------------------------------------------------------------------------------


def test_box_ap_looks_at_boxes_and_mask_ap_at_masks() -> None:
    pytest.importorskip("pycocotools")
    square, other = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    square[2:12, 2:12] = other[2:12, 14:20] = True
    found = [Found(other, "dog", 0.9, box=(2.2, 2, 12, 12))]
    truth = [Labelled(square, "dog")]
    assert BoxAP(("dog",)).update("a", found, truth).compute().ap == pytest.approx(1.0)
    assert MaskAP(("dog",)).update("a", found, truth).compute().ap == 0
    half = [Found(square, "dog", 0.9, box=(2, 2, 12, 8.2))]  # an IoU of 0.62: right at 3 of the 10 thresholds
    assert BoxAP(("dog",)).update("a", half, truth).compute().ap == pytest.approx(0.3)


# --- a run ------------------------------------------------------------------------------------------------------------------------------


def coco(root: Path) -> Path:
    """Three small photos per split: people and a dog, the last with a crowd alone."""
    table = replicas.coco_table()
    table["annotations"] = [entry for entry in table["annotations"] if entry["id"] != 3]
    table["annotations"][0]["bbox"] = [5, 5, 20.5, 15]
    for split in ("train2017", "val2017"):
        replicas.write_json(root / "annotations" / f"instances_{split}.json", table)
        for image in table["images"]:
            replicas.photo(root / split / image["file_name"], replicas.COCO_SIZE, image["id"])
    return root


def small(config: Any, root: Path, **changes: Any) -> Any:
    options = DetectionTraining(config=replace(config, classes=("person", "car", "dog")), long=96, short=64)
    name = "denseclip/maskrcnn-r50" if config is MASK else "denseclip/retinanet-r50"
    return replace(
        RECIPES[name](), data=str(coco(root / "coco")), output=str(root / "out"), steps=2, batch_size=2, workers=0, validate_every=None,
        lr=1e-3, options=options, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("config", [MASK, RETINA], ids=["mask_rcnn", "retinanet"])
def test_a_run_trains_and_gives_a_detector(config: Any, tmp_path: Path) -> None:
    recipe = small(config, tmp_path)
    model, card = zoo.load(training.train(recipe, log=lambda _: None))
    assert isinstance(model, Detector)
    assert card.config == recipe.options.config
    torch.manual_seed(recipe.seed)
    start = Detector(recipe.options.config).state_dict()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert any(name.startswith("head.") for name in moved)
    assert any(name.startswith("image.layer1") for name in moved)
    assert "text.contexts" in moved
    assert not any(name.startswith("text.") and name != "text.contexts" for name in moved)


def test_examples_batches_and_validation(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    run = Run(
        small(
            MASK,
            tmp_path,
        ),
        log=lambda _: None,
    )
    assert isinstance(run, DetectionRun)
    assert len(run.photos) == 2
    first = run.example(0)
    assert torch.equal(run.example(0).pixels, first.pixels)
    wide = replace(first, pixels=first.pixels[..., :64])
    batch = run.collate([first, wide])
    assert batch.pixels.shape[0] == len(batch.truths) == 2
    assert batch.pixels.shape[2:] == first.pixels.shape[2:]
    run.asked = list(coco_instances(tmp_path / "coco", "val2017"))
    run.model.eval()
    figures = run.validate()
    assert set(figures) == {"box AP", "mask AP"}
    assert all(0 <= value <= 1 for value in figures.values())


def test_bad_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains detectors"):
        DetectionTraining(config=RESNET)
    with pytest.raises(ConfigError, match="short at least 32"):
        DetectionTraining(config=MASK, short=8)
    recipe = small(MASK, tmp_path)
    with pytest.raises(ConfigError, match="not those of the annotations"):
        Run(replace(recipe, options=replace(recipe.options, config=MASK)), log=lambda _: None)


# --- the protocol -----------------------------------------------------------------------------------------------------------------------


class Oracle:
    """Answers with the truth of the replica: its first photo's box a little short, nothing on the third."""

    card = zoo.card("denseclip-maskrcnn-r50")

    def instances(self, image: np.ndarray, classes: Any, *, threshold: float) -> Instances:
        assert threshold == 0.05
        mask = np.zeros(replicas.COCO_SIZE, bool)
        mask[5:20, 5:25] = True
        person = Mask.from_array(mask, "person", score=0.9)
        return Instances([person], replicas.COCO_SIZE, labels=["person"], classes=classes, boxes=[(5, 5, 20.1, 20)])


def test_the_protocol_counts_boxes_and_masks(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    asked = evaluation.protocol("coco-detection", coco(tmp_path))
    oracle: Any = Oracle()
    (part,) = asked.parts()
    assert part.keys == ["1", "2", "3"]
    counts = [part.count(index, oracle) for index in range(2)]
    total = {name: merged([one.metrics[name] for one in counts]) for name in ("boxes", "masks")}
    rows = {row.name: row.value for row in asked.rows({"photos": total})}
    assert rows["mask AP50"] == pytest.approx(0.5)  # of persons and dogs, the dog is missed
    assert rows["box AP50"] == pytest.approx(0.5)
    assert 0 < rows["box AP"] < rows["mask AP"] == pytest.approx(0.5)
    assert counts[0].picture().answered["person 1"].sum() == 300
    assert asked.published()["denseclip-maskrcnn-r101"] == {"box AP": 0.426, "mask AP": 0.396}
    assert "mask AP" not in asked.published()["denseclip-retinanet-r50"]
    with pytest.raises(ConfigError, match="threshold"):
        evaluation.protocol("coco-detection", tmp_path, threshold=2)


def test_a_detector_is_evaluated(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    model = build(replace(MASK, classes=("person", "car", "dog")))
    ask = Segmenter(model, zoo.card("denseclip-maskrcnn-r50"), device="cpu", precision="float32")
    table = evaluation.evaluate(evaluation.protocol("coco-detection", coco(tmp_path)), ask, resamples=2)
    assert 0 <= table.value("box AP") <= 1
    assert len(table.photos) == 3

"""DenseCLIP's detectors: from photos to instances, at any size and padding, and what the losses learn from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from promptseg import zoo
from promptseg.cli import app
from promptseg.contracts import Detections, Options, View
from promptseg.detections import instances
from promptseg.errors import ConfigError, NumericalError, PromptError, UnsupportedTask
from promptseg.images import to_pixels
from promptseg.models.denseclip import DenseClipOptions, DetectionOptions
from promptseg.models.denseclip.detection.anchored import Levels, Truth
from promptseg.models.denseclip.detection.losses import box_score_loss, box_targets
from promptseg.models.denseclip.detection.maskrcnn import drawn, mask_targets
from promptseg.models.denseclip.detection.network import Detector
from promptseg.models.denseclip.detection.picking import pick
from promptseg.nn import boxes as box_ops
from promptseg.nn.matching import Sampling
from promptseg.prompts import Box, Text
from promptseg.results import Instances
from promptseg.score_maps import score_maps
from promptseg.segmenter import Segmenter
from small_denseclip import CLASSES, VIT, check_card
from small_detectors import CARDS, CONFIGS, MASK, PUBLISHED, RETINA, build
from toy_family import photo


def asked(kind: str) -> Segmenter:
    return Segmenter(build(CONFIGS[kind]), replace(zoo.card(CARDS[kind]), preprocess=MASK.preprocess), device="cpu", precision="float32")


@pytest.fixture(scope="module")
def ask() -> Segmenter:
    return asked("mask_rcnn")


SMALL = DetectionOptions(long=160, short=96)

# --- weights ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PUBLISHED)
def test_there_and_back_is_bit_exact(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(CONFIGS[kind])
    with monkeypatch.context() as small:
        small.setattr("promptseg.zoo.checkpoints.find_card", lambda name: replace(zoo.card(name), config=CONFIGS[kind]))
        again: Any = zoo.from_official(CARDS[kind], zoo.to_official(model))
    assert isinstance(again, Detector)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    folder, card = zoo.load(zoo.save_folder(model, tmp_path, CARDS[kind]))
    assert card.config == CONFIGS[kind]
    assert all(torch.equal(folder.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "card", [card for card in zoo.cards() if "retinanet" in card.name or "maskrcnn" in card.name], ids=lambda c: c.name
)
def test_cards_have_the_published_layout(card: Any) -> None:
    check_card(card.name)
    assert len(card.config.classes) == 80
    assert set(card.metrics) == {"coco/box-AP", "coco/mask-AP"} - ({"coco/mask-AP"} if "retinanet" in card.name else set())


# --- heads ------------------------------------------------------------------------------------------------------------------------------


def test_retinanet_decodes_its_best_anchors_one_by_one() -> None:
    """Against the definition, pair by pair of anchor and class."""
    head = build(RETINA).head
    generator = torch.Generator().manual_seed(0)
    grids = [(4, 6), (2, 3), (1, 2), (1, 1), (1, 1)]
    levels = Levels(
        tuple(torch.randn(1, 9 * 3, *grid, generator=generator) - 1 for grid in grids),
        tuple(torch.randn(1, 9 * 4, *grid, generator=generator) * 0.3 for grid in grids),
    )
    (found,) = head.decode(levels, [(30, 44)])
    everything = []
    for stride, logits, deltas in zip((8, 16, 32, 64, 128), levels.logits, levels.deltas, strict=True):
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                for anchor in range(9):
                    scale, ratio = 4 * stride * 2 ** (anchor % 3 / 3), (0.5, 1, 2)[anchor // 3]
                    half = torch.tensor([scale / ratio**0.5, scale * ratio**0.5]) / 2
                    centre = torch.tensor([column * stride, row * stride])
                    box = box_ops.decode(
                        torch.cat([centre - half, centre + half])[None], deltas[0, 4 * anchor : 4 * anchor + 4, row, column][None]
                    )
                    box = box_ops.clip(box, (30, 44))
                    scores = logits[0, 3 * anchor : 3 * anchor + 3, row, column].sigmoid()
                    everything += [(score.item(), label, box[0]) for label, score in enumerate(scores) if score > 0.05]
    kept: list[tuple[float, int, Tensor]] = []
    for score, label, box in sorted(everything, key=lambda one: -one[0]):
        if all(other != label or box_ops.iou(box[None], at[None]).item() <= 0.5 for _, other, at in kept):
            kept.append((score, label, box))
    assert found.scores.tolist() == pytest.approx([score for score, _, _ in kept[:100]], abs=1e-6)
    assert found.labels.tolist() == [label for _, label, _ in kept[:100]]
    assert torch.allclose(found.boxes, torch.stack([box for _, _, box in kept[:100]]), atol=1e-3)


def test_scores_that_are_no_numbers_are_not_lost() -> None:
    found = pick(torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29]]), torch.tensor([[0.9, 0.01], [float("nan"), 0.2]]))
    assert found.scores[0].isnan()
    assert found.scores[1:].tolist() == pytest.approx([0.9, 0.2])


def test_true_boxes_stand_first_in_the_sample() -> None:
    truth = Truth(boxes=torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), labels=torch.tensor([2, 1]), size=(50, 50), padded=(64, 64))
    proposals = torch.tensor([[0.0, 0, 10, 9], [30, 0, 40, 10], [21, 20, 40, 40], [0, 30, 9, 40]])
    everything = drawn(proposals, truth, None)
    assert everything.takes.tolist() == [0, 1, 0, 1, -1, -1]
    assert torch.equal(everything.boxes[:2], truth.boxes)
    few = drawn(proposals, truth, Sampling(count=4, positive=0.25))
    assert (few.positives, len(few.boxes)) == (1, 3)


def test_mask_targets_are_the_masks_inside_the_boxes() -> None:
    masks = torch.zeros(2, 60, 60, dtype=torch.bool)
    masks[1, 10:38, 4:18] = True
    truth = Truth(boxes=torch.zeros(2, 4), labels=torch.zeros(2).long(), size=(60, 60), padded=(64, 64), masks=masks)
    (found,) = mask_targets(torch.tensor([[4.0, 10, 32, 38]]), truth, torch.tensor([1]))
    assert found.shape == (28, 28)
    assert found[:, :14].all()
    assert not found[:, 14:].any()


def test_the_score_map_learns_inside_boxes() -> None:
    boxes = [torch.tensor([[4.0, 4, 12.5, 20]]), torch.zeros(0, 4)]
    target, mask = box_targets(boxes, [torch.tensor([1]), torch.zeros(0).long()], 2, (6, 5))
    assert mask.sum() == target.sum() == 2 * 4
    assert target[0, 1, 1:5, 1:3].all()
    scores = torch.zeros(2, 2, 6, 5)
    assert box_score_loss(scores, boxes, [torch.tensor([1]), torch.zeros(0).long()]).item() == pytest.approx(np.log(2))
    assert box_score_loss(scores, [boxes[1]] * 2, [torch.zeros(0).long()] * 2).item() == 0


@pytest.mark.parametrize("kind", CONFIGS)
def test_losses_reach_every_weight(kind: str) -> None:
    model = build(CONFIGS[kind]).train()
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 10:40, 10:40] = masks[1, 5:60, 50:90] = True
    boxes = torch.tensor([[10.0, 10, 40, 40], [50, 5, 90, 60]])
    full = Truth(boxes=boxes, labels=torch.tensor([0, 2]), size=(64, 96), padded=(64, 96), masks=masks)
    none = Truth(boxes=boxes[:0], labels=full.labels[:0], size=(64, 70), padded=(64, 96), masks=masks[:0])
    losses = model.losses(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)), [full, none])
    wanted = {"retinanet": {"loss_cls", "loss_bbox"}}.get(
        kind.split("-")[0], {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"}
    )
    guided = set() if "baseline" in kind else {"loss_seg" if kind == "retinanet" else "loss_aux_seg"}
    assert set(losses) == wanted | guided
    torch.stack(list(losses.values())).sum().backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    assert not without
    alone = model.losses(torch.randn(1, 3, 64, 96), [none])
    assert all(loss.isfinite() for loss in alone.values())


# --- photos -----------------------------------------------------------------------------------------------------------------------------


def test_photos_are_fitted_and_padded() -> None:
    model = build()
    assert model.views((480, 640), Options()) == (View((0, 0, 640, 480), (800, 1067), (800, 1088)),)
    assert model.views((300, 1000), Options())[0].content == (400, 1333)
    assert model.views((96, 160), SMALL)[0].shape == (96, 160)
    for bad in (Options(tile=64), Options(size=320), Options(fit="stretch")):
        with pytest.raises(ConfigError, match="short and long"):
            model.views((96, 160), bad)
    for wrong in ({"short": 800, "long": 2000}, {"long": "a"}, {"long": 160.5, "short": 96}):
        with pytest.raises(ConfigError, match="32 to 1344"):
            DetectionOptions(**wrong)  # type: ignore[arg-type]
    for bad in (Options(synonyms="mean"), Options(templates=("a {}.",))):
        with pytest.raises(ConfigError, match="bare names"):
            model.views((96, 160), bad)
    with pytest.raises(ConfigError, match="has no effect on this model"):
        model.views((96, 160), DenseClipOptions(mode="whole"))


@pytest.mark.parametrize("kind", CONFIGS)
def test_instances_of_a_photo(kind: str) -> None:
    ask = asked(kind)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)
    found = ask.instances(pixels, threshold=0.0, options=SMALL)
    assert isinstance(found, Instances)
    assert 0 < len(found) <= 100
    assert found.classes == CLASSES
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.boxes >= 0) & (found.boxes <= [150, 90, 150, 90])).all()
    direct = ask.model.encode_image(prepared(ask, pixels))
    prompts = ask.model.encode_prompts([Text(name) for name in CLASSES])
    with torch.no_grad():
        wanted = ask.model.decode(direct, prompts)
    scale = torch.tensor([150 / 160, 90 / 96]).repeat(2)
    assert np.allclose(found.boxes, (wanted.boxes[0] * scale)[: len(found)], atol=1e-2)
    if kind.startswith("retinanet"):
        x0, y0, x1, y1 = found.boxes[0]
        inside = [[y0 <= y + 0.5 < y1 and x0 <= x + 0.5 < x1 for x in range(150)] for y in range(90)]
        assert (found[0].mask == inside).all()


def prepared(ask: Segmenter, pixels: np.ndarray) -> Tensor:
    """What the network is shown of a photo of 90 x 150 pixels: 96 x 160."""
    (view,) = ask.model.views((90, 150), SMALL)
    assert view.content == view.shape == (96, 160)
    result: Tensor = ask.model.prepare(to_pixels(pixels, view, ask.card.preprocess), view)[None]
    return result


def test_classes_thresholds_and_batches(ask: Segmenter) -> None:
    pixels, other = photo(64, 100), photo(80, 100)
    everything = ask.instances(pixels, threshold=0.0, options=SMALL)
    cats = ask.instances(pixels, "cat", threshold=0.0, options=SMALL)
    assert cats.labels == [label for label in everything.labels if label == "cat"]
    assert cats.classes == ("cat",) == ask.instances(pixels, ["Cat "], options=SMALL).classes
    least = float(np.median(everything.scores))
    assert ask.instances(pixels, threshold=least, options=SMALL).scores.min() >= least
    first, second = ask.instances([pixels, other], threshold=0.0, options=SMALL)
    assert np.allclose(first.boxes, everything.boxes, atol=1e-3)
    assert second.size == (80, 100)
    assert (ask.instances(ask.embed_image(pixels, options=SMALL), threshold=0.0).labels) == everything.labels
    assert len(ask.instances(pixels, threshold=1.0, options=SMALL)) == 0


@pytest.mark.parametrize("kind", ["mask_rcnn", "retinanet"])
def test_half_precision_finds_about_the_same(kind: str) -> None:
    exact = asked(kind)
    half = Segmenter(build(CONFIGS[kind]), exact.card, device="cpu", precision="bfloat16")
    pixels = np.random.default_rng(2).integers(0, 256, (90, 150, 3), np.uint8)
    first, second = (ask.instances(pixels, threshold=0.0, options=SMALL) for ask in (exact, half))
    assert second.scores[0] == pytest.approx(first.scores[0], rel=0.05)
    assert ((second.boxes >= 0) & (second.boxes <= [150, 90, 150, 90])).all()


def test_padding_is_not_searched(ask: Segmenter) -> None:
    """Boxes end at the photo, also in a batch; the padding is told by the fourth channel."""
    pixels = torch.randn(1, 3, 64, 96)
    shown = torch.zeros(1, 1, 64, 96)
    shown[..., :50, :70] = 1
    image = ask.model.encode_image(torch.cat([pixels, shown], 1))
    assert image.sizes.tolist() == [[50, 70]]
    with torch.no_grad():
        found = ask.model.decode(image, ask.model.encode_prompts([Text(name) for name in CLASSES]))
    assert found.boxes[..., 2].max() <= 70
    assert found.boxes[..., 3].max() <= 50


def test_score_maps_of_any_names(ask: Segmenter) -> None:
    """Without the padding: of the two columns of cells the second shows one column of pixels."""
    tall = photo(96, 20)
    (view,) = ask.model.views((96, 20), SMALL)
    assert (view.content, view.shape) == ((160, 33), (160, 64))
    found = score_maps(ask, tall, ["zebra", "sky"], options=SMALL)
    with torch.no_grad():
        image = ask.model.encode_image(ask.model.prepare(to_pixels(tall, view, ask.card.preprocess), view)[None]).encoded
        wanted = ask.model.guide(image, ask.model.class_embeddings(["zebra", "sky"])).scores[0]
    assert wanted.shape == (2, 5, 2)
    np.testing.assert_allclose(found, wanted[..., :1], atol=1e-6)
    with pytest.raises(UnsupportedTask, match="denseclip-retinanet-r50"):
        score_maps(asked("mask_rcnn-baseline"), tall)


def test_detections_become_instances() -> None:
    masks = torch.full((1, 3, 4, 4), 9.0)
    masks[0, 0, :, 2:] = -9
    boxes = torch.tensor([[[2.0, 1, 10, 9], [0, 0, 3, 3], [5, 5, 5.2, 5.2]]])
    found = Detections(boxes, torch.tensor([[0.9, 0.6, 0.0]]), torch.tensor([[1, 0, 0]]), masks)
    result = instances(found, (12, 16), ("cat", "dog"), threshold=0.5)
    assert result.labels == ["dog", "cat"]
    assert result[0].box == (2, 1, 6, 9)
    assert result.boxes.tolist() == [[2, 1, 10, 9], [0, 0, 3, 3]]
    assert result[1].mask[:3, :3].all()
    assert result[1].area == 9
    boxes_only = instances(replace(found, masks=None, scores=torch.tensor([[0.9, 0.6, 0.7]])), (12, 16), ("cat", "dog"))
    assert [mask.area for mask in boxes_only] == [64, 9, 0]


def test_results_come_back_with_their_boxes(tmp_path: Path, ask: Segmenter) -> None:
    found = ask.instances(photo(64, 100), threshold=0.0, options=SMALL)[:5]
    found.save(tmp_path / "found")
    again = Instances.load(tmp_path / "found")
    assert np.allclose(again.boxes, found.boxes)
    assert again.labels == found.labels
    assert (again[0].mask == found[0].mask).all()
    assert found.overlay(photo(64, 100)).size == (100, 64)
    assert len(found.to_coco()) == len(found)
    with pytest.raises(ConfigError, match="1 boxes for 5"):
        Instances(list(found), found.size, labels=found.labels, boxes=[(0, 0, 1, 1)])


def test_bad_input(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match="'traffic lights' is none of them"):
        ask.instances(photo(), ["traffic lights"])
    with pytest.raises(PromptError, match="not 5"):
        ask.instances(photo(), 5)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="threshold"):
        ask.instances(photo(), threshold=2)
    with pytest.raises(UnsupportedTask, match="denseclip-fpn"):
        ask.semantic(photo())
    with pytest.raises(UnsupportedTask, match="denseclip-maskrcnn"):
        Segmenter(ask.model, zoo.card("pocket"), device="cpu", precision="float32").instances(photo())
    with pytest.raises(PromptError, match="no other prompts"):
        ask.model.encode_prompts([Box(0, 0, 1, 1)])
    with pytest.raises(ConfigError, match="any image encoder but a transformer of one scale"):
        Detector(replace(MASK, backbone=VIT.backbone))
    with pytest.raises(PromptError, match="in their order"):
        ask.model.decode(ask.model.encode_image(torch.zeros(1, 3, 64, 64)), ask.model.encode_prompts([Text("cat")]))


MASK_PARTS = ("image.conv1", "head.rpn.rpn_cls", "head.rpn.rpn_reg", "head.box.fc_cls", "head.box.fc_reg", "head.mask.conv_logits")
BROKEN = [*(("mask_rcnn", part) for part in MASK_PARTS), ("retinanet", "head.retina_cls"), ("retinanet", "head.retina_reg")]


@pytest.mark.parametrize(("kind", "part"), BROKEN)
def test_what_is_no_number_is_told_wherever_it_arises(kind: str, part: str) -> None:
    broken = asked(kind)
    with torch.no_grad():
        broken.model.get_submodule(part).weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="not numbers"):
        broken.instances(photo(), options=SMALL)


def test_the_command_line(tmp_path: Path) -> None:
    folder = zoo.save_folder(build(), tmp_path / "model", CARDS["mask_rcnn"])
    Image.fromarray(photo(60, 90)).save(tmp_path / "photo.png")
    call = ["instances", str(tmp_path / "photo.png"), "cat", "-m", str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]
    call += ["--precision", "float32"]
    sides = ("--long", "160", "--short", "96")
    done = CliRunner().invoke(app, [*call, "--threshold", "0", "--format", "overlay,coco", *sides, "--score-maps"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "photo" / "overlay.png").is_file()
    assert (tmp_path / "out" / "photo" / "scores" / "000-cat.png").is_file()
    wanted = asked("mask_rcnn").instances(photo(60, 90), ["cat"], threshold=0.0, options=SMALL)
    found = json.loads((tmp_path / "out" / "photo" / "coco.json").read_text())
    assert [one["score"] for one in found] == pytest.approx(list(wanted.scores), abs=1e-3)
    wrong = CliRunner().invoke(app, [*call, "-c", "dragon"])
    assert isinstance(wrong.exception, PromptError)

"""Operators on boxes against their definitions, one box, one sample, one pixel at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from promptseg.nn import boxes as box_ops
from promptseg.nn import matching, roi


def some_boxes(count: int, seed: int, size: tuple[int, int] = (40, 60)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1], size[0]])
    return torch.cat([ends.amin(1), ends.amax(1)], 1)


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


# --- boxes ------------------------------------------------------------------------------------------------------------------------------


def test_iou_is_its_definition() -> None:
    a, b = some_boxes(7, 0), torch.cat([some_boxes(5, 1), torch.tensor([[3.0, 3, 3, 3], [0, 0, 60, 40]])])
    wanted = [[overlap(one, other) for other in b.tolist()] for one in a.tolist()]
    assert np.allclose(box_ops.iou(a, b), wanted, atol=1e-6)
    empty = torch.tensor([[3.0, 3, 3, 3]])
    assert box_ops.iou(empty, empty).item() == 0


def test_deltas_bring_a_box_to_its_target() -> None:
    a, b, stds = some_boxes(20, 2), some_boxes(20, 3), (0.1, 0.1, 0.2, 0.2)
    x0, y0, x1, y1 = a[0].tolist()
    u0, v0, u1, v1 = b[0].tolist()
    by_hand = [
        ((u0 + u1) / 2 - (x0 + x1) / 2) / (x1 - x0) / 0.1,
        ((v0 + v1) / 2 - (y0 + y1) / 2) / (y1 - y0) / 0.1,
        math.log((u1 - u0) / (x1 - x0)) / 0.2,
        math.log((v1 - v0) / (y1 - y0)) / 0.2,
    ]
    assert box_ops.encode(a, b, stds)[0].tolist() == pytest.approx(by_hand, rel=1e-4)
    close = (b[:, 2:] - b[:, :2]) / (a[:, 2:] - a[:, :2])
    fits = ((close < 60) & (close > 1 / 60)).all(1)
    assert torch.allclose(box_ops.decode(a, box_ops.encode(a, b, stds), stds=stds)[fits], b[fits], atol=1e-3)


def test_decoding_is_bounded_and_takes_several_deltas_per_box() -> None:
    box = torch.tensor([[10.0, 10, 20, 30]])
    grown = box_ops.decode(box, torch.tensor([[0.0, 0, 99, -99]]))[0]
    assert (grown[2] - grown[0]).item() == pytest.approx(10 * 62.5, rel=1e-4)
    assert (grown[3] - grown[1]).item() == pytest.approx(20 / 62.5, rel=1e-4)
    assert box_ops.decode(box, torch.tensor([[0.0, 0, 99, -99]]), (25, 40))[0, ::2].tolist() == [0, 40]
    deltas = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))
    boxes = some_boxes(4, 4)
    several = box_ops.decode(boxes, deltas)
    assert several.shape == (4, 3, 4)
    assert all(torch.allclose(several[:, index], box_ops.decode(boxes, deltas[:, index])) for index in range(3))


@pytest.mark.parametrize("count", [0, 1, 60, 1500])  # the last is more than are compared at once
@pytest.mark.parametrize("grouped", [False, True])
def test_nms_is_the_greedy_one(count: int, grouped: bool) -> None:
    boxes, generator = some_boxes(count, 5), torch.Generator().manual_seed(6)
    scores, groups = torch.rand(count, generator=generator), torch.randint(0, 3, (count,), generator=generator)
    matrix = box_ops.iou(boxes, boxes) > 0.5
    wanted: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if not any(bool(matrix[other, index]) and (not grouped or groups[other] == groups[index]) for other in wanted):
            wanted.append(index)
    given = groups if grouped else None
    assert box_ops.nms(boxes, scores, 0.5, given).tolist() == wanted
    assert box_ops.nms(boxes, scores, 0.5, given, limit=7).tolist() == wanted[:7]


def test_anchors_one_by_one() -> None:
    scales, ratios = [2 ** (step / 3) for step in range(3)], [0.5, 1.0, 2.0]
    found = box_ops.anchors((2, 3), 8, box_ops.shapes(32, scales, ratios))
    wanted = []
    for row, column, ratio, scale in itertools.product(range(2), range(3), ratios, scales):
        width, height = 32 * scale / math.sqrt(ratio), 32 * scale * math.sqrt(ratio)
        wanted.append([column * 8 - width / 2, row * 8 - height / 2, column * 8 + width / 2, row * 8 + height / 2])
    assert np.allclose(found, wanted, atol=1e-4)
    flags = box_ops.shown((2, 3), 8, 9, (9, 16))
    assert flags.tolist() == [column < 2 for _ in range(2) for column in range(3) for _ in range(9)]


# --- matching ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [(0.5, 0.4, 0.0), (0.7, 0.3, 0.3), (0.5, 0.5, 0.5)])
def test_matches_one_by_one(rule: tuple[float, float, float]) -> None:
    boxes, truth = some_boxes(200, 7), some_boxes(6, 8)
    truth = torch.cat([truth, truth[:1]])  # a double: the last takes what both would
    overlaps = box_ops.iou(truth, boxes)
    wanted = []
    for column in overlaps.T.tolist():
        best = max(column)
        wanted.append(column.index(best) if best >= rule[0] else matching.BACKGROUND if best < rule[1] else matching.IGNORED)
    for index, row in enumerate(overlaps.tolist()):
        if max(row) >= rule[2]:
            for place in (place for place, value in enumerate(row) if value == max(row)):
                wanted[place] = index
    positive, negative, least = rule
    found = matching.match(boxes, truth, matching.Rule(positive=positive, negative=negative, least=least))
    assert found.tolist() == wanted
    assert {matching.BACKGROUND, 6} < {*wanted}
    assert (matching.IGNORED in wanted) is (positive > negative)


def test_without_truth_all_is_background() -> None:
    rule = matching.Rule(positive=0.5, negative=0.4, least=0.0)
    assert matching.match(some_boxes(3, 0), torch.zeros(0, 4), rule).tolist() == [matching.BACKGROUND] * 3


def test_a_sample_has_its_shares() -> None:
    matches = torch.tensor([0, 1, 2, 3] * 10 + [matching.BACKGROUND] * 50 + [matching.IGNORED] * 5)
    positive, negative = matching.sample(matches, matching.Sampling(count=20, positive=0.25), torch.Generator().manual_seed(0))
    assert (len(positive), len(negative)) == (5, 15)
    assert len({*positive.tolist()}) == 5
    assert bool((matches[positive] >= 0).all())
    assert bool((matches[negative] == matching.BACKGROUND).all())
    positive, negative = matching.sample(matches[38:], matching.Sampling(count=20, positive=0.25))
    assert (len(positive), len(negative)) == (2, 18)
    assert [len(part) for part in matching.sample(matches, None)] == [40, 50]


# --- RoIAlign ---------------------------------------------------------------------------------------------------------------------------


def by_hand(features: Tensor, rois: Tensor, out: int, scale: float) -> Tensor:
    """RoIAlign as its definition reads, sample by sample."""
    height, width = features.shape[2:]
    result = torch.zeros(len(rois), features.shape[1], out, out)
    for number, (image, x0, y0, x1, y1) in enumerate(rois.tolist()):
        x0, y0, x1, y1 = (value * scale - 0.5 for value in (x0, y0, x1, y1))
        across, down = math.ceil((x1 - x0) / out), math.ceil((y1 - y0) / out)
        for row, column in itertools.product(range(out), range(out)):
            for i, j in itertools.product(range(down), range(across)):
                y = y0 + (row + (i + 0.5) / down) * (y1 - y0) / out
                x = x0 + (column + (j + 0.5) / across) * (x1 - x0) / out
                if -1 <= y <= height and -1 <= x <= width:
                    result[number, :, row, column] += bilinear(features[int(image)], y, x) / (across * down)
    return result


def bilinear(features: Tensor, y: float, x: float) -> Tensor:
    """Clamped to the outermost cell centres."""
    height, width = features.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = features[:, top, left] * (1 - (x - left)) + features[:, top, right] * (x - left)
    lower = features[:, bottom, left] * (1 - (x - left)) + features[:, bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


ROIS = torch.tensor(
    [
        [0, 3.2, 5.1, 30.7, 22.9],
        [1, -9, -8, 70, 50],  # beyond every side
        [1, 10, 10, 10.4, 10.4],  # smaller than a cell
        [0, 50, 30, 59.9, 39.9],
        [0, 5, 5, 5, 5],  # nothing
        [1, 3.2, 5.1, 30.7, 22.9],
    ]
)


@pytest.mark.parametrize(("out", "scale"), [(3, 0.25), (2, 1.0), (7, 0.5)])
def test_roi_align_sample_by_sample(out: int, scale: float) -> None:
    features = torch.randn(2, 4, int(40 * scale), int(60 * scale), generator=torch.Generator().manual_seed(1))
    found = roi.roi_align(features, ROIS, out, scale)
    assert torch.allclose(found, by_hand(features, ROIS, out, scale), atol=2e-5)
    assert not found[4].any()


def test_roi_align_has_gradients() -> None:
    features = torch.randn(2, 2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    rois = ROIS[[0, 5]].double()
    assert torch.autograd.gradcheck(lambda x: roi.roi_align(x, rois, 2, 1 / 6), (features,))


def test_boxes_are_read_on_the_level_of_their_size() -> None:
    sides = torch.tensor([10.0, 111.9, 112.0, 223, 224, 447, 449, 2000])
    rois = torch.stack([torch.zeros(8), torch.zeros(8), torch.zeros(8), sides, sides], 1)
    assert roi.levels(rois, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    pyramid = [torch.full((1, 1, 64 >> level, 64 >> level), float(level)) for level in range(4)]
    found = roi.pyramid_align(pyramid, (4, 8, 16, 32), rois[:7] / torch.tensor([1, 1, 1, 1.8, 1.8]), 2)
    assert found[:, 0, 0, 0].tolist() == roi.levels(rois[:7] / torch.tensor([1, 1, 1, 1.8, 1.8]), 4).tolist()


def test_masks_are_pasted_pixel_by_pixel() -> None:
    mask, size = torch.rand(5, 5, generator=torch.Generator().manual_seed(3)), (20, 30)
    for box in ([3.3, 2.2, 17.9, 11.4], [-4.0, -3, 35, 25], [28.5, 18.5, 40, 40], [50.0, 50, 60, 60]):
        x0, y0, x1, y1 = box
        wanted = np.zeros(size, bool)
        for y, x in itertools.product(range(size[0]), range(size[1])):
            row, column = (y + 0.5 - y0) / (y1 - y0) * 5 - 0.5, (x + 0.5 - x0) / (x1 - x0) * 5 - 0.5
            total = 0.0
            for i, j in itertools.product(range(5), range(5)):
                total += max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j)) * mask[i, j].item()
            wanted[y, x] = total >= 0.5
        part, (top, left) = roi.pasted(mask, box, size)
        found = np.zeros(size, bool)
        found[top : top + part.shape[0], left : left + part.shape[1]] = part.numpy() >= 0.5
        assert (found == wanted).all()

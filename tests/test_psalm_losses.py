"""PSALM's matching and losses on plain tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment  # comes with scikit-learn

from promptseg.errors import ConfigError, NumericalError
from promptseg.models.psalm.losses import LossConfig, Targets, judge, language_loss, mask_losses
from promptseg.models.psalm.matching import Costs, assign, match, sample
from promptseg.models.psalm.mixing import Mix
from promptseg.models.psalm.predictor import Head

CONFIG = LossConfig(costs=Costs(points=64))


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (20, 20), (100, 40), (4, 0), (0, 4)])
def test_assignments_cost_as_little_as_scipys(shape: tuple[int, int]) -> None:
    for seed in range(5):
        cost = np.random.default_rng(seed).normal(size=shape)
        rows, columns = assign(cost)
        assert len(set(columns)) == len(rows) == min(shape)
        assert (np.diff(rows) > 0).all()
        assert cost[rows, columns].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum())


def test_a_cost_that_is_no_number() -> None:
    with pytest.raises(NumericalError, match="learning rate"):
        assign(np.array([[0.0, np.nan]]))


def test_sampling_reads_pixel_centres() -> None:
    maps = torch.arange(6.0).view(1, 2, 3)
    found = sample(maps, torch.tensor([[[0.5 / 3, 0.25], [2.5 / 3, 0.75], [0.5, 0.5]]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 5.0, 2.5]]))


def squares() -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (2, 32, 32) of two halves, and logits (4, 8, 8) of which query 3 shows the first and query 1 the second."""
    masks = torch.zeros(2, 32, 32, dtype=torch.uint8)
    masks[0, :16], masks[1, 16:] = 1, 1
    logits = torch.full((4, 8, 8), -8.0)
    logits[3, :4], logits[1, 4:] = 8, 8
    return masks, logits


def test_queries_find_their_targets() -> None:
    masks, logits = squares()
    torch.manual_seed(0)
    found = match(logits, masks, CONFIG.costs)
    assert (found.queries.tolist(), found.targets.tolist()) == ([1, 3], [1, 0])
    alike = torch.full((4, 8, 8), 0.0)
    classes = torch.zeros(4, 3)
    classes[0, 1], classes[2, 0] = 9, 9
    found = match(alike, masks, CONFIG.costs, classes, torch.tensor([0, 1]))
    assert (found.queries.tolist(), found.targets.tolist()) == ([0, 2], [1, 0])


def test_right_answers_cost_little_and_wrong_ones_much() -> None:
    masks, logits = squares()
    labels = torch.tensor([0, 1])
    classes = torch.full((1, 4, 3), -9.0)
    for query, wanted in enumerate((2, 1, 2, 0)):
        classes[0, query, wanted] = 9
    right = mask_losses([Head(logits[None], classes)], [Targets(masks, labels)], CONFIG)
    assert max(right.values()) < 1.5  # points near the edge are never sure
    nothing = torch.tensor([-9.0, -9.0, 9.0]).expand(1, 4, 3)
    wrong = mask_losses([Head(torch.full_like(logits[None], -8), nothing)], [Targets(masks, labels)], CONFIG)
    assert all(wrong[name] > 2 for name in right)
    region = torch.full((2, 4), -9.0)
    region[0, 3], region[1, 1] = 9, 9
    assert judge(Head(logits[None], regions=(region,)), [Targets(masks, labels)], CONFIG).losses["regions"] < 1e-3
    sentence = torch.tensor([[[-9.0], [9.0], [-9.0], [9.0]]])
    assert judge(Head(logits[None], sentence=sentence), [Targets(masks, labels)], CONFIG).losses["sentence"] < 1e-3


def test_no_targets_and_more_targets_than_queries() -> None:
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    nothing = Targets(torch.zeros(0, 32, 32, dtype=torch.uint8), torch.zeros(0, dtype=torch.long))
    losses = judge(Head(logits, torch.randn(1, 4, 3)), [nothing], CONFIG).losses
    assert (losses["mask"].item(), losses["dice"].item()) == (0, 0)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert logits.grad is not None
    many = Targets((torch.rand(9, 32, 32) > 0.5).to(torch.uint8), torch.zeros(9, dtype=torch.long))
    found = judge(Head(logits, torch.randn(1, 4, 3)), [many], CONFIG)
    assert len(found.matches[0].queries) == 4
    assert all(torch.isfinite(value) for value in found.losses.values())


def test_every_round_counts() -> None:
    masks, logits = squares()
    head = Head(logits[None], torch.zeros(1, 4, 3))
    targets = [Targets(masks, torch.tensor([0, 1]))]
    one, three = mask_losses([head], targets, CONFIG), mask_losses([head] * 3, targets, CONFIG)
    assert three["classes"].item() == pytest.approx(3 * one["classes"].item())


def test_language_counts_the_answers_only() -> None:
    logits = torch.zeros(1, 4, 10)
    logits[0, 1, 7] = 50
    labels = torch.tensor([[-100, -100, 7, -100]])
    assert language_loss(logits, labels) < 1e-6
    assert language_loss(logits, torch.tensor([[-100, 7, -100, -100]])) == pytest.approx(np.log(10))


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="at least 0"):
        LossConfig(dice=-1)
    with pytest.raises(ConfigError, match="oversample"):
        LossConfig(uncertain=2)
    with pytest.raises(ConfigError, match="none of them empty"):
        Mix((3, 0), (1, 1))
    with pytest.raises(ConfigError, match="ratio"):
        Mix((3, 2), (1,))


def test_data_sets_take_turns() -> None:
    mix = Mix((5, 3), (2, 1), every=2)
    assert len(mix) == 13
    assert [mix.place(turn, turn)[0] for turn in range(8)] == [0, 0, 0, 0, 1, 1, 0, 0]
    assert mix.place(4, 7) == (1, 1)


def test_costs_leave_the_device_before_they_become_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs have none."""
    calls: list[str] = []
    for name in ("cpu", "double"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, name=name, method=method: calls.append(name) or method(tensor))
    match(torch.randn(3, 8, 8), torch.ones(2, 8, 8), CONFIG.costs)
    assert calls == ["cpu", "double"]

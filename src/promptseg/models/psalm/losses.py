"""What PSALM is trained to do: masks at uncertain points, and one score per query for the condition that was asked (paper, section 3.3).

Every round of predictions is matched and judged on its own, the last one first. Random points come from torch's global generator, in the
published order: for each image of the batch those of the matching, then those of all matched masks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ...nn.processes import several
from .matching import Costs, Match, match, sample
from .predictor import Head

__all__ = ["Judged", "LossConfig", "Targets", "judge", "language_loss", "mask_losses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of the losses and what they are drawn and counted by. Names in brackets are the published ones.

    Raises:
        ConfigError: a weight or count that makes no sense.
    """

    mask: float = 5.0  # binary cross-entropy
    dice: float = 5.0
    condition: float = 2.0  # classes, the sentence or regions
    background: float = 0.1  # weight of the class "background" among the classes
    oversample: float = 3.0  # points drawn for every one that is kept [OVERSAMPLE_RATIO]
    uncertain: float = 0.75  # share of the points that are the most uncertain ones [IMPORTANCE_SAMPLE_RATIO]
    costs: Costs = field(default_factory=Costs)  # of the matching, which also says how many points

    def __post_init__(self) -> None:
        if min(self.mask, self.dice, self.condition, self.background) < 0:
            raise ConfigError("Weights of losses are at least 0.")
        if self.oversample < 1 or not 0 <= self.uncertain <= 1:
            raise ConfigError(f"oversample is at least 1 and uncertain a share, 0 to 1, not {self.oversample} and {self.uncertain}.")


@dataclass(frozen=True, slots=True)
class Targets:
    """What one image should give: ``masks`` (K, S, S) uint8 0/1 on the network's grid, ``labels`` (K,) int64 where classes are asked."""

    masks: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Judged:
    """One round: unweighted losses by name, and what they are based on. ``points`` (N, P, 2) of the matched masks."""

    losses: dict[str, Tensor]
    matches: tuple[Match, ...]
    points: Tensor


def mask_losses(heads: Sequence[Head], targets: Sequence[Targets], config: LossConfig) -> dict[str, Tensor]:
    """Weighted sums over all rounds: "mask", "dice" and "classes", "sentence" or "regions". ``heads``: the last one counts in use.

    Everything is computed in float32, also where the network runs in half precision.
    """
    weights = {"mask": config.mask, "dice": config.dice}
    sums: dict[str, Tensor] = {}
    with torch.autocast(heads[-1].masks.device.type, enabled=False):
        for head in (heads[-1], *heads[:-1]):
            for name, value in judge(head, targets, config).losses.items():
                sums[name] = sums.get(name, 0) + weights.get(name, config.condition) * value
    return sums


def judge(head: Head, targets: Sequence[Targets], config: LossConfig) -> Judged:
    """Match one round of predictions with the targets, and measure it."""
    classes = head.classes if head.classes is not None else [None] * len(targets)
    matches = tuple(
        match(masks, target.masks, config.costs, logits, target.labels)
        for masks, logits, target in zip(head.masks, classes, targets, strict=True)
    )
    count = _mean_count(sum(len(target.masks) for target in targets), head.masks)
    losses, points = _at_points(head.masks, targets, matches, count, config)
    if head.classes is not None:
        losses["classes"] = _class_loss(head.classes, targets, matches, config)
    if head.sentence is not None:
        losses["sentence"] = _sentence_loss(head.sentence, matches)
    if head.regions is not None:
        losses["regions"] = _region_loss(head.regions, matches)
    return Judged(losses, matches, points)


def language_loss(logits: Tensor, labels: Tensor, ignore: int = -100) -> Tensor:
    """Mean cross-entropy of the next token, logits (B, L, V) and labels (B, L), over the tokens of answers."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=ignore)


# --- masks ------------------------------------------------------------------------------------------------------------------------------


def _at_points(
    masks: Tensor, targets: Sequence[Targets], matches: Sequence[Match], count: float, config: LossConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Cross-entropy and dice of the matched masks at points that are drawn where the prediction is uncertain."""
    seen = torch.cat([image[found.queries] for image, found in zip(masks, matches, strict=True)]).float()
    wanted = torch.cat([target.masks[found.targets] for target, found in zip(targets, matches, strict=True)]).float()
    points = _uncertain_points(seen.detach(), config)
    if not len(seen):
        nothing = masks.float().sum() * 0  # no target in the whole batch: nothing to learn, yet every process has a gradient
        return {"mask": nothing, "dice": nothing}, points
    logits, truth = sample(seen, points), sample(wanted, points)
    shares = logits.sigmoid()
    dice = 1 - (2 * (shares * truth).sum(1) + 1) / (shares.sum(1) + truth.sum(1) + 1)
    crossed = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    return {"mask": crossed.sum() / count, "dice": dice.sum() / count}, points


@torch.no_grad()
def _uncertain_points(logits: Tensor, config: LossConfig) -> Tensor:
    """Points (N, P, 2): of many random ones those whose logits (N, h, w) are nearest to 0, and fresh random ones for the rest."""
    total = config.costs.points
    kept = int(config.uncertain * total)
    drawn = torch.rand(len(logits), int(config.oversample * total), 2, device=logits.device)
    doubt = -sample(logits, drawn).abs() if len(logits) else drawn[..., 0]
    best = doubt.topk(kept, dim=1).indices
    chosen = drawn.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(len(logits), total - kept, 2, device=logits.device)], dim=1)


def _mean_count(mine: int, like: Tensor) -> float:
    """Targets of the batch, averaged over processes, at least one."""
    if not several():
        return max(1.0, mine)
    total = torch.tensor(float(mine), device=like.device)
    torch.distributed.all_reduce(total)
    return max(1.0, total.item() / torch.distributed.get_world_size())


# --- conditions -------------------------------------------------------------------------------------------------------------------------


def _class_loss(logits: Tensor, targets: Sequence[Targets], matches: Sequence[Match], config: LossConfig) -> Tensor:
    """Cross-entropy (B, Q, C + 1): a matched query has its target's class, all others are background, which counts little."""
    background = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:2], background, device=logits.device)
    for row, target, found in zip(wanted, targets, matches, strict=True):
        row[found.queries] = target.labels[found.targets]
    weight = torch.ones(logits.shape[-1], device=logits.device)
    weight[background] = config.background
    return F.cross_entropy(logits.float().transpose(1, 2), wanted, weight)


def _sentence_loss(logits: Tensor, matches: Sequence[Match]) -> Tensor:
    """(B, Q, 1): is a query the one that the sentence means?"""
    wanted = torch.zeros_like(logits[..., 0], dtype=torch.float32)
    for row, found in zip(wanted, matches, strict=True):
        row[found.queries] = 1
    return _balanced(logits[..., 0].flatten(), wanted.flatten())


def _region_loss(logits: Sequence[Tensor], matches: Sequence[Match]) -> Tensor:
    """One (K, Q) per image: is a query the one that the region means? Regions stand in the order of the targets."""
    wanted = [torch.zeros_like(one, dtype=torch.float32) for one in logits]
    for rows, found in zip(wanted, matches, strict=True):
        rows[found.targets, found.queries] = 1
    return _balanced(torch.cat([one.flatten() for one in logits]), torch.cat([one.flatten() for one in wanted]))


def _balanced(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy in which the few that are wanted weigh as much as all others together."""
    count = wanted.sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(logits.float(), wanted, pos_weight=(len(wanted) - count) / count)

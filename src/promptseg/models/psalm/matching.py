"""Which query answers for which target: the assignment of least total cost, found anew for every image and every round of predictions.

Masks are compared at random points that all masks of an image share (Mask2Former, section 3.3), with float32 arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...errors import NumericalError

Ints: TypeAlias = NDArray[np.int64]

__all__ = ["Costs", "Match", "assign", "match", "sample"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Weights of the parts of the cost, the number of points at which masks are compared [TRAIN_NUM_POINTS]."""

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    points: int = 12544  # 112 x 112


@dataclass(frozen=True, slots=True)
class Match:
    """``queries`` and ``targets`` (N,) int64, pair by pair, queries rising; ``cost`` (Q, K) and ``points`` (1, P, 2) led to them."""

    queries: Tensor
    targets: Tensor
    cost: Tensor
    points: Tensor


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (N, h, w) at points (N, P, 2) of (x, y) in 0..1, or the same points (1, P, 2) for all: bilinear -> (N, P)."""
    places = 2 * points.expand(len(maps), -1, -1)[:, :, None] - 1
    return F.grid_sample(maps[:, None], places, mode="bilinear", align_corners=False)[:, 0, :, 0]


@torch.no_grad()
def match(masks: Tensor, targets: Tensor, costs: Costs, classes: Tensor | None = None, labels: Tensor | None = None) -> Match:
    """Queries of one image and its targets. Draws the points from torch's global generator.

    Args:
        masks: logits (Q, h, w).
        targets: (K, H, W) 0/1.
        classes, labels: logits (Q, C + 1) and (K,) class numbers, where classes are asked for; else masks alone decide.

    Raises:
        NumericalError: a cost is not a number.
    """
    points = torch.rand(1, costs.points, 2, device=masks.device)
    seen, wanted = sample(masks.float(), points), sample(targets.float(), points)
    cost = costs.mask * _cross_entropy(seen, wanted) + costs.dice * _dice(seen, wanted)
    if classes is not None and labels is not None:
        cost = cost - costs.classes * classes.float().softmax(-1)[:, labels]
    queries, chosen = assign(cost.cpu().double().numpy())  # Apple's GPUs have no doubles
    return Match(torch.from_numpy(queries).to(cost.device), torch.from_numpy(chosen).to(cost.device), cost, points)


def _cross_entropy(seen: Tensor, wanted: Tensor) -> Tensor:
    """Mean binary cross-entropy of every query with every target, (Q, K)."""
    return (F.softplus(-seen) @ wanted.T + F.softplus(seen) @ (1 - wanted).T) / seen.shape[1]


def _dice(seen: Tensor, wanted: Tensor) -> Tensor:
    """1 - (2 overlap + 1) / (sum + 1) of every query with every target, (Q, K)."""
    shares = seen.sigmoid()
    return 1 - (2 * shares @ wanted.T + 1) / (shares.sum(1)[:, None] + wanted.sum(1)[None] + 1)


def assign(cost: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """The min(Q, K) pairs of rows and columns, each used once, whose costs (Q, K) sum up to the least; rows rising.

    Shortest augmenting paths with dual prices (Jonker and Volgenant 1987; Crouse 2016), every step of a path for all columns at once.

    Raises:
        NumericalError: a cost is not a finite number.
    """
    if not np.isfinite(cost).all():
        raise NumericalError("Queries cannot be matched with targets: a cost is not a finite number. Lower the learning rate.")
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    rows_of = np.full(cost.shape[1], -1, dtype=np.int64)
    row_price, column_price = np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    for row in range(cost.shape[0]):
        _augment(cost, row, rows_of, row_price, column_price)
    columns = np.flatnonzero(rows_of >= 0)
    order = np.argsort(rows_of[columns])
    return rows_of[columns][order], columns[order]


def _augment(
    cost: NDArray[np.float64], start: int, rows_of: Ints, row_price: NDArray[np.float64], column_price: NDArray[np.float64]
) -> None:
    """Give row ``start`` a column, moving others along the cheapest path, and raise the prices accordingly; all in place."""
    shortest = np.full(len(rows_of), np.inf)  # cheapest way to each column so far
    before = np.full(len(rows_of), -1, dtype=np.int64)  # the row from which it is reached
    done = np.zeros(len(rows_of), dtype=np.bool_)
    row, least = start, 0.0
    while True:
        reached = least + cost[row] - row_price[row] - column_price
        nearer = ~done & (reached < shortest)
        shortest[nearer], before[nearer] = reached[nearer], row
        column = int(np.argmin(np.where(done, np.inf, shortest)))
        least = float(shortest[column])
        if rows_of[column] < 0:
            break
        done[column] = True
        row = int(rows_of[column])
    row_price[start] += least
    row_price[rows_of[done]] += least - shortest[done]
    column_price[done] -= least - shortest[done]
    while True:
        row = int(before[column])
        taken = np.flatnonzero(rows_of == row)
        rows_of[column] = row
        if row == start:
            return
        column = int(taken[0])

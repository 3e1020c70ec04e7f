"""Boxes (N, 4), float, as x0, y0, x1, y1 in pixels: overlap, coding as deltas, suppression, and the anchors of a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = math.log(1000 / 16)  # by which a box grows or shrinks at most when deltas are decoded
_CHUNK = 1024  # boxes that `nms` compares with each other at once


def areas(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...); no pixel is added to the sides."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of (N, 4) and (M, 4) -> (N, M); 0 where both are empty."""
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    overlap = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - corner).clamp(min=0).prod(-1)
    return overlap / (areas(a)[:, None] + areas(b)[None] - overlap).clamp(min=1e-6)


def encode(boxes: Tensor, targets: Tensor, stds: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """What moves boxes (N, 4) onto targets (N, 4): dx, dy in the box's sides, dw, dh as logarithms, each divided by its ``stds``."""
    centre, sides = _centred(boxes)
    wanted_centre, wanted_sides = _centred(targets)
    deltas = torch.cat([(wanted_centre - centre) / sides, (wanted_sides / sides).log()], -1)
    return deltas / deltas.new_tensor(stds)


def decode(boxes: Tensor, deltas: Tensor, size: Sequence[int] | None = None, stds: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """The reverse of `encode`: boxes (N, 4) moved by deltas (N, ..., 4), cut at an image of ``size`` (H, W)."""
    deltas = deltas * deltas.new_tensor(stds)
    centre, sides = (part.reshape(len(boxes), *[1] * (deltas.ndim - 2), 2) for part in _centred(boxes))
    moved = centre + sides * deltas[..., :2]
    half = sides * deltas[..., 2:].clamp(-LARGEST, LARGEST).exp() / 2
    result = torch.cat([moved - half, moved + half], -1)
    return result if size is None else clip(result, size)


def clip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (..., 4) cut at an image of ``size`` (H, W)."""
    height, width = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None, limit: int | None = None) -> Tensor:
    """Indices of the boxes that stay, best first: greedily, each removes the later ones of its group with a larger IoU than ``threshold``.

    boxes (N, 4), scores (N,), groups (N,) integers, such as classes; None: one group. The work ends when ``limit`` boxes stay. As published
    [mmcv: batched_nms], groups are kept apart by moving their boxes apart, which rounds the overlaps of very thin ones.
    """
    if groups is not None and len(boxes):
        boxes = boxes + (groups.to(boxes) * (boxes.max() + 1))[:, None]
    order = scores.argsort(descending=True)  # equal scores in torch's own order: saturated ones are many, and published figures go by it
    limit = len(order) if limit is None else limit
    kept = order[:0]
    for chunk in torch.split(order, _CHUNK):
        if len(kept) >= limit:
            break
        chunk = chunk[~(iou(boxes[kept], boxes[chunk]) > threshold).any(0)]
        removes = (iou(boxes[chunk], boxes[chunk]) > threshold).triu(1)
        stays = torch.ones_like(chunk, dtype=torch.bool)
        while True:  # who stays depends on earlier ones alone, so this ends, and with the greedy answer
            changed = ~(removes & stays[:, None]).any(0)
            if torch.equal(changed, stays):
                break
            stays = changed
        kept = torch.cat([kept, chunk[stays]])
    return kept[:limit]


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sides, (..., 2) each."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


# --- anchors ----------------------------------------------------------------------------------------------------------------------------


def shapes(side: float, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors (R * S, 4) around (0, 0), ratio by ratio: area (side * scale)^2, height / width = ratio; nothing is rounded."""
    root = torch.tensor(ratios).sqrt()[:, None]
    scale = torch.tensor(scales)
    width, height = (side * (1 / root) * scale).flatten(), (side * root * scale).flatten()  # in mmdetection's order of rounding
    return torch.stack([-width, -height, width, height], -1) / 2


def anchors(grid: Sequence[int], stride: int, base: Tensor) -> Tensor:
    """``base`` (A, 4) at every cell (row, column) of a ``grid`` (h, w), centred at (column, row) * stride -> (h * w * A, 4)."""
    rows = torch.arange(grid[0], device=base.device, dtype=base.dtype) * stride
    columns = torch.arange(grid[1], device=base.device, dtype=base.dtype) * stride
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return (torch.stack([x, y, x, y], -1)[:, :, None] + base).reshape(-1, 4)


def shown(grid: Sequence[int], stride: int, count: int, size: Sequence[int]) -> Tensor:
    """(h * w * count,) bool: anchors of the cells that an image of ``size`` (H, W) reaches in a batch padded to a larger one."""
    height, width = (math.ceil(side / stride) for side in size)
    cells = (torch.arange(grid[0]) < height)[:, None] & (torch.arange(grid[1]) < width)
    return cells.flatten().repeat_interleave(count)

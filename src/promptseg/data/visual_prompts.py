"""Prompts that a person might have given for an object, made from its mask: a point, a rough mask, a box, a scribble (COCO-Interactive).

Chance comes from Python's generator, in the order of the published code, so that its files can be made again: for the connected parts of an
object first all points, then all boxes, then all scribbles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..regions import parts

__all__ = ["Part", "VisualPrompts", "parts_of", "visual_prompts"]

Mask: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Box: TypeAlias = tuple[int, int, int, int]  # (y0, x0, y1, x1), half-open

SMALLEST: Final = 5  # pixels; a part must have more
TRIES: Final = 1000  # for a point that lies on the part; for a scribble's box that overlaps its box
SIGMA: Final = 2.0  # pixels, of the blur that roughens the mask
REACH: Final = 8  # pixels: four standard deviations


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of an object: its box (y0, x0, y1, x1), half-open, and the mean of its pixels (y, x)."""

    box: Box
    centre: tuple[float, float]


@dataclass(frozen=True, slots=True)
class VisualPrompts:
    """What stands for an object, (H, W) bool each; ``pixels`` (y, x) of the points. Empty where the object is too small."""

    point: Mask
    mask: Mask
    box: Mask
    scribble: Mask
    pixels: tuple[tuple[int, int], ...]


def visual_prompts(mask: Mask, random: Random) -> VisualPrompts:
    """All four prompts of an object (H, W)."""
    parts = parts_of(mask)
    points, boxes, scribbles = (np.zeros(mask.shape, dtype=np.bool_) for _ in range(3))
    pixels = tuple(pixel for part in parts if (pixel := _point(mask, part, random)) is not None)
    for y, x in pixels:
        points[y, x] = True
    for part in parts:
        y0, x0, y1, x1 = _box(part, random)
        boxes[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    for part in parts:
        rows, columns = _scribble(part, random)
        scribbles[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)] = True
    return VisualPrompts(points, _rough(mask), boxes, scribbles, pixels)


def _point(mask: Mask, part: Part, random: Random) -> tuple[int, int] | None:
    """A pixel of the object near the centre of a part; None when none was hit."""
    y0, x0, y1, x1 = part.box
    radius = min(y1 - y0, x1 - x0) / 2
    for _ in range(TRIES):
        angle, down, across = random.uniform(0, 2 * math.pi), random.uniform(0, radius), random.uniform(0, radius)
        y, x = int(part.centre[0] + down * math.cos(angle)), int(part.centre[1] + across * math.sin(angle))
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
            return y, x
    return None


def _box(part: Part, random: Random) -> Box:
    """The part's box, up to a tenth larger or smaller about its own centre."""
    y0, x0, y1, x1 = part.box
    factor = random.uniform(0.9, 1.1)
    middle, half = ((y0 + y1) / 2, (x0 + x1) / 2), ((y1 - y0) * factor / 2, (x1 - x0) * factor / 2)
    return int(middle[0] - half[0]), int(middle[1] - half[1]), int(middle[0] + half[0]), int(middle[1] + half[1])


def _scribble(part: Part, random: Random) -> tuple[Ints, Ints]:
    """Rows and columns of a wave along a diagonal of a box around the part's centre; they may lie outside the picture.

    No box around the centre of a thin L overlaps the part's own by half; the last that was drawn then stands.
    """
    y0, x0, y1, x1 = part.box
    for _ in range(TRIES):
        height, width = (y1 - y0) * random.uniform(0.5, 1.2), (x1 - x0) * random.uniform(0.5, 1.2)
        top, left = int(part.centre[0] - height / 2), int(part.centre[1] - width / 2)
        bottom, right = int(part.centre[0] + height / 2), int(part.centre[1] + width / 2)
        if _overlap(part.box, (top, left, bottom, right)) >= 0.5:
            break
    corners = {
        "down right": (top, left, bottom, right),
        "down left": (top, right, bottom, left),
        "up right": (bottom, left, top, right),
        "up left": (bottom, right, top, left),
    }
    rows, columns = _line(*random.choice(list(corners.values())))
    amplitude, frequency, phase = random.uniform(10, 20), random.uniform(0.2, 1), random.uniform(0, 2 * math.pi)
    wave = amplitude * np.sin(2 * np.pi * frequency * np.linspace(0, 1, len(rows)) + phase)
    return (rows + wave).astype(np.int64), columns


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes whose last pixels belong to them."""
    height, width = min(one[2], other[2]) - max(one[0], other[0]) + 1, min(one[3], other[3]) - max(one[1], other[1]) + 1
    shared = max(0, height) * max(0, width)
    areas = [(y1 - y0 + 1) * (x1 - x0 + 1) for y0, x0, y1, x1 in (one, other)]
    return shared / (sum(areas) - shared)


def _line(y0: int, x0: int, y1: int, x1: int) -> tuple[Ints, Ints]:
    """Pixels of a straight line, both ends included (Bresenham 1965): one per step along the longer extent."""
    height, width = abs(y1 - y0), abs(x1 - x0)
    long, short = max(height, width), min(height, width)
    across, error = np.zeros(long + 1, dtype=np.int64), 2 * short - long
    for step in range(long):
        across[step + 1] = across[step] + (error >= 0)
        error += 2 * short - 2 * long * (error >= 0)
    along = np.arange(long + 1)
    down, right = (along, across) if height > width else (across, along)
    return y0 + np.sign(y1 - y0) * down, x0 + np.sign(x1 - x0) * right


def _rough(mask: Mask) -> Mask:
    """Where the blurred mask is above its mean."""
    steps = np.arange(-REACH, REACH + 1)
    kernel = np.exp(-0.5 * (steps / SIGMA) ** 2)
    kernel /= kernel.sum()
    blurred = mask.astype(np.float64)
    for axis in (0, 1):
        padding = [(REACH, REACH) if axis == one else (0, 0) for one in (0, 1)]
        padded = np.pad(blurred, padding, mode="symmetric")
        length = mask.shape[axis]
        blurred = sum(weight * padded.take(range(step, step + length), axis) for step, weight in enumerate(kernel))
    return np.asarray(blurred > blurred.mean())


def parts_of(mask: Mask) -> list[Part]:
    """Parts of a mask (H, W) that touch at sides or corners, those of more than `SMALLEST` pixels, in the order of their first pixels."""
    found = parts(mask)
    result = []
    for small, (left, top) in found.crops(np.flatnonzero(found.areas > SMALLEST).tolist()):
        rows, columns = np.nonzero(small)
        box = (top, left, top + small.shape[0], left + small.shape[1])
        result.append(Part(box, (top + float(rows.mean()), left + float(columns.mean()))))
    return result

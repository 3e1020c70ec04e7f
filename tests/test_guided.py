"""Guided enlargement follows the photo's edges, and changes nothing where there are none to follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from promptseg import Masks, Text
from promptseg.guided import Guide
from promptseg.postprocess import enlarge


def disc(side: int = 240) -> NDArray[np.bool_]:
    rows, columns = np.indices((side, side)) - side / 2
    return np.hypot(rows * 1.4, columns - 15) < side / 4


def coarse(mask: NDArray[np.bool_], grid: int, shift: int = 0) -> NDArray[np.float32]:
    shifted = np.roll(mask, shift, axis=1).astype(np.float32)
    shares: torch.Tensor = F.adaptive_avg_pool2d(torch.from_numpy(shifted)[None], (grid, grid))[0]
    return shares.clamp(0.02, 0.98).logit().numpy()


def painted(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(scale=8, size=(*mask.shape, 3))
    return (np.where(mask[..., None], (200, 80, 60), (60, 120, 190)) + noise).clip(0, 255).astype(np.uint8)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("grid", [16, 24, 40])
def test_cells_and_photo_both_sharpen_the_edge(grid: int) -> None:
    mask = disc()
    logits = coarse(mask, grid)
    bilinear = iou(enlarge(logits, (240, 240)) > 0, mask)
    blank = iou(Guide(np.zeros((240, 240, 3), np.uint8)).enlarge(logits) > 0, mask)
    guided = iou(Guide(painted(mask)).enlarge(logits) > 0, mask)
    assert guided >= blank > bilinear
    assert guided > 0.97


@pytest.mark.parametrize("shift", [2, 3, 5])
def test_the_photo_mends_a_misplaced_edge(shift: int) -> None:
    mask = disc()
    logits = coarse(mask, 24, shift=shift)
    bilinear = iou(enlarge(logits, (240, 240)) > 0, mask)
    blank = iou(Guide(np.zeros((240, 240, 3), np.uint8)).enlarge(logits) > 0, mask)
    assert iou(Guide(painted(mask)).enlarge(logits) > 0, mask) > max(blank, bilinear) + 5e-4


@pytest.mark.parametrize("value", [-6.0, -0.4, 0.4, 6.0])
def test_a_flat_map_stays_flat(value: float) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    found = Guide(photo).enlarge(np.full((6, 8), value, np.float32))
    np.testing.assert_allclose(found, value, rtol=0.2)


@pytest.mark.parametrize(("size", "grid"), [((1, 1), (5, 5)), ((30, 40), (90, 120)), ((700, 20), (9, 9)), ((20, 30), (600, 800))])
def test_any_size_and_grid(size: tuple[int, int], grid: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    found = Guide(np.zeros((*size, 3), np.uint8)).enlarge(logits)
    assert found.shape == size
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_results_use_it() -> None:
    mask = disc()
    logits = coarse(mask, 16)[None]
    result = Masks.from_logits(logits, (240, 240), [Text("disc")], upsample="guided", photo=painted(mask))
    plain = Masks.from_logits(logits, (240, 240), [Text("disc")])
    assert iou(result[0].mask, mask) > iou(plain[0].mask, mask)
    assert np.array_equal(result[0].mask, result[0].probabilities > 0.5)

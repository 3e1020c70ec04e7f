"""Photos and masks on PSALM's grid. Exact pixels: tests/golden/psalm."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.models.psalm.photos import MEAN, PADDING, STD, fit_mask, fit_photo, fit_region, fitted, polygon_mask, to_input


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (48, 64)), ((640, 480), (64, 48)), ((64, 64), (64, 64)), ((333, 500), (43, 64)), ((1, 5000), (1, 64))],
)
def test_the_longer_side_fills_the_grid(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(size, 64) == expected


def test_padding_is_grey_and_masks_are_empty_there() -> None:
    photo = np.full((32, 64, 3), 200, dtype=np.uint8)
    square = fit_photo(photo, 64)
    assert (square[:32] == 200).all()
    assert (square[32:] == PADDING).all()
    pixels = to_input(photo, 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels[0, 0, 0].item() == pytest.approx((200 - MEAN[0]) / STD[0], abs=1e-5)
    mask = fit_mask(np.ones((32, 64), dtype=np.bool_), 64)
    assert mask[:32].all()
    assert not mask[32:].any()


@pytest.mark.parametrize(("y", "x"), [(301, 401), (0, 0), (479, 639), (105, 63)])
def test_what_is_pointed_at_never_vanishes(y: int, x: int) -> None:
    mask = np.zeros((480, 640), dtype=np.bool_)
    assert not fit_region(mask, 64).any()
    mask[y, x] = True
    assert np.argwhere(fit_region(mask, 64)).tolist() == [[y // 10, x // 10]]
    mask[y - y % 10 : y - y % 10 + 10, x - x % 10 : x - x % 10 + 20] = True
    assert np.array_equal(fit_region(mask, 64), fit_mask(mask, 64))


def test_polygons_are_scaled_before_they_are_filled() -> None:
    half = polygon_mask([np.array([[0.0, 0], [64, 0], [64, 128], [0, 128]])], (128, 128), 64)
    assert half[:, :32].all()
    assert not half[:, 32:].any()

"""Crops of annotated photos: what window they take, and how it is stretched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from promptseg.data.asked_crops import TrainingPhoto, crop

JITTER = 0.25  # of a window's proportions, in logarithms of height to width
ROUNDING = 0.1


def _ruled(height: int, width: int) -> TrainingPhoto:
    """A photo that tells where its pixels lie: rows in the first channel, columns in the second, both of 255."""
    rows, columns = torch.arange(height)[:, None].expand(height, width), torch.arange(width)[None].expand(height, width)
    image = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    masks = (columns >= width // 2)[None].to(torch.uint8)
    return TrainingPhoto("ruled", "1", image, ("right",), masks, torch.zeros(height, width, dtype=torch.bool), ())


def _extent(pixels: Tensor) -> tuple[float, float]:
    """Height and width of the window, in pixels of the ruled photo."""
    high, wide = ((channel.max() - channel.min()).item() * 255 + 1 for channel in pixels[:2])
    return high, wide


@given(st.integers(0, 10_000), st.sampled_from([(120, 200), (200, 120), (160, 160), (60, 240)]), st.booleans())
def test_a_crop_has_its_photos_proportions_or_is_about_square(seed: int, size: tuple[int, int], stretched: bool) -> None:
    pixels, _, _ = crop(_ruled(*size), 256, np.random.default_rng(seed), stretched=stretched)
    assert pixels.shape == (3, 256, 256)
    high, wide = _extent(pixels)
    bounded = high >= size[0] - 1 or wide >= size[1] - 1 or min(high, wide) < 33  # a side of the photo, or the smallest side, decides
    usual = size[0] / size[1] if stretched else 1.0
    assert bounded or abs(np.log(high / wide / usual)) < JITTER + ROUNDING


@pytest.mark.parametrize("stretched", [True, False])
def test_a_quarter_of_the_crops_are_whole_photos_and_masks_stay_with_their_pixels(stretched: bool) -> None:
    photo, whole = _ruled(120, 200), 0
    for seed in range(200):
        pixels, masks, _ = crop(photo, 64, np.random.default_rng(seed), stretched=stretched)
        high, wide = _extent(pixels)
        whole += high > 100 and wide > 166  # but for the jitter
        right = pixels[1] * 255 >= 100
        assert (right != masks[0].bool()).float().mean() < 0.05
    assert 30 < whole < 90

"""Network input equals what CLIPSeg's quick start and Hugging Face's processor compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from promptseg.contracts import Preprocess, View
from promptseg.images import to_pixels

PREPROCESS = Preprocess(size=352)
MEAN, STD = torch.tensor(PREPROCESS.mean)[:, None, None], torch.tensor(PREPROCESS.std)[:, None, None]


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(480, 640), (100, 77), (1, 1), (7, 3000), (352, 352)])
def test_quick_start_order(size: tuple[int, int]) -> None:
    """Scale, normalise, then sample without antialiasing."""
    pixels = photo(*size)
    expected = (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - MEAN) / STD
    expected = F.interpolate(expected[None], (352, 352), mode="bilinear", align_corners=False)[0]
    got = to_pixels(pixels, View((0, 0, size[1], size[0]), (352, 352), (352, 352)), PREPROCESS)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


def test_hugging_face_order() -> None:
    """Pillow's antialiased filter on bytes first."""
    pixels = photo(300, 200)
    resized = np.array(Image.fromarray(pixels).resize((352, 352), Image.Resampling.BILINEAR))
    expected = (torch.from_numpy(resized).permute(2, 0, 1).float() / 255 - MEAN) / STD
    got = to_pixels(pixels, View((0, 0, 200, 300), (352, 352), (352, 352)), Preprocess(size=352, antialias=True))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("antialias", [False, True])
def test_a_window_is_the_crop_padded_with_the_mean(antialias: bool) -> None:
    pixels, preprocess = photo(60, 80), Preprocess(size=32, antialias=antialias)
    got = to_pixels(pixels, View((10, 5, 70, 45), (20, 30), (32, 32)), preprocess)
    alone = to_pixels(np.ascontiguousarray(pixels[5:45, 10:70]), View((0, 0, 60, 40), (20, 30), (20, 30)), preprocess)
    assert got.shape == (3, 32, 32)
    assert torch.equal(got[:, :20, :30], alone)
    assert not got[:, 20:].any()
    assert not got[:, :, 30:].any()

"""Masks for the tests of results: hypothesis strategies and a small photo."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptseg import Masks, Text
from promptseg.masks import Mask


@st.composite
def masks(draw: st.DrawFn, side: int = 12) -> NDArray[np.bool_]:
    """(H, W) bool of every density, empty and full ones too."""
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 0.6, 0.9, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random((height, width)) < density


def smooth_logits(count: int, grid: tuple[int, int] = (9, 11), seed: int = 0) -> NDArray[np.float32]:
    """(N, h, w) logits of blobs."""
    return np.random.default_rng(seed).normal(size=(count, *grid)).astype(np.float32)


def photo(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """A colourful noise photo."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def three(height: int = 60, width: int = 80) -> Masks:
    """Two blobs with holes and a prompt that is nowhere."""
    logits = smooth_logits(3)
    logits[2] = -5
    prompts = [Text("a dog"), Text("grass/öl: <b>&"), Text("a unicorn")]
    return Masks.from_logits(logits, (height, width), prompts, photo=photo(height, width), model="test")


def of_array(array: NDArray[np.bool_], label: str = "thing", score: float = 0.5) -> Masks:
    """One mask of one's own."""
    return Masks([Mask.from_array(array, label, score=score)], (array.shape[0], array.shape[1]))

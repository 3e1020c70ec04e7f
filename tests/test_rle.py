"""Our run-length code is COCO's, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from masks_of import masks
from promptseg.errors import ImageError
from promptseg.rle import Rle


@settings(deadline=None, max_examples=300)
@given(masks())
def test_round_trip_and_pycocotools(mask: NDArray[np.bool_]) -> None:
    runs = Rle.encode(mask)
    reference = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert runs.to_string() == reference["counts"].decode()
    assert np.array_equal(runs.decode(), mask)
    again = Rle.from_string(runs.to_string(), runs.size)
    assert np.array_equal(again.counts, runs.counts)
    assert runs.area == mask.sum()
    ys, xs = np.nonzero(mask)
    assert runs.box == ((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None)


@settings(deadline=None)
@given(masks(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_crop_is_encoded_in_its_place(mask: NDArray[np.bool_], top: int, bottom: int, left: int, right: int) -> None:
    whole = np.pad(mask, ((top, bottom), (left, right)))
    placed = Rle.encode(mask, (whole.shape[0], whole.shape[1]), (left, top))
    assert np.array_equal(placed.counts, Rle.encode(whole).counts)


def test_long_runs_keep_all_their_bits() -> None:
    mask = np.zeros((5000, 7000), dtype=bool)
    mask[4999, 6999] = mask[0, 0] = True
    runs = Rle.encode(mask)
    assert runs.counts.tolist() == [0, 1, 5000 * 7000 - 2, 1]
    assert np.array_equal(Rle.from_string(runs.to_string(), (5000, 7000)).counts, runs.counts)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=20), st.binary(max_size=20)))
def test_damaged_counts_are_an_image_error(counts: str | bytes) -> None:
    try:
        runs = Rle.from_string(counts, (3, 4))
    except ImageError:
        return
    assert runs.counts.sum() == 12


def test_runs_must_cover_the_mask() -> None:
    with pytest.raises(ImageError, match=r"cover 3 pixels, but 2x2 are 4"):
        Rle((2, 2), np.array([1, 2], dtype=np.uint32))

"""Windows of a photo, and putting them together without seams."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.contracts import DenseLogits, Options, Preprocess, View
from promptseg.nn.views import merge, views

SQUARE = Preprocess(size=64, multiple=16)
sides = st.integers(1, 700)


def plane(view: View, scale: float = 1.0) -> DenseLogits:
    """Logits of a window at ``scale`` times its input: x + 1000 y of the photo at each sample's centre; what shows padding is far off."""
    x0, y0, x1, y1 = view.box
    h, w = (round(side * scale) for side in view.shape)
    content_h, content_w = (max(1, round(side * scale)) for side in view.content)
    y = y0 + (torch.arange(h) + 0.5) * (y1 - y0) / content_h
    x = x0 + (torch.arange(w) + 0.5) * (x1 - x0) / content_w
    values = x[None] + 1000 * y[:, None]
    values[content_h:] = values[:, content_w:] = 1e9
    return DenseLogits(values[None, None].float())


def test_stretch_is_the_default_and_fills_a_square() -> None:
    (view,) = views((480, 640), Options(), SQUARE)
    assert view == View((0, 0, 640, 480), (64, 64), (64, 64))


def test_letterbox_pads_at_the_right_or_below() -> None:
    (view,) = views((480, 640), Options(fit="letterbox"), SQUARE)
    assert (view.content, view.shape) == ((48, 64), (64, 64))
    (view,) = views((640, 480), Options(fit="letterbox", size=128), SQUARE)
    assert (view.content, view.shape) == ((128, 96), (128, 128))


def test_native_keeps_the_aspect_in_whole_patches() -> None:
    (view,) = views((480, 640), Options(fit="native", size=352), SQUARE)
    assert view.content == view.shape == (272, 352)  # 264 is no multiple of 16


@given(sides, sides, st.sampled_from(["stretch", "letterbox", "native"]), st.integers(16, 300))
@settings(max_examples=60, deadline=None)
def test_inputs_are_whole_patches_around_their_content(height: int, width: int, fit: str, size: int) -> None:
    (view,) = views((height, width), Options(fit=fit, size=size), SQUARE)  # type: ignore[arg-type]
    assert all(side % 16 == 0 and side > 0 for side in view.shape)
    assert all(0 < content <= shape for content, shape in zip(view.content, view.shape, strict=True))


@given(sides, sides, st.integers(16, 400), st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_tiles_cover_every_pixel_and_share_what_was_asked(height: int, width: int, tile: int, overlap: float) -> None:
    covered = torch.zeros(height, width, dtype=torch.int)
    shown = views((height, width), Options(tile=tile, overlap=overlap), SQUARE)
    for view in shown:
        x0, y0, x1, y1 = view.box
        assert (x1 - x0, y1 - y0) == (min(tile, width), min(tile, height))
        covered[y0:y1, x0:x1] += 1
    assert int(covered.min()) >= 1
    starts = sorted({view.box[0] for view in shown})
    assert all(b - a <= max(1, tile * (1 - overlap)) + 1 for a, b in pairwise(starts))


@given(st.integers(20, 150), st.integers(20, 150), st.integers(24, 120), st.sampled_from([0, 0.1, 0.25, 0.5, 0.8]))
@settings(max_examples=25, deadline=None)
def test_tiles_that_agree_merge_into_what_they_agree_on(height: int, width: int, tile: int, overlap: float) -> None:
    shown = views((height, width), Options(tile=tile, overlap=overlap), SQUARE)
    constant = [DenseLogits(torch.full((1, 2, 16, 16), 3.0)) for _ in shown]
    merged = merge(constant, shown, (height, width)).logits
    torch.testing.assert_close(merged, torch.full_like(merged, 3.0))


@pytest.mark.parametrize("overlap", [0.25, 0.6])
def test_a_slope_stays_a_slope_across_tiles(overlap: float) -> None:
    """A seam would show as a step: the merged map of a plane is that plane, but at the very edge, where sampling is clamped."""
    size = (300, 420)
    shown = views(size, Options(tile=128, overlap=overlap), SQUARE)
    assert len(shown) > 6
    merged = merge([plane(view) for view in shown], shown, size).logits[0, 0]
    assert merged.shape == (150, 210)  # tiles of 128 pixels are shown at 64
    y, x = ((torch.arange(n) + 0.5) * 2 for n in merged.shape)
    torch.testing.assert_close(merged[1:-1, 1:-1], (x[None] + 1000 * y[:, None])[1:-1, 1:-1], rtol=1e-3, atol=600)
    steps = merged[1:-1, 100].diff()
    assert float(steps.min()) > 0
    assert float(merged[75, 1:-1].diff().min()) > 0


def test_merging_never_exceeds_the_photos_own_resolution() -> None:
    shown = views((60, 90), Options(tile=32), SQUARE)
    assert merge([plane(view) for view in shown], shown, (60, 90)).logits.shape == (1, 1, 60, 90)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, (48, 64)), (0.5, (24, 32)), (2.0, (96, 128))])
def test_padding_is_cut_off_at_any_output_scale(scale: float, expected: tuple[int, int]) -> None:
    shown = views((480, 640), Options(fit="letterbox"), SQUARE)
    merged = merge([plane(view, scale) for view in shown], shown, (480, 640)).logits
    assert merged.shape[-2:] == expected
    assert float(merged.max()) < 1e9


def test_letterboxed_tiles_show_no_padding() -> None:
    shown = views((40, 400), Options(tile=100, fit="letterbox"), SQUARE)
    assert shown[0].content == (26, 64)
    assert float(merge([plane(view) for view in shown], shown, (40, 400)).logits.max()) < 1e9


def test_one_tile_is_held_at_a_time_and_the_most_present_wins() -> None:
    shown = views((200, 200), Options(tile=80), SQUARE)
    alive = 0

    def lazily() -> Iterator[DenseLogits]:
        nonlocal alive
        for index, _ in enumerate(shown):
            alive += 1
            yield DenseLogits(torch.zeros(1, 1, 8, 8), torch.tensor([[float(index)]]))

    merged = merge(lazily(), shown, (200, 200))
    assert alive == len(shown)
    assert merged.presence is not None
    assert merged.presence.tolist() == [[len(shown) - 1.0]]


def test_a_missing_tile_is_an_error() -> None:
    shown = views((200, 200), Options(tile=80), SQUARE)
    with pytest.raises(ValueError, match="zip"):
        merge([DenseLogits(torch.zeros(1, 1, 8, 8))], shown, (200, 200))


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 1)])
def test_extreme_photos(size: tuple[int, int]) -> None:
    for options in (Options(), Options(fit="letterbox"), Options(fit="native"), Options(tile=64)):
        shown = views(size, options, SQUARE)
        merged = merge([plane(view) for view in shown], shown, size).logits
        assert min(merged.shape[-2:]) >= 1
        assert bool(torch.isfinite(merged).all())

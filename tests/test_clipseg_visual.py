"""Visual prompts against OpenCV and against what the published code is described to do; the reference cases are in `tests/golden`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.models.clipseg.prompts import TECHNIQUES, AttentionTechnique, technique
from promptseg.models.clipseg.visual import (
    BLEND_MODES,
    blend,
    crop_mask,
    denormalise,
    flood,
    gaussian_blur,
    img_preprocess,
    normalise,
    object_box,
    object_crop,
    outline_of,
    pad_to_square,
)
from promptseg.models.clipseg.wordings import TEMPLATE_SETS, sample_wordings

seeds = st.integers(0, 2**32 - 1)


def random_mask(seed: int, kind: str) -> NDArray[np.bool_]:
    """Noise, blobs or ellipses, of any small size."""
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 60, 2)
    if kind == "noise":
        return np.asarray(rng.random((h, w)) < rng.random())
    if kind == "blobs":
        return np.asarray(cv2.GaussianBlur(rng.random((h, w)).astype(np.float32), (7, 7), 2) > 0.5)
    mask = np.zeros((h, w), np.uint8)
    for _ in range(3):
        centre, axes = rng.integers(0, 60, 2).tolist(), rng.integers(1, 25, 2).tolist()
        cv2.ellipse(mask, centre, axes, float(rng.random() * 180), 0, 360, 1, int(rng.choice([-1, 3])))
    return mask > 0


def opencv_outline(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(drawn, contours, -1, thickness=5, color=(1, 1, 1))
    return drawn


@given(seeds, st.sampled_from(["noise", "blobs", "ellipses"]))
@settings(max_examples=150, deadline=None)
def test_outline_is_opencvs_to_the_pixel(seed: int, kind: str) -> None:
    mask = random_mask(seed, kind)
    np.testing.assert_array_equal(outline_of(torch.from_numpy(mask)).numpy(), opencv_outline(mask))


@given(seeds, st.floats(0.3, 5))
@settings(max_examples=40, deadline=None)
def test_blur_is_opencvs(seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(*rng.integers(1, 50, 2), 3)).astype(np.float32)
    expected = cv2.GaussianBlur(image, (15, 15), sigma)
    blurred = gaussian_blur(torch.from_numpy(image).permute(2, 0, 1), sigma).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(blurred, expected.reshape(image.shape), atol=2e-6)


def test_grey_is_opencvs() -> None:
    image = torch.rand(3, 20, 30)
    mask = torch.zeros(20, 30)
    grey = denormalise(img_preprocess(normalise(image), mask, colorize=True))[0]
    expected = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(grey.numpy(), expected, atol=1e-5)


def test_a_spiral_is_flooded_to_its_end() -> None:
    free = torch.zeros(21, 21, dtype=torch.bool)
    y, x, step, length = 0, 0, 0, 20
    free[0, 0] = True
    while length > 0:
        for _ in range(2 if step else 3):
            dy, dx = ((0, 1), (1, 0), (0, -1), (-1, 0))[step % 4]
            for _ in range(length):
                y, x = y + dy, x + dx
                free[y, x] = True
            step += 1
        length -= 2 if step > 3 else 0
    assert bool((flood(free) == free).all())
    assert not bool(flood(~free).any())  # its start is a wall now


def picture() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.zeros(48, 48)
    mask[10:30, 16:28] = 1
    return normalise(torch.rand(3, 48, 48)), mask


def test_every_mode_of_the_published_function_has_its_shape() -> None:
    image, mask = picture()
    for mode in BLEND_MODES:
        parts = blend(image, mask, mode, 40)
        size = {"crop": 40, "crop_blur_highlight": 40, "crop_blur_highlight352": 352}.get(mode, 48)
        assert parts[0].shape == (4 if mode == "concat" else 3, size, size), mode
        assert len(parts) == (2 if mode.startswith("separate") else 1)
    assert torch.equal(blend(image, mask, None)[0], image)


@pytest.mark.parametrize("mode", ["crop_everything", "sharpen", "blur_highlight_twice", ""])
def test_unknown_modes_are_refused_with_the_known_ones(mode: str) -> None:
    with pytest.raises(PromptError, match="blur3_highlight01"):
        blend(*picture(), mode)


def test_darkening_is_towards_the_mean_colour() -> None:
    image, mask = picture()
    dark = img_preprocess(image, mask, bg_fac=0)
    assert not bool((dark * (1 - mask)).any())
    assert torch.equal(dark * mask, image * mask)
    np.testing.assert_allclose(denormalise(dark)[:, 0, 0], [0.485, 0.456, 0.406], atol=1e-6)


def test_brightness_changes_the_given_image_as_published() -> None:
    image, mask = picture()
    before = image.clone()
    img_preprocess(image, mask, brightness=0.5)
    torch.testing.assert_close(image, before * 0.5)
    img_preprocess(image, mask, blur=3, outline=True, center_context=None)
    torch.testing.assert_close(image, before * 0.5)


def test_boxes() -> None:
    _, mask = picture()
    assert object_box(mask) == (16, 28, 10, 30)
    assert object_box(mask, context=0.5) == (10, 34, 0, 40)
    assert object_box(mask, square=True) == (6, 26, 10, 30)
    assert object_box(torch.zeros(5, 5)) == (0, 5, 0, 5)
    assert object_box(torch.ones(4, 8)) == (0, 4, 0, 8)  # height and width swapped, as published


def test_crops_are_padded_with_the_mean_colour_smaller_half_first() -> None:
    image, mask = picture()
    crop = crop_mask(image, mask)
    assert crop.shape == (3, 20, 12)
    padded = pad_to_square(torch.ones(3, 2, 5))
    assert padded[0, :, 0].tolist() == [0, 1, 1, 0, 0]
    assert object_crop(image, mask, 0.1, 96).shape == (3, 96, 96)


def test_every_technique_draws_a_picture_or_masks_attention() -> None:
    image, mask = picture()
    for name in TECHNIQUES:
        show = technique(name, 12)
        if isinstance(show, AttentionTechnique):
            assert name.startswith("attention")
            continue
        shown = show(image, mask)
        assert shown.shape[0] == 3
        assert shown.shape[1] == shown.shape[2]
        assert bool(torch.isfinite(shown).all())


def test_attention_in_one_block() -> None:
    assert technique("attention_cls@11", 12) == AttentionTechnique("cls_token", (11,))
    assert technique("attention_all", 12) == AttentionTechnique("all")
    for name in ("attention_cls@12", "attention_cls@", "attention_all@x"):
        with pytest.raises(PromptError, match="@0 to attention_"):
            technique(name, 12)


@pytest.mark.parametrize("name", ["crop_blur", "outline@3", "attention"])
def test_unknown_techniques_are_refused_with_the_allowed_ones(name: str) -> None:
    with pytest.raises(PromptError, match=r"allowed: image_only.*crop_blur_highlight352.*attention_cls@BLOCK"):
        technique(name, 12)


def test_wordings_are_drawn_with_replacement() -> None:
    torch.manual_seed(0)
    wordings, indices = sample_wordings(["cat"] * 50, TEMPLATE_SETS["shuffle"])
    assert set(indices) == {0, 1, 2, 3}
    assert set(wordings) == {template.format("cat") for template in TEMPLATE_SETS["shuffle"]}
    assert sample_wordings([], TEMPLATE_SETS["plain"]) == ([], [])

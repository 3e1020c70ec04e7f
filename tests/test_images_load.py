"""Whatever people call a photo: decoded upright to RGB, or refused with one readable sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from promptseg import images
from promptseg.errors import ImageError

GRADIENT = np.stack([*np.meshgrid(np.arange(0, 240, 6), np.arange(0, 180, 6)), np.full((30, 40), 90)], axis=-1).astype(np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claiming(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header claims a size."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)) + chunk(b"IDAT", b"")


def deep_png(values: np.ndarray) -> bytes:
    """(H, W, 3 or 4) uint16 as a PNG file, which Pillow reads but does not write."""
    height, width, channels = values.shape
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def deep_tiff(values: np.ndarray) -> bytes:
    """(H, W, 3 or 4) uint16 as an uncompressed TIFF file."""
    height, width, channels = values.shape
    content = values.astype("<u2").tobytes()
    tags = {256: width, 257: height, 259: 1, 262: 2, 273: 16, 277: channels, 278: height, 279: len(content), 284: 1}
    tags |= {338: 2} if channels == 4 else {}  # the fourth is transparency
    entries = [(tag, 4, 1, value) for tag, value in tags.items()] + [(258, 3, channels, 8)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    bits = struct.pack("<4H", 16, 16, 16, 16)
    head = b"II*\0" + struct.pack("<I", 16 + len(content)) + bits
    return head + content + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "JPEG", "GIF"])
def test_every_format_gives_the_same_photo(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    photo = images.load(encoded(Image.fromarray(GRADIENT), kind, **options))
    assert photo.shape == (30, 40, 3)
    assert photo.dtype == np.uint8
    tolerance = {"JPEG": 8, "GIF": 40}.get(kind, 0)
    assert np.abs(photo.astype(int) - GRADIENT).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation: int, kind: str) -> None:
    """The decoded photo is upright whichever of the eight ways the camera was held."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = (250, 20, 20)
    upright[16:, 32:] = (20, 20, 250)
    turn = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)  # the inverse of each orientation is stored
    stored = Image.fromarray(upright) if turn is None else Image.fromarray(upright).transpose(images.UPRIGHT[turn])
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    photo = images.load(encoded(stored, kind, exif=exif.tobytes(), **({"quality": 95} if kind in ("JPEG", "WEBP") else {})))
    assert photo.shape == (32, 48, 3)
    assert np.abs(photo.astype(int) - upright).mean() < 4


def test_deep_greys_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert images.load(encoded(Image.fromarray(values), "PNG"))[0, :, 0].tolist() == [0, 1, 128, 255]
    assert images.load(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]
    assert images.load(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ImageError, match="values from 0 to 70000"):
        images.load(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))
    with pytest.raises(ImageError, match="not finite"):
        images.load(Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)))


@pytest.mark.parametrize("write", [deep_png, deep_tiff])
def test_deep_colours_are_scaled_not_clipped(write: Callable[[np.ndarray], bytes]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    values[0, :4, :3] = np.array([0, 257, 32768, 65535])[:, None]
    colours = images.load(write(values[..., :3]))
    assert colours.shape == (5, 7, 3)
    assert np.abs(colours - values[..., :3] / 257).max() <= 1
    assert colours[0, :4, 0].tolist() == [0, 1, 128, 255]
    alpha = values[..., 3:] / 65535
    assert np.abs(images.load(write(values)) - (values[..., :3] / 257 * alpha + 255 * (1 - alpha))).max() < 3


@pytest.mark.parametrize("deep", [False, True])
def test_a_transparent_grey_lies_on_white(deep: bool) -> None:
    greys = np.array([[0, 5, 65535 if deep else 255]], dtype=np.uint16 if deep else np.uint8)
    shown = images.load(encoded(Image.fromarray(greys), "PNG", transparency=0))
    assert shown[0, :, 0].tolist() == [255, 0 if deep else 5, 255]


def test_transparency_lies_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 255, 128)
    assert images.load(encoded(Image.fromarray(rgba), "PNG"))[0, :, 0].tolist() == [255, 0, 127]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert images.load(encoded(palette, "PNG"))[0].tolist() == [[10, 20, 30], [200, 100, 50]]
    assert images.load(encoded(palette, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [200, 100, 50]]
    assert images.load(Image.fromarray(rgba).convert("LA")).shape == (1, 3, 3)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert images.load(Image.new("RGBA" if mode == "RGBa" else "LA" if mode == "La" else mode, (5, 4)).convert(mode)).shape == (4, 5, 3)


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        photo = images.load(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert photo[0, 0, 0] > 240, kind
        assert photo[0, 0, 2] < 16, kind


def test_paths_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "Ünïcode 照片 🐕" / "ein hund.png"
    file.parent.mkdir()
    Image.fromarray(GRADIENT).save(file)
    windows = str(file).replace("/", "\\")
    for path in (file, str(file), os.fsencode(file).decode(), windows, PureWindowsPath(windows)):
        assert np.array_equal(images.load(path), GRADIENT)


@pytest.mark.parametrize("shape", [(1, 1), (3, 20000), (20000, 3)])
def test_extreme_shapes_work(shape: tuple[int, int]) -> None:
    photo = images.load(encoded(Image.new("RGB", (shape[1], shape[0]), "red"), "PNG"))
    assert photo.shape == (*shape, 3)


def test_arrays_and_tensors() -> None:
    assert images.load(GRADIENT) is GRADIENT
    assert np.array_equal(images.load(GRADIENT[:, :, 0]), np.repeat(GRADIENT[:, :, :1], 3, axis=2))
    tensor = torch.from_numpy(GRADIENT.copy()).permute(2, 0, 1)
    for value in (tensor, tensor.float() / 255, tensor.double() / 255):
        assert np.array_equal(images.load(value), GRADIENT)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (GRADIENT.astype(np.float32), "uint8, not float32"),
        (GRADIENT[None], r"\(H, W, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels.*at least 1x1"),
        (torch.zeros(4, 4, 3), r"\(3, H, W\)"),
        (torch.full((3, 2, 2), float("nan")), "NaN"),
        (torch.full((3, 2, 2), 200.0), "0..1"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), "int64"),
        (b"", "empty"),
        (b"not a picture", "not a picture"),
        ("https://example.org/a.jpg", "nothing is downloaded"),
        ("data:image/png;base64,AAAA", "nothing is downloaded"),
        ("a\0b.png", "zero byte"),
        ("/nowhere/photo.jpg", "/nowhere/photo.jpg does not exist"),
        (".", "folder"),
        (3, "int; allowed are"),
        (None, "NoneType; allowed are"),
        (["a.jpg"], "list; allowed are"),
    ],
)
def test_bad_input_is_named(value: object, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        images.load(value)  # type: ignore[arg-type]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        file = tmp_path / f"cut.{kind.lower()}"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        data = encoded(Image.fromarray(noise), kind)
        file.write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(ImageError, match=rf"cut\.{kind.lower()}.*(copy it again|save it as)"):
            images.load(file)
    empty = tmp_path / "nothing.jpg"
    empty.touch()
    with pytest.raises(ImageError, match=r"nothing.jpg is empty"):
        images.load(empty)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    for size, limit, says in (
        ((15000, 9000), images.MAX_PIXELS, r"15000x9000 = 135\.0 million pixels, above the limit of 100 million; .* --max-pixels"),
        ((20000, 10000), images.MAX_PIXELS, r"200\.0 million pixels, above the limit of 100 million; .* --max-pixels"),
        ((50000, 10000), 400_000_000, r"500\.0 million pixels, above the limit of 400 million; .* --max-pixels"),
    ):
        with pytest.raises(ImageError, match=says):
            images.load(claiming(*size), max_pixels=limit)
    with pytest.raises(ImageError, match="max_pixels="):
        images.load(GRADIENT, max_pixels=1000)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("width", "limit"), [(9800, images.MAX_PIXELS), (20000, 400_000_000)])
def test_only_our_limit_counts(width: int, limit: int) -> None:
    """Neither Pillow's error, whose limit a user cannot set, nor its warning: the size passes, only the missing content does not."""
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        images.load(claiming(width, 10000), max_pixels=limit)
    assert "pixels" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "JPEG", "GIF"])
@pytest.mark.parametrize("theirs", [None, 100, 700, 10**6])
def test_every_format_is_read_up_to_our_limit(kind: str, theirs: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", theirs)  # the photo has 1200
    assert images.load(encoded(Image.fromarray(GRADIENT), kind), max_pixels=1200).shape == (30, 40, 3)
    with pytest.raises(ImageError, match="above the limit"):
        images.load(encoded(Image.fromarray(GRADIENT), kind), max_pixels=1199)
    assert theirs == Image.MAX_IMAGE_PIXELS


def test_threads_with_limits_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which they begin and end, Pillow has the largest, and at the end its own again."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    small, large = images.pillow_limit(1200), images.pillow_limit(5000)
    content = encoded(Image.fromarray(GRADIENT), "PNG")
    seen = []
    for step in (small.__enter__, large.__enter__, lambda: small.__exit__(None, None, None), lambda: large.__exit__(None, None, None)):
        step()
        seen.append(Image.MAX_IMAGE_PIXELS)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(images.load, content, max_pixels=1200).result().shape == (30, 40, 3)
    assert seen == [1200, 5000, 5000, 500]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow on damaged EXIF blocks
@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]))
def test_fuzzed_files_give_pixels_or_image_error(data: st.DataObject, kind: str) -> None:
    content = bytearray(encoded(Image.fromarray(GRADIENT[:8, :8]), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        photo = images.load(bytes(content[: data.draw(st.integers(1, len(content)))]), max_pixels=10**6)
    except ImageError:
        return
    assert photo.ndim == 3


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_an_image_error(content: bytes) -> None:
    with pytest.raises(ImageError):
        images.load(content)


def test_masks_count_what_is_not_zero(tmp_path: Path) -> None:
    region = np.zeros((6, 9), np.uint8)
    region[2:4, 3:7] = 1
    expected = region.astype(bool)
    palette = Image.fromarray(region).convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0])  # black on black: the index counts
    colour = Image.fromarray(np.stack([region * 0, region, region * 0], axis=-1))
    cut_out = Image.fromarray(np.dstack([np.full((6, 9, 3), 200, np.uint8), region * 255]))
    for mask in (region, expected, region.astype(np.float64), region[None], torch.from_numpy(region), Image.fromarray(region)):
        assert np.array_equal(images.load_mask(mask, (6, 9)), expected)
    for picture in (palette, colour, cut_out, Image.fromarray(region * 255).convert("1")):
        assert np.array_equal(images.load_mask(encoded(picture, "PNG")), expected)
    smeared = np.kron(region, np.ones((16, 16), np.uint8)) * 255
    assert np.array_equal(images.load_mask(encoded(Image.fromarray(smeared), "JPEG", quality=60)), smeared > 0)


def test_a_cut_out_photograph_is_a_mask_with_its_black_pixels() -> None:
    """A drawing on transparent ground is not: there black is what is not meant."""
    cut = np.random.default_rng(0).integers(0, 256, (40, 40, 4), dtype=np.uint8)
    cut[..., 3] = 0
    cut[10:30, 5:35, 3] = 200
    cut[15:20, 5:35, :3] = 0
    assert np.array_equal(images.load_mask(encoded(Image.fromarray(cut), "PNG")), cut[..., 3] > 0)
    drawn = cut.copy()
    drawn[..., :3] = 255
    drawn[15:20, 5:35, :3] = 0
    assert np.array_equal(images.load_mask(Image.fromarray(drawn)), (cut[..., 3] > 0) & (drawn[..., 0] > 0))
    whole = cut.copy()
    whole[..., 3] = 255
    assert np.array_equal(images.load_mask(Image.fromarray(whole)), whole[..., :3].any(axis=2))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.zeros((5, 5), bool), "5x5, its photo 7x6"),
        (np.full((6, 7), np.nan), "NaN"),
        (np.zeros((6, 7, 3)), r"\(H, W\)"),
        (np.array([["a"]]), r"\(H, W\)"),
        (b"x", "the mask"),
    ],
)
def test_bad_masks_are_named(mask: object, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        images.load_mask(mask, (6, 7))  # type: ignore[arg-type]


def test_a_photo_that_may_not_be_read_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(ImageError, match=r"^photo\.jpg may not be read by this user; change who may, or leave it out\.$"):
        images.load("photo.jpg")

"""From anything that is a photo to upright RGB pixels, and from there to network input. Nothing is downloaded; bad input is an ImageError.

Files may be JPEG (also multi-picture), PNG, WebP, TIFF, GIF, BMP or PNM; of several frames or pages the first is read. EXIF orientation is
applied. Transparent pixels are laid on white, the page that cut-outs are made for. 16 bits per channel are scaled to 8, never clipped.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .contracts import MAX_PIXELS, Preprocess, Size, View
from .errors import ImageError

if TYPE_CHECKING:
    import torch

    from .prompts import ImageInput, MaskInput

__all__ = ["MAX_PIXELS", "clip_pixels", "load", "load_mask", "pillow_limit", "to_pixels"]

Photo: TypeAlias = NDArray[np.uint8]  # (H, W, 3) upright RGB
BoolArray: TypeAlias = NDArray[np.bool_]

# Only what photos come in (MPO opens as JPEG): some of Pillow's other readers start programs (EPS) or read further files.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM")
ALLOWED = "a path, bytes, a PIL image, a NumPy array (H, W, 3) uint8 or a torch tensor (3, H, W)"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images
ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load(image: ImageInput, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """A photo as upright RGB, (H, W, 3) uint8.

    ``image``: path, file content as bytes, PIL image, NumPy (H, W, 3) or (H, W) uint8 (returned without a copy where possible), torch
    (3, H, W) uint8 or float 0..1. ``max_pixels`` is checked from the header, before any pixel is decoded (decompression bombs).

    Raises:
        ImageError: the file is missing, empty, truncated, no picture or too large, or the array has another type, shape or range.
    """
    if isinstance(image, np.ndarray):
        return _from_numpy(image, max_pixels)
    if _is_tensor(image):
        return _from_torch(image, max_pixels)
    with _decoded(image, max_pixels, "the photo") as (picture, name):
        return np.asarray(_to_rgb(picture, name))


def load_mask(mask: MaskInput, size: Size | None = None, *, max_pixels: int = MAX_PIXELS) -> BoolArray:
    """A region given as an image or array -> (H, W) bool: True where the value is not zero.

    In a palette picture the index counts, in a colour picture any channel, in a JPEG, whose compression smears zeros, values from 128.
    What is transparent is not in it. Of a photograph cut out on transparent ground (more than 256 colours) all else is, black as well.
    ``size`` (H, W) is the size that the mask must have, its photo's; None takes any.

    Raises:
        ImageError: as `load`, and when the size is not the photo's.
    """
    if isinstance(mask, np.ndarray) or _is_tensor(mask):
        region = _array_mask(mask)
    else:
        with _decoded(mask, max_pixels, "the mask") as (picture, _):
            region = _picture_mask(picture)
    if size is not None and region.shape != tuple(size):
        raise ImageError(f"The mask is {_extent(region)}, its photo {size[1]}x{size[0]} (width x height); they must be equal.")
    return region


def to_pixels(photo: Photo, view: View, preprocess: Preprocess) -> torch.Tensor:
    """One window of a photo as network input, (3, h, w) float32 of ``view.shape``, normalised per channel.

    ``preprocess.antialias`` False: values / 255, normalised, then sampled bilinearly (align_corners False) without antialiasing, as
    CLIPSeg's quick start does. True: Pillow's antialiased bilinear filter on 8-bit values first, as Hugging Face does. Right and bottom
    beyond ``view.content`` are filled with 0, the mean colour. Of a view with a ``window`` that part of the resized photo is shown.
    """
    import torch

    x0, y0, x1, y1 = view.box
    crop = photo[y0:y1, x0:x1]
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    if preprocess.antialias:
        resized = Image.fromarray(crop).resize((view.content[1], view.content[0]), Image.Resampling.BILINEAR)
        pixels = (np.asarray(resized, dtype=np.float32) / np.float32(255) - mean) / std
    elif preprocess.rounded:
        pixels = (resized_8bit(crop, view.content).astype(np.float32) / np.float32(255) - mean) / std
    else:
        pixels = _sample(crop, view.content, mean, std)
    if view.window is not None:
        left, top, right, bottom = view.window
        return torch.from_numpy(np.ascontiguousarray(pixels[top:bottom, left:right].transpose(2, 0, 1)))
    result = torch.zeros(3, *view.shape)
    result[:, : view.content[0], : view.content[1]] = torch.from_numpy(pixels).permute(2, 0, 1)
    return result


def resized_8bit(photo: Photo, size: Size) -> Photo:
    """A photo sampled bilinearly, without antialiasing, as OpenCV's ``resize`` does it with 8-bit values, to the last bit.

    Weights are multiples of 1/2048; products along the rows lose their last 4 bits, those along the columns their last 16.
    """
    (top, bottom, down), (left, right, across) = (_fixed_taps(source, target) for source, target in zip(photo.shape, size, strict=False))

    def rows(index: NDArray[np.int64], weight: NDArray[np.int32]) -> NDArray[np.int32]:
        band = photo[index]
        ends = [band[:, columns].astype(np.int32) for columns in (left, right)]
        row: NDArray[np.int32] = (ends[0] * (2048 - across)[:, None] + ends[1] * across[:, None]) >> 4
        return (row * weight[:, None, None]) >> 16

    return ((rows(top, 2048 - down) + rows(bottom, down) + 2) >> 2).clip(0, 255).astype(np.uint8)


def _fixed_taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """The two samples that every output position reads, and the weight of the second in 2048ths."""
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    weight = np.rint((position - first.astype(np.float32)) * np.float32(2048)).astype(np.int32)
    return first.clip(0, source - 1), (first + 1).clip(0, source - 1), weight


def clip_pixels(photo: Photo | Image.Image, size: int) -> torch.Tensor:
    """A photo as CLIP itself is shown it: (3, size, size) float32 with CLIP's own mean and standard deviation.

    The shorter side is resized to ``size`` (bicubic, on 8-bit values), the longer one cut at both ends, then made RGB (CLIP code, clip.py).
    """
    import torch

    picture = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    shorter = min(picture.size)
    scaled = picture.resize((size * picture.width // shorter, size * picture.height // shorter), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    values = np.asarray(scaled.crop((left, top, left + size, top + size)).convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy((values - np.asarray(CLIP_MEAN, np.float32)) / np.asarray(CLIP_STD, np.float32)).permute(2, 0, 1)


def _sample(crop: Photo, content: Size, mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear sampling of the normalised crop; only the rows and columns that are read get normalised, however large the photo."""
    (top, bottom, down), (left, right, across) = (_taps(source, target) for source, target in zip(crop.shape, content, strict=False))

    def rows(index: NDArray[np.int64]) -> NDArray[np.float32]:
        band = crop[index]
        ends = [(band[:, columns].astype(np.float32) / np.float32(255) - mean) / std for columns in (left, right)]
        return ends[0] * (1 - across)[:, None] + ends[1] * across[:, None]

    weight = down[:, None, None]
    return rows(top) * (1 - weight) + rows(bottom) * weight


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two samples that every output position reads and the weight of the second; float32 throughout, as torch computes them."""
    scale = np.float32(source) / np.float32(target)
    # the product in double and one rounding at the end: torch's kernels fuse the multiplication and the subtraction
    position = np.maximum(scale.astype(np.float64) * (np.arange(target) + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(position.astype(np.int64), source - 1)
    return first, np.minimum(first + 1, source - 1), position - first.astype(np.float32)


# --- files ------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _decoded(image: Any, max_pixels: int, what: str) -> Iterator[tuple[Image.Image, str]]:
    """The decoded upright first frame and its name for messages; whatever a decoder raises becomes an `ImageError`."""
    name, source = _source(image, what)
    try:
        with (
            pillow_limit(max_pixels),
            Image.open(source, formats=FORMATS) if not isinstance(source, Image.Image) else _kept(source) as picture,
        ):
            _check_size(picture.height, picture.width, max_pixels, name)
            picture.load()
            yield _turn_upright(picture), name
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture that can be read; save it as JPEG, PNG, WebP, TIFF, GIF or BMP.") from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; check the path (it is taken from {os.getcwd()}).") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder; give one picture, or the files in it as a list.") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read by this user; change who may, or leave it out.") from None
    except Image.DecompressionBombError as error:  # raised for some formats before the width and the height are known here
        pixels = next(map(int, re.findall(r"\d+", str(error))), max_pixels + 1)
        raise ImageError(f"{name} has {_beyond(pixels, max_pixels)}") from None
    except Exception as error:  # decoders meet hostile bytes with struct.error, zlib.error, SyntaxError, KeyError, ...
        raise ImageError(
            f"{name} cannot be decoded, it is damaged or cut off ({type(error).__name__}: {error}); copy it again, or leave it out."
        ) from error


class _Limit(int):
    """Pillow warns from its limit on and refuses from its double; of this number it refuses all that is larger, and never warns."""

    def __rmul__(self, _: int, /) -> int:
        return int(self)


class _PillowLimit:
    """Pillow's own limit, one for the process, raised while pictures are opened here, each of which is held to a limit of its own."""

    def __init__(self) -> None:
        self._lock, self._wanted = Lock(), list[int]()
        self._theirs: int | None = None

    @contextmanager
    def __call__(self, max_pixels: int) -> Iterator[None]:
        """At least ``max_pixels`` until the context ends; several threads may be in one."""
        with self._lock:
            self._theirs = self._theirs if self._wanted else Image.MAX_IMAGE_PIXELS
            self._wanted.append(max_pixels)
            self._set()
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(max_pixels)
                self._set()

    def _set(self) -> None:
        # never below what Pillow refuses anyway: other threads' pictures are none of ours
        own = self._theirs
        Image.MAX_IMAGE_PIXELS = _Limit(max(2 * own, *self._wanted)) if self._wanted and own is not None else own


pillow_limit = _PillowLimit()


@contextmanager
def _kept(picture: Image.Image) -> Iterator[Image.Image]:
    """The caller's own picture, which is not ours to close."""
    yield picture


def _source(image: Any, what: str) -> tuple[str, str | io.BytesIO | Image.Image]:
    """What to call the picture in messages, and what Pillow opens."""
    if isinstance(image, Image.Image):
        return getattr(image, "filename", "") or f"{what} (PIL {image.mode})", image
    if isinstance(image, (bytes, bytearray, memoryview)):
        if not len(image):
            raise ImageError(f"{what} is empty (0 bytes); give the content of a picture file.")
        return f"{what} ({len(image)} bytes)", io.BytesIO(image)
    if isinstance(image, (str, os.PathLike)):
        return _path(os.fsdecode(image))
    raise ImageError(f"{what} is a {type(image).__name__}; allowed are {ALLOWED}.")


def _path(path: str) -> tuple[str, str]:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", path):
        raise ImageError(f"{path[:80]!r} is an address; nothing is downloaded here. Save the picture and give its path, or pass its bytes.")
    if "\0" in path:
        raise ImageError(f"{path!r} is no path: it holds a zero byte. File content is passed as bytes.")
    if os.sep == "/" and "\\" in path and not os.path.exists(path):  # a path as Windows writes it
        path = path.replace("\\", "/")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise ImageError(f"{path} is empty (0 bytes); it was perhaps not copied completely.")
    return path, path


def _turn_upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a broken EXIF block does not spoil the photo."""
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except Exception:
        return picture
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if method is None:
        return picture
    upright = picture.transpose(method)
    upright.format, upright.info = picture.format, picture.info
    return upright


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Any mode -> RGB: deep greys scaled, transparency laid on white, everything else as Pillow converts it."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = _deep_to_8bit(picture, name)
        if isinstance(clear := picture.info.get("transparency"), int):  # PNG: the one value that is no part of the picture
            grey[np.asarray(picture) == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        straight = picture.convert({"La": "LA", "RGBa": "RGBA"}.get(picture.mode, picture.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), straight).convert("RGB")
    return picture.convert("RGB")


def _deep_to_8bit(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    values = np.asarray(picture)
    if not np.isfinite(values).all():
        raise ImageError(f"{name} holds values that are not finite numbers; save it with 8 or 16 bits per channel.")
    top = 1.0 if picture.mode == "F" else 65535.0
    if values.min() < 0 or values.max() > top:
        raise ImageError(
            f"{name} holds values from {values.min():g} to {values.max():g}, but its type ({picture.mode}) is read as 0 to {top:g}; "
            "save it with 8 or 16 bits per channel."
        )
    return np.rint(values * (255.0 / top)).astype(np.uint8)


def _check_size(height: int, width: int, max_pixels: int, name: str) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}); give a picture of at least 1x1.")
    if height * width > max_pixels:
        raise ImageError(f"{name} has {width}x{height} = {_beyond(height * width, max_pixels)}")


def _beyond(pixels: int, limit: int) -> str:
    return (
        f"{pixels / 1e6:.1f} million pixels, above the limit of {limit / 1e6:g} million; "
        "make it smaller, or raise the limit: promptseg.load(max_pixels=...), or --max-pixels on the command line."
    )


# --- arrays -----------------------------------------------------------------------------------------------------------------------------


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # nobody can hold a tensor without having imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _from_numpy(array: NDArray[Any], max_pixels: int) -> Photo:
    if array.dtype != np.uint8:
        hint = " Float images are scaled with (image * 255).round().astype('uint8')." if array.dtype.kind == "f" else ""
        raise ImageError(f"A NumPy photo is uint8, not {array.dtype}.{hint}")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"A NumPy photo has shape (H, W, 3), or (H, W) for greys, not {array.shape}.")
    _check_size(array.shape[0], array.shape[1], max_pixels, "The array")
    return np.ascontiguousarray(array)


def _from_torch(tensor: Any, max_pixels: int) -> Photo:
    import torch

    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ImageError(f"A torch photo has shape (3, H, W), not {tuple(tensor.shape)}.")
    _check_size(tensor.shape[1], tensor.shape[2], max_pixels, "The tensor")
    values = tensor.detach().permute(1, 2, 0)
    if tensor.is_floating_point():
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # false for NaN as well
            raise ImageError(f"A float torch photo lies in 0..1 and holds no NaN; this one spans {low:g} to {high:g}. Divide bytes by 255.")
        values = (values.float() * 255).round().to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise ImageError(f"A torch photo is uint8 or floating point, not {tensor.dtype}.")
    return np.ascontiguousarray(values.cpu().numpy())


def _array_mask(mask: Any) -> BoolArray:
    values = mask.detach().cpu().float().numpy() if _is_tensor(mask) else mask
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values.squeeze(0 if values.shape[0] == 1 else 2)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "buif":
        raise ImageError(f"A mask is an array of numbers or truth values of shape (H, W), not {values.dtype} {values.shape}.")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ImageError("The mask holds NaN; it must be zero off the thing and anything else on it.")
    return np.asarray(values != 0)


def _picture_mask(picture: Image.Image) -> BoolArray:
    if picture.mode in ("LA", "PA", "RGBA"):
        visible = np.asarray(picture.getchannel("A")) > 0
        colours = np.asarray(picture.convert("RGB"))
        return visible if not visible.all() and _photographic(colours[visible]) else visible & colours.any(axis=2)
    values = np.asarray(picture if picture.mode in ("1", "L", "P", "F") or picture.mode.startswith("I") else picture.convert("RGB"))
    on = values > 127 if picture.format in ("JPEG", "MPO") else values != 0
    return np.asarray(on.any(axis=2) if on.ndim == 3 else on)


def _photographic(colours: NDArray[np.uint8]) -> bool:
    """Whether (N, 3) colours are more than a drawing or a table of colours has."""
    red, green, blue = colours.astype(np.int32).T
    seen = np.zeros(1 << 24, np.bool_)
    seen[red << 16 | green << 8 | blue] = True
    return bool(np.count_nonzero(seen) > 256)


def _extent(array: NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"

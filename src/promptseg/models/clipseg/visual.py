"""How an example is drawn for CLIP: the visual prompts of CLIPSeg (paper, section 3.3, table 7), to the last digit of the published code.

Images are float (3, H, W), normalised with ImageNet's mean and standard deviation, so "dark" means the mean colour; masks are (H, W), 1 on
the thing, 0 elsewhere. Where the published code uses OpenCV (blur, grey, contours), the same arithmetic stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import PromptError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)  # OpenCV's weights of red, green and blue
BLUR_SIZE = 15  # of the Gaussian kernel, whatever its sigma
# What OpenCV 4 and 5 draw around every contour pixel at thickness 5: a 5x5 square with a bump of one pixel in the middle of each side.
PEN = torch.zeros(7, 7)
PEN[1:6, 1:6] = PEN[3, :] = PEN[:, 3] = 1

SINGLE_MODES = (
    "image_only",
    "image_black",
    "overlay",
    "highlight",
    "highlight2",
    "blur_highlight",
    "blur3_highlight",
    "blur3_highlight01",
    "blur_highlight_random",
    "crop",
    "crop_blur_highlight",
    "crop_blur_highlight352",
    "shape",
)
SEPARATE_MODES = ("separate", "separate_img_black", "separate_seg_ones", "separate_both_black")
BLEND_MODES = ("None", *SINGLE_MODES, "concat", *SEPARATE_MODES)


# --- blending modes -----------------------------------------------------------------------------------------------------------------------


def blend(image: Tensor, mask: Tensor, mode: str | None, image_size: int = 224) -> list[Tensor]:
    """`blend_image_segmentation` of the published data code: an image and its mask as one picture, or as several for ``separate*``.

    Args:
        image: (3, H, W) normalised.
        mask: (H, W).
        mode: one of `BLEND_MODES`; None is "None". "blur_highlight_random" draws from torch's global generator.
        image_size: side of the picture that "crop" and "crop_blur_highlight" return.

    Raises:
        PromptError: unknown mode.
    """
    mode = "None" if mode is None else mode
    if mode in SEPARATE_MODES:
        shown = torch.zeros_like(image) if mode.endswith("black") else image
        fill = {"separate_seg_ones": 1, "separate_both_black": 0}.get(mode)
        return [shown, mask.long() if fill is None else torch.full_like(mask, fill, dtype=torch.long)]
    if mode == "concat":
        return [torch.cat([image, mask[None].to(image.dtype)])]
    return [_single(image, mask.to(image.dtype), mode, image_size)]


def _single(image: Tensor, m: Tensor, mode: str, image_size: int) -> Tensor:
    if mode in ("None", "image_only"):
        return image
    if mode == "image_black":
        return torch.zeros_like(image)
    if mode == "overlay":
        return image * m
    if mode == "highlight":
        return 0.85 * image * m + 0.15 * image
    if mode == "highlight2":
        half = image / 2
        return (half + 0.1) * m + 0.3 * half
    if mode == "shape":
        return m.expand_as(image)
    if mode.startswith("crop"):
        return _crop_mode(image, m, mode, image_size)
    return _blur_mode(image, m, mode) - 0.01  # published so: a constant that only these modes subtract


def _crop_mode(image: Tensor, m: Tensor, mode: str, image_size: int) -> Tensor:
    if mode == "crop":
        return img_preprocess(image, m, blur=1, center_context=0.1, image_size=image_size)
    if mode in ("crop_blur_highlight", "crop_blur_highlight352"):
        size = 352 if mode.endswith("352") else image_size
        return img_preprocess(image, m, blur=3, center_context=0.1, bg_fac=0.1, image_size=size)
    raise _unknown(mode)


def _blur_mode(image: Tensor, m: Tensor, mode: str) -> Tensor:
    if mode == "blur_highlight_random":
        draw = draw_blur()
        return img_preprocess(image, m, blur=draw.blur, bg_fac=draw.bg_fac)
    options = {"blur_highlight": (1, 0.5), "blur3_highlight": (3, 0.5), "blur3_highlight01": (3, 0.1)}
    if mode not in options:
        raise _unknown(mode)
    blur, bg_fac = options[mode]
    return img_preprocess(image, m, blur=blur, bg_fac=bg_fac)


@dataclass(frozen=True, slots=True)
class BlurDraw:
    """What "blur_highlight_random" draws: sigma 0, 1 or 2 and the background's brightness, 0.1 to 0.9."""

    blur: int
    bg_fac: float


def draw_blur() -> BlurDraw:
    """From torch's global generator, the blur first."""
    blur = int(torch.randint(0, 3, ()))
    return BlurDraw(blur, float(0.1 + 0.8 * torch.rand(())))


def _unknown(mode: str) -> PromptError:
    return PromptError(f"{mode!r} is no way to blend an image and a mask; allowed: {', '.join(BLEND_MODES)}.")


# --- engineering of the picture -----------------------------------------------------------------------------------------------------------


def img_preprocess(
    image: Tensor,
    mask: Tensor,
    *,
    blur: float = 0,
    grayscale: bool = False,
    center_context: float | None = None,
    rect: bool = False,
    rect_color: tuple[int, int, int] = (255, 0, 0),
    rect_width: int = 2,
    brightness: float = 1.0,
    bg_fac: float = 1,
    colorize: bool = False,
    outline: bool = False,
    image_size: int = 224,
) -> Tensor:
    """The published function of the same name, in its order of steps.

    Args:
        image: (3, H, W) normalised; a ``brightness`` other than 1 is multiplied into it IN PLACE, as published.
        mask: (H, W).
        blur: sigma in pixels of the background's blur.
        grayscale: the background becomes its green channel.
        center_context: crop to the mask's box with this much context (a share of the box) and resize to ``image_size``.
        rect: draw the box (context 0.1) in ``rect_color``, raw values into normalised channels, as published.
        bg_fac: brightness of the background.
        colorize: instead of all the above the thing in red on a grey image.
        outline: draw the mask's outer contours in red, 5 pixels wide.
    """
    m = mask.to(image.dtype)
    if brightness != 1:
        image *= brightness
    background = gaussian_blur(image, blur) if blur > 0 else image
    if grayscale:
        background = background[1:2]
    out = image * m + bg_fac * background * (1 - m)
    if rect:
        _draw_rect(out, mask, rect_color, rect_width)
    if center_context is not None:
        out = object_crop(out, mask, center_context, image_size)
    if colorize:
        out = _red_on_grey(image, m, bg_fac)
    if outline:
        edge = outline_of(mask).to(image)
        out = normalise(_colour(1, 0, 0, like=image) * edge + denormalise(out) * (1 - edge))
    return out


def normalise(image: Tensor) -> Tensor:
    """(3, H, W) in 0..1 -> normalised."""
    return (image - _colour(*MEAN, like=image)) / _colour(*STD, like=image)


def denormalise(image: Tensor) -> Tensor:
    """The inverse, clamped to 0..1."""
    return (image * _colour(*STD, like=image) + _colour(*MEAN, like=image)).clamp(0, 1)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """OpenCV's `GaussianBlur` with a 15x15 kernel on (C, H, W); the border mirrors without repeating its pixel (reflect-101)."""
    offsets = torch.arange(BLUR_SIZE, dtype=torch.float64) - BLUR_SIZE // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(image)
    rows, columns = (_mirrored(length, BLUR_SIZE // 2, image.device) for length in image.shape[1:])
    padded = image[:, rows][:, :, columns][:, None]
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def outline_of(mask: Tensor) -> Tensor:
    """(H, W) -> (H, W), 1 where OpenCV draws the outermost contours of the mask at thickness 5, else 0.

    A contour runs through the mask's pixels that touch, by a side, the background that reaches the border; holes and what lies in them
    have none.
    """
    padded = F.pad(mask != 0, (1, 1, 1, 1))
    outside = flood(~padded)
    near = torch.zeros_like(outside)
    near[1:] |= outside[:-1]
    near[:-1] |= outside[1:]
    near[:, 1:] |= outside[:, :-1]
    near[:, :-1] |= outside[:, 1:]
    contour = (padded & near)[1:-1, 1:-1].float()
    drawn = F.conv2d(contour[None, None], PEN.to(mask.device)[None, None], padding=PEN.shape[0] // 2)
    return (drawn[0, 0] > 0.5).float()


def flood(free: Tensor) -> Tensor:
    """What can be reached from the top left pixel over free pixels (H, W) bool, side by side.

    Sweeps in four directions, each filling whole runs at once, until nothing changes: a few rounds for the masks of things.
    """
    reached = torch.zeros_like(free)
    reached[0, 0] = free[0, 0]
    count = -1
    while count != (count := int(reached.sum())):
        for turn in range(4):
            reached = _sweep(torch.rot90(reached, turn), torch.rot90(free, turn)).rot90(-turn)
    return reached


def _sweep(reached: Tensor, free: Tensor) -> Tensor:
    """Left to right: free pixels after a reached one, up to the next pixel that is not free."""
    place = torch.arange(1, free.shape[1] + 1, device=free.device).expand(free.shape)
    last_reached = torch.where(reached, place, 0).cummax(1).values
    last_wall = torch.where(free, 0, place).cummax(1).values
    return free & (last_reached > last_wall)


def _red_on_grey(image: Tensor, m: Tensor, bg_fac: float) -> Tensor:
    grey = (denormalise(image) * _colour(*GREY, like=image)).sum(0)
    return normalise(_colour(1, 0.2, 0.2, like=image) * grey * m + bg_fac * grey * (1 - m))


def _draw_rect(out: Tensor, mask: Tensor, color: tuple[int, int, int], width: int) -> None:
    x0, x1, y0, y1 = object_box(mask, context=0.1)
    value = _colour(*color, like=out)
    for x in (x0, x1):
        out[:, y0:y1, max(0, x - width) : x + width] = value
    for y in (y0, y1):
        out[:, max(0, y - 1) : y + width, x0:x1] = value


def _colour(red: float, green: float, blue: float, *, like: Tensor) -> Tensor:
    return like.new_tensor((red, green, blue))[:, None, None]


def _mirrored(length: int, margin: int, device: torch.device) -> Tensor:
    """Indices -margin .. length + margin - 1, reflected at the first and last until they lie inside."""
    period = max(1, 2 * (length - 1))
    index = torch.arange(-margin, length + margin, device=device) % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


# --- cropping -----------------------------------------------------------------------------------------------------------------------------


def object_box(mask: Tensor, context: float = 0.0, square: bool = False) -> tuple[int, int, int, int]:
    """The box (x0, x1, y0, y1) of the published `crop_mask`: the mask's extent and ``context`` times it on every side.

    mask (H, W). As published, the far ends are clipped with H and W swapped, so only square masks give true boxes; an empty mask gives the
    whole image. ``square`` makes the shorter side as long as the longer, starting half of that before its own start.
    """
    columns, rows = (mask != 0).any(0).int(), (mask != 0).any(1).int()
    H, W = mask.shape
    box = [int(columns.argmax()), H - int(columns.flip(0).argmax()), int(rows.argmax()), W - int(rows.flip(0).argmax())]
    x_margin, y_margin = context * (box[1] - box[0]), context * (box[3] - box[2])
    x0, x1 = int(max(0, box[0] - x_margin)), int(min(H, box[1] + x_margin))
    y0, y1 = int(max(0, box[2] - y_margin)), int(min(W, box[3] + y_margin))
    if not square:
        return x0, x1, y0, y1
    if x1 - x0 > y1 - y0:
        y0 = int(max(0, y0 - 0.5 * (x1 - x0)))
        return x0, x1, y0, y0 + x1 - x0
    x0 = int(max(0, x0 - 0.5 * (y1 - y0)))
    return x0, x0 + y1 - y0, y0, y1


def crop_mask(image: Tensor, mask: Tensor, context: float = 0.0, square: bool = False) -> Tensor:
    """(C, H, W) cut to `object_box`."""
    x0, x1, y0, y1 = object_box(mask, context, square)
    return image[:, y0:y1, x0:x1]


def pad_to_square(image: Tensor) -> Tensor:
    """(C, h, w) with zeros around it until h = w; the smaller half first."""
    h, w = image.shape[1:]
    top, left = max(0, w - h) // 2, max(0, h - w) // 2
    side = max(h, w)
    return F.pad(image, (left, side - w - left, top, side - h - top))


def object_crop(image: Tensor, mask: Tensor, context: float, image_size: int) -> Tensor:
    """The thing and its surroundings, padded with the mean colour to a square, nearest pixels, (3, image_size, image_size)."""
    padded = pad_to_square(crop_mask(image, mask, context))
    return F.interpolate(padded[None], (image_size, image_size), mode="nearest")[0]

"""Random crops of annotated photos, with what is asked of each: photos in memory, crops and colours, batches of several prompts a photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .photosets import AnnotatedPhoto

__all__ = ["MIN_VISIBLE", "Batch", "Example", "TrainingPhoto", "collate", "colour", "crop", "decoded"]

MAX_SIDE = 512  # of a photo in memory
MIN_VISIBLE = 24  # pixels of a thing in the crop below which it is neither asked for nor denied
SMALLEST_CROP = 0.12  # of the photo's area
WHOLE = 0.25  # chance of the whole photo


@dataclass(frozen=True, slots=True)
class TrainingPhoto:
    """``image`` uint8 (3, H, W); ``masks`` uint8 (M, H, W), 0/1, in the order of ``names``; ``unknown`` bool (H, W).

    ``absent``: names that are surely not there. ``distinct``: names that sound alike are different things on this photo.
    """

    source: str
    id: str
    image: Tensor
    names: tuple[str, ...]
    masks: Tensor
    unknown: Tensor
    absent: tuple[str, ...]
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One photo with K prompts: the fields of `Batch` without their first dimension, and its ``number``."""

    number: int
    pixels: Tensor
    targets: Tensor
    known: Tensor
    present: Tensor
    names: tuple[str, ...]
    photo: str


@dataclass(frozen=True, slots=True)
class Batch:
    """B photos with K prompts each. ``pixels`` (B, 3, S, S) in 0..1; ``targets`` (B, K, S, S) 0/1; ``known`` (B, S, S) bool.

    ``names[b][k]`` is the asked name; ``present`` (B, K) whether it is there; ``photos[b]`` identifies the photo; ``first`` is the first
    example's number.
    """

    first: int
    pixels: Tensor
    targets: Tensor
    known: Tensor
    present: Tensor
    names: tuple[tuple[str, ...], ...]
    photos: tuple[str, ...]


def decoded(
    photo: AnnotatedPhoto, masks: Mapping[str, np.ndarray], unknown: np.ndarray, absent: tuple[str, ...], *, distinct: bool = False
) -> TrainingPhoto:
    """Decode a photo, and shrink it with its masks: the longer side is at most `MAX_SIDE` pixels. Arguments as in `TrainingPhoto`."""
    image = Image.fromarray(photo.image())
    scale = min(1.0, MAX_SIDE / max(image.size))
    size = (round(image.height * scale), round(image.width * scale))
    pixels = torch.from_numpy(np.array(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))).permute(2, 0, 1)
    stacked = torch.from_numpy(np.stack([*masks.values(), unknown]).astype(np.uint8))
    small = F.interpolate(stacked[None].float(), size=size, mode="area")[0] > 0.5
    return TrainingPhoto(photo.source, photo.id, pixels, tuple(masks), small[:-1].to(torch.uint8), small[-1], absent, distinct)


def collate(examples: Sequence[Example]) -> Batch:
    """Examples of one size as a batch."""
    stacked = {name: torch.stack([getattr(example, name) for example in examples]) for name in ("pixels", "targets", "known", "present")}
    names, photos = tuple(example.names for example in examples), tuple(example.photo for example in examples)
    return Batch(first=examples[0].number, names=names, photos=photos, **stacked)


def crop(photo: TrainingPhoto, side: int, rng: np.random.Generator, *, stretched: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """A random window, often around one thing; maybe mirrored. Floats: pixels 0..1, masks 0/1.

    It has about the proportions of its photo, and is stretched to ``side`` pixels each way. Where it is not ``stretched``, it is about
    square, but for whole photos, and as near to it as narrow photos allow.
    """
    H, W = photo.image.shape[1:]
    area = 1.0 if rng.random() < WHOLE else np.exp(rng.uniform(np.log(SMALLEST_CROP), 0))
    aspect = np.exp(rng.uniform(-0.25, 0.25))
    height, width = (H, W) if stretched or area == 1 else (np.sqrt(H * W),) * 2
    h = int(np.clip(np.sqrt(area * aspect) * height, 32, H))
    w = int(np.clip(np.sqrt(area / aspect) * width, 32, W))
    y, x = int(rng.integers(0, H - h + 1)), int(rng.integers(0, W - w + 1))
    if len(photo.names) and rng.random() < 0.5:
        ys, xs = np.nonzero(photo.masks[int(rng.integers(len(photo.names)))].numpy())
        if len(ys):
            pick = int(rng.integers(len(ys)))
            y = int(np.clip(ys[pick] - rng.integers(0, h), 0, H - h))
            x = int(np.clip(xs[pick] - rng.integers(0, w), 0, W - w))
    window = torch.cat([photo.image, photo.masks, photo.unknown[None].to(torch.uint8)])[:, y : y + h, x : x + w].float()
    if rng.random() < 0.5:
        window = window.flip(2)
    size = (side, side)
    shrinking = h > side or w > side
    pixels = F.interpolate(window[None, :3] / 255, size=size, mode="bilinear", antialias=shrinking)[0]
    rest = F.interpolate(window[None, 3:], size=size, mode="bilinear")[0] > 0.5
    return pixels, rest[:-1].float(), rest[-1]


def colour(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation by up to a third, a slight colour cast; one photo in ten becomes grey."""
    grey = pixels.mean(0, keepdim=True)
    saturation = 0.0 if rng.random() < 0.1 else rng.uniform(0.7, 1.35)
    pixels = grey + (pixels - grey) * saturation
    contrast, brightness = rng.uniform(0.7, 1.35), rng.uniform(-0.12, 0.12)
    cast = torch.from_numpy(rng.uniform(-0.04, 0.04, (3, 1, 1))).float()
    return ((pixels - 0.5) * contrast + 0.5 + brightness + cast).clamp(0, 1)

"""Training batches of `pocket`: photos in memory, crops and colours, pasted instances, and which prompts each photo is asked.

Every random choice of step i comes from a generator seeded by (seed, i), so a run continues after an interruption exactly as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...data.photosets import AnnotatedPhoto
from .vocabulary import ELSEWHERE, overlapping

MAX_SIDE = 416  # of a photo in memory
MIN_VISIBLE = 24  # pixels of a thing in the crop below which it is neither asked for nor denied


@dataclass(frozen=True, slots=True)
class TrainingPhoto:
    """``image`` uint8 (3, H, W); ``masks`` uint8 (M, H, W), 0/1, in the order of ``names``; ``unknown`` bool (H, W)."""

    source: str
    id: str
    image: Tensor
    names: tuple[str, ...]
    masks: Tensor
    unknown: Tensor
    absent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """B photos with K prompts each. ``pixels`` (B, 3, S, S) in 0..1; ``targets`` (B, K, S, S) 0/1; ``known`` (B, S, S) bool.

    ``names[b][k]`` is the asked name; ``present`` (B, K) whether it is there; ``photos[b]`` identifies the photo.
    """

    pixels: Tensor
    targets: Tensor
    known: Tensor
    present: Tensor
    names: tuple[tuple[str, ...], ...]
    photos: tuple[str, ...]


def in_memory(photo: AnnotatedPhoto) -> TrainingPhoto:
    """Decode a photo and its masks, the longer side at most `MAX_SIDE` pixels; people made of parts gain the name "person"."""
    with Image.open(photo.path) as file:
        image = file.convert("RGB")
    masks, unknown = photo.masks()
    whole = _person(photo.source, masks)
    if whole is not None:
        masks = {**masks, "person": whole}
    scale = min(1.0, MAX_SIDE / max(image.size))
    size = (round(image.height * scale), round(image.width * scale))
    pixels = torch.from_numpy(np.array(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))).permute(2, 0, 1)
    stacked = torch.from_numpy(np.stack([*masks.values(), unknown]).astype(np.uint8))
    small = F.interpolate(stacked[None].float(), size=size, mode="area")[0] > 0.5
    absent = tuple(name for name in photo.absent if name not in masks)
    return TrainingPhoto(photo.source, photo.id, pixels, tuple(masks), small[:-1].to(torch.uint8), small[-1], absent)


def _person(source: str, masks: dict[str, np.ndarray] | object) -> np.ndarray | None:
    """The parts that make a person in each set: everything in a fashion photo, face and body in MSRC, pedestrians and riders in CamVid."""
    assert isinstance(masks, dict)
    parts = {"ccp": tuple(masks), "msrc": ("face", "body"), "camvid": ("pedestrian", "bicyclist")}.get(source, ())
    found = [masks[part] for part in parts if part in masks]
    return np.logical_or.reduce(found) if found else None


class Batches:
    """Draws the batch of any step. ``weights``: how often each source is drawn, relative to its number of photos.

    ``similarity(a, b)`` between names chooses hard negatives: words near to what the photo shows.
    """

    def __init__(
        self,
        photos: Sequence[TrainingPhoto],
        weights: dict[str, float],
        similarity: dict[str, Tensor],
        *,
        size: int,
        batch_size: int,
        prompts: int,
        paste: float,
        seed: int,
    ) -> None:
        self.photos, self.similarity = photos, similarity
        self.size, self.batch_size, self.prompts, self.paste, self.seed = size, batch_size, prompts, paste, seed
        self.chances = np.array([weights.get(photo.source, 1.0) for photo in photos])
        self.donors = [(i, m) for i, photo in enumerate(photos) if photo.source == "coco" for m in range(len(photo.names))
                       if 0.02 < photo.masks[m].float().mean() < 0.5]  # fmt: skip
        # a photo of a rare class is drawn more often: by the rarest of its names, to the power of a third
        counts: dict[str, int] = {}
        for photo in photos:
            for name in photo.names:
                counts[name] = counts.get(name, 0) + 1
        self.counts = counts
        rarity = np.array([max((50 / counts[name] for name in photo.names), default=1.0) for photo in photos])
        self.chances *= np.clip(rarity, 0.3, 10) ** (1 / 3)
        self.chances /= self.chances.sum()
        self.everything = sorted(counts)

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.choice(len(self.photos), self.batch_size, replace=False, p=self.chances)
        rows = [self._sample(self.photos[i], rng) for i in chosen]
        pixels, targets, known, present, names = zip(*rows, strict=True)
        return Batch(
            torch.stack(pixels), torch.stack(targets), torch.stack(known), torch.tensor(present),
            tuple(names), tuple(f"{self.photos[i].source}/{self.photos[i].id}" for i in chosen),
        )  # fmt: skip

    def _sample(self, photo: TrainingPhoto, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, list[bool], tuple[str, ...]]:
        pixels, masks, unknown = self._crop(photo, rng)
        names, absent = list(photo.names), set(photo.absent)
        if photo.source != "imagenet" and rng.random() < self.paste:
            pixels, masks, unknown, names, absent = self._paste(pixels, masks, unknown, names, absent, photo.source, rng)
        pixels = _colour(pixels, rng)
        visible = (masks.bool() & ~unknown).flatten(1).sum(1).tolist()
        shown = [m for m, count in enumerate(visible) if count >= MIN_VISIBLE]
        # what the crop cut off altogether is absent from it
        absent |= {names[m] for m, count in enumerate(visible) if count == 0 and not masks[m].any()}
        asked, truth = self._ask(names, shown, absent, photo.source, rng)
        zero = torch.zeros_like(masks[0]) if len(masks) else torch.zeros(self.size, self.size)
        targets = torch.stack([masks[m] if m is not None else zero for m in truth])
        return pixels, targets, ~unknown, [m is not None for m in truth], tuple(asked)

    def _crop(self, photo: TrainingPhoto, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random window, stretched to the training size, often around one thing; maybe mirrored. Floats: pixels 0..1, masks 0/1."""
        H, W = photo.image.shape[1:]
        area = rng.uniform(0.25, 1.0) if rng.random() < 0.8 else 1.0
        aspect = np.exp(rng.uniform(-0.25, 0.25))
        h = int(np.clip(np.sqrt(area * aspect) * H, 32, H))
        w = int(np.clip(np.sqrt(area / aspect) * W, 32, W))
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
        size = (self.size, self.size)
        shrinking = h > self.size or w > self.size
        pixels = F.interpolate(window[None, :3] / 255, size=size, mode="bilinear", antialias=shrinking)[0]
        rest = F.interpolate(window[None, 3:], size=size, mode="bilinear")[0] > 0.5
        return pixels, rest[:-1].float(), rest[-1]

    def _paste(
        self, pixels: Tensor, masks: Tensor, unknown: Tensor, names: list[str], absent: set[str], source: str, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, list[str], set[str]]:
        """Put one thing of another photo on this one (Ghiasi et al. 2021, "Simple Copy-Paste")."""
        index, m = self.donors[int(rng.integers(len(self.donors)))]
        donor = self.photos[index]
        other, other_masks, _ = self._crop(donor, rng)
        name, stamp = donor.names[m], other_masks[m]
        if not 0.01 < stamp.mean() < 0.4 or any(overlapping(name, shown, source == "coco") and shown != name for shown in names):
            return pixels, masks, unknown, names, absent
        soft = F.avg_pool2d(stamp[None], 3, 1, 1)[0]  # a hard rim would be the easiest cue
        pixels = pixels * (1 - soft) + other * soft
        masks, unknown = masks * (1 - stamp), unknown & ~stamp.bool()
        if name in names:
            masks[names.index(name)] = torch.maximum(masks[names.index(name)], stamp)
        else:
            names, masks = [*names, name], torch.cat([masks, stamp[None]])
        return pixels, masks, unknown, names, absent - {name}

    def _ask(
        self, names: list[str], shown: list[int], absent: set[str], source: str, rng: np.random.Generator
    ) -> tuple[list[str], list[int | None]]:
        """K names and, for each, the index of its mask or None. About half of them are there; half of the others are hard."""
        wanted = int(rng.integers(1, self.prompts // 2 + 2))
        if shown:
            rare = np.array([self.counts.get(names[m], 50) ** -0.5 for m in shown])
            picked = rng.choice(shown, min(wanted, len(shown)), replace=False, p=rare / rare.sum()).tolist()
        else:
            picked = []
        asked, truth = [names[m] for m in picked], [*picked]
        missing = self._absent_names(names, absent, source)
        if missing:
            order = list(rng.permutation(len(missing)))
            if names:
                near = torch.stack([self.similarity[name] for name in names]) @ torch.stack([self.similarity[name] for name in missing]).T
                hardness = near.amax(0).numpy() + rng.gumbel(size=len(missing)) * 0.12
                hard = list(np.argsort(-hardness))
                order = [i for pair in zip(hard, order, strict=True) for i in pair]
            for i in dict.fromkeys(order):
                if len(asked) == self.prompts:
                    break
                asked.append(missing[i])
                truth.append(None)
        while len(asked) < self.prompts:  # a photo that denies nothing: repeat what it shows
            again = int(rng.integers(len(asked)))
            asked.append(asked[again])
            truth.append(truth[again])
        return asked, truth

    def _absent_names(self, names: list[str], absent: set[str], source: str) -> list[str]:
        own = {name for name in absent if not any(overlapping(name, shown, source in ("coco", "msrc", "camvid")) for shown in names)}
        pool = self.everything if source == "imagenet" else ELSEWHERE
        for name in pool:
            if name not in own and name not in names and not any(overlapping(name, shown, False) for shown in names):
                if source == "coco" and name in ELSEWHERE:
                    continue  # annotated there: known either way
                if source == "imagenet" and any(float(self.similarity[name] @ self.similarity[shown]) > 0.45 for shown in names):
                    continue  # a kind of, or a part of, what the photo shows
                own.add(name)
        return sorted(own)


def _colour(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation by up to a third, a slight colour cast; one photo in ten becomes grey."""
    grey = pixels.mean(0, keepdim=True)
    saturation = 0.0 if rng.random() < 0.1 else rng.uniform(0.7, 1.35)
    pixels = grey + (pixels - grey) * saturation
    contrast, brightness = rng.uniform(0.7, 1.35), rng.uniform(-0.12, 0.12)
    cast = torch.from_numpy(rng.uniform(-0.04, 0.04, (3, 1, 1))).float()
    return ((pixels - 0.5) * contrast + 0.5 + brightness + cast).clamp(0, 1)

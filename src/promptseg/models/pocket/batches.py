"""Training batches of `pocket`: crops and colours, pasted instances, and the prompts of each photo.

Every random choice of step i comes from a generator seeded by (seed, i), so a run continues after an interruption exactly as it would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .asking import Asking
from .photos import TrainingPhoto
from .vocabulary import CARRIED, COMPOSED, overlapping

MIN_VISIBLE = 24  # pixels of a thing in the crop below which it is neither asked for nor denied
SMALLEST_CROP = 0.12  # of the photo's area
WHOLE = 0.25  # chance of the whole photo
PERSON_SIZE = (0.1, 0.8)  # of a pasted person, in sides of the crop


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
class Stamp:
    """One thing to paste: its ``name``, ``pixels`` (3, S, S) of which those under the ``mask`` (S, S) 0/1 count."""

    name: str
    pixels: Tensor
    mask: Tensor


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


class Examples:
    """Makes the example of any number, step by step.

    ``shares``: of each source among the photos drawn; ``size``: side of the crops in pixels, ``first_size`` that of the ``first_steps``;
    ``people`` and ``paste``: the chance that a whole person, or else any other thing, is pasted.
    """

    def __init__(
        self,
        photos: Sequence[TrainingPhoto],
        shares: Mapping[str, float],
        vectors: Mapping[str, Tensor],
        *,
        size: int,
        first_size: int,
        first_steps: int,
        batch_size: int,
        prompts: int,
        people: float,
        paste: float,
        seed: int,
    ) -> None:
        self.photos, self.ask = photos, Asking(photos, vectors, prompts)
        self.size, self.first_size, self.first_steps = size, first_size, first_steps
        self.batch_size, self.people, self.paste, self.seed = batch_size, people, paste, seed
        self.things = [(i, m) for i, photo in enumerate(photos) if photo.source == "coco" for m, name in enumerate(photo.names)
                       if name not in COMPOSED and 0.02 < photo.masks[m].float().mean() < 0.5]  # fmt: skip
        self.whole_people = [(i, m) for i, photo in enumerate(photos) if photo.source in ("coco_person", "ccp")
                             for m, name in enumerate(photo.names)
                             if name == "person" and 0.01 < photo.masks[m].float().mean() < 0.7]  # fmt: skip
        # within its set a photo of a rare class is drawn more often: by the rarest of its names, to the power of a third
        rarity = np.array([max((50 / self.ask.counts[name] for name in photo.names), default=1.0) for photo in photos])
        weights = np.clip(rarity, 0.3, 10) ** (1 / 3)
        totals: Counter[str] = Counter()
        for photo, weight in zip(photos, weights.tolist(), strict=True):
            totals[photo.source] += weight
        chances = weights * np.array([shares[photo.source] / totals[photo.source] for photo in photos])
        self.chances = chances / chances.sum()
        self._step: tuple[int, list[Example]] = (-1, [])  # the last one that was made: its examples are asked for one by one

    def __call__(self, number: int) -> Example:
        step, place = divmod(number, self.batch_size)
        made, examples = self._step
        if made != step:
            rng = np.random.default_rng((self.seed, step))
            side = self.first_size if step < self.first_steps else self.size
            examples = [self._sample(step * self.batch_size + i, photo, side, rng) for i, photo in enumerate(self._photos(step, rng))]
            self._step = (step, examples)
        return examples[place]

    def photo(self, number: int) -> TrainingPhoto:
        """Which photo an example shows."""
        step, place = divmod(number, self.batch_size)
        return self._photos(step, np.random.default_rng((self.seed, step)))[place]

    def _photos(self, step: int, rng: np.random.Generator) -> list[TrainingPhoto]:
        return [self.photos[i] for i in rng.choice(len(self.photos), self.batch_size, replace=False, p=self.chances)]

    def _sample(self, number: int, photo: TrainingPhoto, side: int, rng: np.random.Generator) -> Example:
        pixels, masks, unknown = crop(photo, side, rng)
        names, absent = list(photo.names), set(photo.absent)
        if (stamp := self._stamp(photo, side, rng)) is not None:
            pixels, masks, unknown, names, absent = _pasted(stamp, pixels, masks, unknown, names, absent)
        pixels = colour(pixels, rng)
        left = [m for m in range(len(names)) if masks[m].any()]  # what the crop cut off altogether is absent from it
        absent |= {name for m, name in enumerate(names) if m not in left}
        visible = (masks.bool() & ~unknown).flatten(1).sum(1).tolist()
        seen = [m for m in left if visible[m] >= MIN_VISIBLE]
        asked, truth = self.ask(photo, names, left, seen, absent, rng)
        nothing = torch.zeros(side, side)
        targets = torch.stack([nothing if m is None else masks[m] for m in truth])
        present = torch.tensor([m is not None for m in truth])
        return Example(number, pixels, targets, ~unknown, present, asked, f"{photo.source}/{photo.id}")

    def _stamp(self, photo: TrainingPhoto, side: int, rng: np.random.Generator) -> Stamp | None:
        """What to paste on this photo, if anything (Ghiasi et al. 2021, "Simple Copy-Paste"): a whole person, or a thing as it was cropped.

        People are what is asked for most and vary most in size: they come at every size. On photos of which nobody knows whether they show
        people, and on those of garments, where they would bring garments that nobody has named, there are none.
        """
        draw = rng.random()
        if photo.source == "imagenet" or draw > self.people + self.paste:
            return None
        if draw < self.people:
            if not self.whole_people or photo.source == "ccp" or "person" not in (*photo.names, *photo.absent):
                return None
            index, m = self.whole_people[int(rng.integers(len(self.whole_people)))]
            return None if self.photos[index] is photo else person(self.photos[index], m, side, rng)
        if not self.things:
            return None
        index, m = self.things[int(rng.integers(len(self.things)))]
        donor = self.photos[index]
        other, masks, _ = crop(donor, side, rng)
        name, mask = donor.names[m], masks[m]
        confused = any(overlapping(name, there, photo.distinct) and there != name for there in photo.names)
        return None if confused or not 0.01 < mask.mean() < 0.4 else Stamp(name, other, mask)


def _pasted(
    stamp: Stamp, pixels: Tensor, masks: Tensor, unknown: Tensor, names: list[str], absent: set[str]
) -> tuple[Tensor, Tensor, Tensor, list[str], set[str]]:
    """The crop with the stamp on it: what it hides is gone, what it may be or complete is no longer denied."""
    soft = F.avg_pool2d(stamp.mask[None], 3, 1, 1)[0] * stamp.mask  # a hard rim would be the easiest cue
    pixels = pixels * (1 - soft) + stamp.pixels * soft
    masks, unknown = masks * (1 - stamp.mask), unknown & ~stamp.mask.bool()
    if stamp.name in names:
        row = names.index(stamp.name)
        masks[row] = torch.maximum(masks[row], stamp.mask)
    else:
        names, masks = [*names, stamp.name], torch.cat([masks, stamp.mask[None]])
    brought = CARRIED if stamp.name == "person" else ()
    absent = {
        other for other in absent
        if not overlapping(stamp.name, other, False) and stamp.name not in COMPOSED.get(other, ()) and other not in brought
    }  # fmt: skip
    return pixels, masks, unknown, names, absent


def person(donor: TrainingPhoto, m: int, side: int, rng: np.random.Generator) -> Stamp | None:
    """The person of mask ``m`` cut out, at any size of `PERSON_SIZE`, anywhere on a crop, a quarter of it at most beyond an edge."""
    ys, xs = np.nonzero(donor.masks[m].numpy())
    window = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
    cut = torch.cat([donor.image[:, *window] / 255, donor.masks[m][window][None]])
    h, w = cut.shape[1:]
    scale = np.exp(rng.uniform(*np.log(PERSON_SIZE))) * side / max(h, 0.7 * w)
    h, w = max(6, round(h * scale)), max(4, round(w * scale))
    cut = F.interpolate(cut[None], size=(h, w), mode="bilinear", antialias=True)[0]
    if rng.random() < 0.5:
        cut = cut.flip(2)
    if rng.random() < 0.5:
        cut[:3] = colour(cut[:3], rng)
    y, x = (int(rng.integers(-length // 4, max(1, side - length * 3 // 4))) for length in (h, w))
    top, left, bottom, right = max(0, y), max(0, x), min(side, y + h), min(side, x + w)
    whole = torch.zeros(4, side, side)
    whole[:, top:bottom, left:right] = cut[:, top - y : bottom - y, left - x : right - x]
    mask = (whole[3] > 0.5).float()
    return Stamp("person", whole[:3], mask) if mask.sum() >= MIN_VISIBLE else None


def collate(examples: Sequence[Example]) -> Batch:
    """Examples of one size as a batch."""
    stacked = {name: torch.stack([getattr(example, name) for example in examples]) for name in ("pixels", "targets", "known", "present")}
    names, photos = tuple(example.names for example in examples), tuple(example.photo for example in examples)
    return Batch(first=examples[0].number, names=names, photos=photos, **stacked)


def crop(photo: TrainingPhoto, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random window, stretched to ``side`` pixels, often around one thing; maybe mirrored. Floats: pixels 0..1, masks 0/1."""
    H, W = photo.image.shape[1:]
    area = 1.0 if rng.random() < WHOLE else np.exp(rng.uniform(np.log(SMALLEST_CROP), 0))
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

"""Training examples of `pocket`: crops and colours, pasted instances, and the prompts of each photo.

Every random choice of step i comes from a generator seeded by (seed, i), so a run continues after an interruption exactly as it would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.asked_crops import MIN_VISIBLE, Example, TrainingPhoto, colour, crop
from ...errors import ConfigError
from .asking import Asking
from .vocabulary import COMPOSED, overlapping


class Examples:
    """Makes the example of any number, step by step.

    ``shares``: of each source among the photos drawn; ``size``: side of the crops in pixels, ``first_size`` that of the ``first_steps``.
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
        paste: float,
        seed: int,
    ) -> None:
        self.photos, self.ask = photos, Asking(photos, vectors, prompts)
        self.size, self.first_size, self.first_steps = size, first_size, first_steps
        self.batch_size, self.paste, self.seed = batch_size, paste, seed
        self.donors = [(i, m) for i, photo in enumerate(photos) if photo.source == "coco" for m, name in enumerate(photo.names)
                       if name not in COMPOSED and 0.02 < photo.masks[m].float().mean() < 0.5]  # fmt: skip
        # within its set a photo of a rare class is drawn more often: by the rarest of its names, to the power of a third
        rarity = np.array([max((50 / self.ask.counts[name] for name in photo.names), default=1.0) for photo in photos])
        weights = np.clip(rarity, 0.3, 10) ** (1 / 3)
        totals: Counter[str] = Counter()
        for photo, weight in zip(photos, weights.tolist(), strict=True):
            totals[photo.source] += weight
        if without := sorted(set(totals) - set(shares)):
            raise ConfigError(f"options.shares says nothing of {', '.join(without)}, of which there are photographs; 0 leaves them out.")
        chances = weights * np.array([shares[photo.source] / totals[photo.source] for photo in photos])
        if (drawn := np.count_nonzero(chances > 0)) < batch_size or not 0 < chances.sum() < np.inf or chances.min() < 0:
            raise ConfigError(f"options.shares lets {drawn} photographs be drawn, fewer than a batch of {batch_size}, or is not finite.")
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
        if photo.source != "imagenet" and rng.random() < self.paste:
            pixels, masks, unknown, names, absent = self._paste(photo, pixels, masks, unknown, absent, rng)
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

    def _paste(
        self, photo: TrainingPhoto, pixels: Tensor, masks: Tensor, unknown: Tensor, absent: set[str], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, list[str], set[str]]:
        """Put one thing of another photo on this one (Ghiasi et al. 2021, "Simple Copy-Paste")."""
        names = list(photo.names)
        index, m = self.donors[int(rng.integers(len(self.donors)))]
        donor = self.photos[index]
        other, other_masks, _ = crop(donor, pixels.shape[1], rng)
        name, stamp = donor.names[m], other_masks[m]
        confused = any(overlapping(name, there, photo.distinct) and there != name for there in names)
        if confused or not 0.01 < stamp.mean() < 0.4:
            return pixels, masks, unknown, names, absent
        soft = F.avg_pool2d(stamp[None], 3, 1, 1)[0]  # a hard rim would be the easiest cue
        pixels = pixels * (1 - soft) + other * soft
        masks, unknown = masks * (1 - stamp), unknown & ~stamp.bool()
        if name in names:
            masks[names.index(name)] = torch.maximum(masks[names.index(name)], stamp)
        else:
            names, masks = [*names, name], torch.cat([masks, stamp[None]])
        # the newcomer may be, or complete, what was denied here
        absent = {other for other in absent if not overlapping(name, other, False) and name not in COMPOSED.get(other, ())}
        return pixels, masks, unknown, names, absent

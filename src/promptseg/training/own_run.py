"""What fine-tuning on somebody's own photos is in every family: which photos are drawn, what each crop is asked, what must stay as it was.

Every crop is asked for names of the data, and for some others. There the network is held to what it said before, so that it goes on
answering other prompts (Li & Hoiem 2016, "Learning without Forgetting").
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import Recipe
from ..data.asked_crops import MIN_VISIBLE, Batch, Example, TrainingPhoto, collate, colour, crop, decoded
from ..data.photosets import AnnotatedPhoto
from ..data.samples import spread
from ..errors import ConfigError
from .lora import merged
from .run import Run

__all__ = ["OwnOptions", "OwnRun", "drift"]

IN_MEMORY = 400  # photos that stay decoded
ALIKE = 0.999  # cosine of two names between which the text tower cannot tell
BALANCED = 0.5  # chance that a photo is drawn by its class, however rare, and not by itself
LOOKED_AT = 8  # photos on which other names are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOptions:
    """What only fine-tuning knows. ``rank`` of the adapters; 0: none, the parameters themselves are trained.

    ``stretched``: crops have the proportions of their photo and are stretched to squares, as whole photos are by networks of one input
    size; else they are cut about square.
    """

    losses: Mapping[str, float]  # weights
    size: int = 256  # side of the training crops, pixels
    stretched: bool = True
    prompts: int = 5  # names of the data asked of each crop
    others: int = 2  # other names asked of it, to be answered as before
    rank: int = 0


class OwnRun(Run):
    """See `training.run.Run`; families add the network and its losses.

    Attributes:
        photos: those to train on; ``names``: what they are asked for, each shown by one of them at least.
        held_out: photos that `pictures` may show; whoever holds any out sets it.
        unasked: names of other things that training never asks for, so that they tell whether the model still answers as before.
        found: other names that the network sees on some photo before it is trained: half of the others that are asked are of these.

    Args:
        vectors: of every name, what the network reads of it (n, E): a row per wording, the bare name first.
        others: names of other things and theirs (1, E).

    Raises:
        ConfigError: the text tower reads two names alike.
    """

    held_out: Sequence[AnnotatedPhoto] = ()

    def __init__(
        self, recipe: Recipe, photos: Sequence[AnnotatedPhoto], vectors: Mapping[str, Tensor], others: Mapping[str, Tensor]
    ) -> None:
        assert isinstance(recipe.options, OwnOptions)
        self.options, self.seed, self.photos, self.names = recipe.options, recipe.seed, photos, tuple(vectors)
        self.vectors = {**vectors, **others}
        self._check_names()
        self.unasked = tuple(name for name in others if _reserved(name))
        self.others = tuple(name for name in others if not _reserved(name))
        self.found: tuple[str, ...] = ()
        self.shows = {name: [index for index, photo in enumerate(photos) if name in photo.present] for name in self.names}
        self._photo = lru_cache(IN_MEMORY)(self._decoded)

    def _decoded(self, index: int) -> TrainingPhoto:
        photo = self.photos[index]
        return decoded(photo, *photo.masks(), photo.absent)

    def _check_names(self) -> None:
        for index, name in enumerate(self.names):
            bare = self.vectors[name][0]
            before = self.names[:index]
            same = [other for other in before if float(F.cosine_similarity(bare, self.vectors[other][0], dim=0)) > ALIKE]
            if same:
                raise ConfigError(
                    f"The model reads {name!r} and {same[0]!r} alike and cannot tell them apart. Say one in other words, or join them: "
                    f"--classes '{same[0]}={same[0]}+{name}'."
                )

    def samples(self) -> Tensor:
        """Some of the photos, stretched (B, 3, size, size), 0..1: where the network says most, it has most to forget; see ``found``."""
        photos = [self._photo(index).image.float() / 255 for index in spread(range(len(self.photos)), LOOKED_AT)]
        side = (self.options.size, self.options.size)
        return torch.cat([F.interpolate(photo[None], size=side, mode="bilinear", antialias=True) for photo in photos])

    # --- examples ---

    def example(self, number: int) -> Example:
        rng = np.random.default_rng((self.seed, number))
        photo = self._photo(self._drawn(rng))
        pixels, masks, unknown = crop(photo, self.options.size, rng, stretched=self.options.stretched)
        asked, targets, present = self._asked(photo, masks, ~unknown, rng)
        pools = (
            [self.found if self.found and rng.random() < 0.5 else self.others for _ in range(self.options.others)] if self.others else []
        )
        names = (*asked, *(pool[int(rng.integers(len(pool)))] for pool in pools))
        return Example(number, colour(pixels, rng), targets, ~unknown, present, names, photo.id)

    def _drawn(self, rng: np.random.Generator) -> int:
        """The index of a photo: any one, or one that shows a class drawn before."""
        by_class = rng.random() < BALANCED
        choices = self.shows[self.names[int(rng.integers(len(self.names)))]] if by_class else range(len(self.photos))
        return choices[int(rng.integers(len(choices)))]

    def _asked(self, photo: TrainingPhoto, masks: Tensor, known: Tensor, rng: np.random.Generator) -> tuple[list[str], Tensor, Tensor]:
        """Names of the data, two or more of them denied where that leaves one: their masks (P, S, S), and whether they are there (P,)."""
        seen = dict(zip(photo.names, masks * known, strict=True))
        shown = [name for name in self.names if name in seen and seen[name].sum() >= MIN_VISIBLE]
        missing = [name for name in self.names if name not in shown]
        count = self.options.prompts
        there = [shown[i] for i in rng.permutation(len(shown))[: max(1, count - min(2, len(missing)))]]
        chosen = there + self._denied(missing, count - len(there), rng)
        names = [chosen[i % len(chosen)] for i in range(count)]  # of few names each is asked in several wordings
        nothing = torch.zeros(known.shape)
        targets = torch.stack([seen[name] if name in there else nothing for name in names])
        return names, targets, torch.tensor([name in there for name in names])

    def _denied(self, missing: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
        """Some of the names that are not there. What few photos show is denied as seldom: else it would be denied far more than shown."""
        if not missing:
            return []
        photos = np.array([len(self.shows[name]) for name in missing], dtype=np.float64)
        chosen = rng.choice(len(missing), min(count, len(missing)), replace=False, p=photos / photos.sum())
        return [missing[i] for i in chosen]

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples)

    def describe(self, number: int) -> str:
        return f"photo {self.photos[self._drawn(np.random.default_rng((self.seed, number)))].path}"

    # --- for the losses ---

    def conditions(self, batch: Batch) -> Tensor:
        """(B, K, E): every name in one of its wordings, half the time the bare name."""
        generator = torch.Generator().manual_seed(batch.first)
        rows = []
        for name in (name for asked in batch.names for name in asked):
            draw, pick = torch.rand(2, generator=generator).tolist()
            choices = self.vectors[name]
            rows.append(choices[0 if draw < 0.5 else int(pick * len(choices))])
        return torch.stack(rows).view(len(batch.names), -1, rows[0].shape[0]).to(batch.pixels.device)

    def weighted(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses times their weights."""
        return {name: value * self.options.losses.get(name, 1.0) for name, value in named.items()}

    def finished(self, model: nn.Module) -> nn.Module:
        """The network with its adapters merged into the weights."""
        return merged(model) if self.options.rank else model


def drift(logits: Tensor, before: Tensor) -> Tensor:
    """How far answers are from what they were: the mean Kullback-Leibler divergence of their probabilities, 0 at the start."""
    target = before.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(before, target)
    return F.binary_cross_entropy_with_logits(logits, target) - entropy


def frozen(recipe: Recipe, pattern: str) -> bool:
    """Whether the recipe freezes just what ``pattern`` names."""
    return any(rule.frozen and pattern in rule.pattern.split("|") for rule in recipe.groups)


def _reserved(name: str) -> bool:
    """A quarter of the other names, the same in every run."""
    return zlib.crc32(name.encode()) % 4 == 0

"""Fine-tuning `pocket` on somebody's own photos: three presets, and the run that the engine trains.

Besides the photos' own names every crop is asked for names that the data does not have; there the network is held to what it said before, so
that it goes on answering other prompts (Li & Hoiem 2016, "Learning without Forgetting").
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contracts import ParameterGroup, Recipe
from ...data.photosets import AnnotatedPhoto
from ...errors import ConfigError
from ...training.lora import adapt, merged
from ...training.run import Run
from ...training.schedules import Cosine, Warmup
from .batches import MIN_VISIBLE, Batch, Example, collate, colour, crop
from .losses import mask_losses, presence_loss
from .network import Model, normalise
from .photos import TrainingPhoto, in_memory
from .text import StaticText
from .vocabulary import ELSEWHERE, SYNONYMS, wordings

IN_MEMORY = 400  # photos that stay decoded
ALIKE = 0.999  # cosine of two names from which the text tower cannot tell them apart
NEAR = 0.55  # cosine from which another name may mean what a name of the data means
BALANCED = 0.5  # chance that a photo is drawn by its class, however rare, and not by itself
ADAPTED = ("tower.stages.3.", "tower.stages.4.", "tower.stages.5.", "tower.stages.6.", "tower.head.", "neck.", "decoder.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOptions:
    """What only this family's fine-tuning knows. ``rank`` of the adapters; 0: none, the parameters themselves are trained."""

    size: int = 256  # side of the training crops, pixels
    prompts: int = 6  # names of the data asked of each crop
    others: int = 2  # other names asked of it, to be answered as before
    rank: int = 0
    losses: Mapping[str, float] = field(default_factory=lambda: {"mask": 1.0, "dice": 1.0, "presence": 0.3, "kept": 2.0})


_HEAD = Recipe(
    name="pocket/finetune-head", card="pocket", data="", output="", steps=240, batch_size=4, lr=1e-3, weight_decay=0.02, ema=0.98,
    schedule=Warmup(steps=20, start=0.1, main=Cosine()), save_every_s=60.0, options=OwnOptions(),
    groups=(ParameterGroup(pattern="tower.*|classifier.*|region.*|log_sharpness", frozen=True),),
)  # fmt: skip


def _variant(preset: str, groups: tuple[ParameterGroup, ...], lr: float, options: OwnOptions) -> Recipe:
    values: dict[str, Any] = {name: getattr(_HEAD, name) for name in Recipe.__dataclass_fields__}
    return Recipe(**{**values, "name": f"pocket/finetune-{preset}", "groups": groups, "lr": lr, "options": options})


PRESETS: Mapping[str, Recipe] = {
    "head": _HEAD,
    "lora": _variant("lora", (), 3e-3, OwnOptions(rank=8)),
    "full": _variant("full", (ParameterGroup(pattern="tower.*|classifier.*", lr=0.1),), 1e-3, OwnOptions()),
}


class FineTune(Run):
    """See `training.run.Run`. ``photos``: those to train on; ``names``: what they are asked for, each shown by one of them at least.

    Raises:
        ConfigError: the text tower reads no word of a name, or two names alike.
    """

    model: Model

    def __init__(self, recipe: Recipe, model: Model, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> None:
        assert isinstance(recipe.options, OwnOptions)
        self.options, self.seed, self.photos, self.names = recipe.options, recipe.seed, photos, tuple(names)
        self.vectors = {name: model.text(wordings(name)) for name in self.names}
        self._check_names()
        self.others = tuple(name for name in other_names(model.text, self.names) if not reserved(name))
        self.vectors |= {name: model.text([name]) for name in self.others}
        self.shows = {name: [index for index, photo in enumerate(photos) if name in photo.present] for name in self.names}
        self._photo = lru_cache(IN_MEMORY)(lambda index: in_memory(photos[index]))
        torch.manual_seed(recipe.seed)
        # channels last: depthwise convolutions train three times as fast on CPUs
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        self.before = copy.deepcopy(model).eval().requires_grad_(False)
        self.shared_tower = any(rule.frozen and "tower.*" in rule.pattern.split("|") for rule in recipe.groups)
        self.model = model
        if self.options.rank:
            adapt(model, adapted_parts(model), self.options.rank)

    def _check_names(self) -> None:
        for index, name in enumerate(self.names):
            vector = self.vectors[name][0]
            if not vector.any():
                raise ConfigError(
                    f"pocket reads English words and knows none in {name!r}. Say what it is: --classes 'coffee cup={name}, ...'."
                )
            same = [other for other in self.names[:index] if float(vector @ self.vectors[other][0]) > ALIKE]
            if same:
                raise ConfigError(
                    f"pocket reads {name!r} and {same[0]!r} alike and cannot tell them apart. Say one in other words, or join them: "
                    f"--classes '{same[0]}={same[0]}+{name}'."
                )

    # --- examples ---

    def example(self, number: int) -> Example:
        rng = np.random.default_rng((self.seed, number))
        photo = self._photo(self._drawn(rng))
        pixels, masks, unknown = crop(photo, self.options.size, rng)
        asked, targets, present = self._asked(photo, masks, ~unknown, rng)
        others = rng.choice(len(self.others), min(self.options.others, len(self.others)), replace=False).tolist()
        names = (*asked, *(self.others[index] for index in others))
        return Example(number, colour(pixels, rng), targets, ~unknown, present, names, photo.id)

    def _drawn(self, rng: np.random.Generator) -> int:
        """The index of a photo: any one, or one that shows a class drawn before."""
        by_class = rng.random() < BALANCED
        choices = self.shows[self.names[int(rng.integers(len(self.names)))]] if by_class else range(len(self.photos))
        return choices[int(rng.integers(len(choices)))]

    def _asked(
        self, photo: TrainingPhoto, masks: Tensor, known: Tensor, rng: np.random.Generator
    ) -> tuple[list[str], Tensor, Tensor]:
        """Names of the data, what the crop shows first: their masks (P, S, S), and whether they are there (P,)."""
        visible = (masks.bool() & known).flatten(1).sum(1).tolist()
        shown = [name for name, pixels in zip(photo.names, visible, strict=True) if pixels >= MIN_VISIBLE]
        rest = [name for name in self.names if name not in shown and not masks[photo.names.index(name)].any()] if False else []
        rest = [name for name in self.names if name not in photo.names or not masks[photo.names.index(name)].any()]
        places = self.options.prompts
        there = [shown[i] for i in rng.permutation(len(shown))][: places if not rest else max(1, places - 2)]
        asked = there + [rest[i] for i in rng.permutation(len(rest))][: places - len(there)]
        asked = [asked[i % len(asked)] for i in range(places)] if asked else [self.names[0]] * places
        targets = [masks[photo.names.index(name)] if name in there else torch.zeros_like(masks[0] if len(masks) else known.float()) for name in asked]
        return asked, torch.stack(targets), torch.tensor([name in there for name in asked])

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples)

    def describe(self, number: int) -> str:
        return f"photo {self.photos[self._drawn(np.random.default_rng((self.seed, number)))].path}"

"""Fine-tuning `pocket` on somebody's own photos: three presets, and the run that the engine trains.

Every crop is asked for names of the data, and for some others. There the network is held to what it said before, so that it goes on
answering other prompts (Li & Hoiem 2016, "Learning without Forgetting").
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...contracts import ParameterGroup, PromptFeatures, Recipe
from ...data.photosets import AnnotatedPhoto
from ...errors import ConfigError
from ...prompts import Text
from ...training.lora import adapt, merged
from ...training.run import Run
from ...training.schedules import Cosine, Warmup
from .batches import MIN_VISIBLE, Batch, Example, collate, colour, crop
from .losses import mask_losses, presence_loss
from .network import Model, normalise
from .photos import TrainingPhoto, in_memory
from .pictures import answers
from .text import StaticText
from .vocabulary import ELSEWHERE, SYNONYMS, wordings

IN_MEMORY = 400  # photos that stay decoded
ALIKE = 0.999  # cosine of two names from which the text tower cannot tell them apart
NEAR = 0.55  # cosine from which another name may mean what a name of the data means
BALANCED = 0.5  # chance that a photo is drawn by its class, however rare, and not by itself
LOOKED_AT = 8  # photos on which other names are looked for
ADAPTED = ("tower.stages.3.", "tower.stages.4.", "tower.stages.5.", "tower.stages.6.", "tower.head.", "neck.", "decoder.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOptions:
    """What only this family's fine-tuning knows. ``rank`` of the adapters; 0: none, the parameters themselves are trained."""

    size: int = 256  # side of the training crops, pixels
    prompts: int = 5  # names of the data asked of each crop
    others: int = 2  # other names asked of it, to be answered as before
    rank: int = 0
    losses: Mapping[str, float] = field(default_factory=lambda: {"mask": 1.0, "dice": 1.0, "presence": 0.3, "kept": 4.0})


_HEAD = Recipe(
    name="pocket/finetune-head", card="pocket", data="", output="", steps=500, batch_size=4, lr=2e-3, weight_decay=0.02, ema=0.97,
    schedule=Warmup(steps=20, start=0.1, main=Cosine()), save_every_s=60.0, options=OwnOptions(),
    groups=(ParameterGroup(pattern="tower.*|classifier.*|region.*|log_sharpness", frozen=True),),
)  # fmt: skip


def _variant(preset: str, groups: tuple[ParameterGroup, ...], lr: float, options: OwnOptions) -> Recipe:
    return replace(_HEAD, name=f"pocket/finetune-{preset}", groups=groups, lr=lr, options=options)


PRESETS: Mapping[str, Recipe] = {
    "head": _HEAD,
    "lora": _variant("lora", (), 3e-3, OwnOptions(rank=8)),
    "full": _variant("full", (ParameterGroup(pattern="tower.*|classifier.*", lr=0.1),), 2e-3, OwnOptions()),
}


class FineTune(Run):
    """See `training.run.Run`. ``photos``: those to train on; ``names``: what they are asked for, each shown by one of them at least.
    ``unasked``: names of other things that training never asks for, so that they tell whether the model still answers as before.

    Raises:
        ConfigError: the text tower reads no word of a name, or two names alike.
    """

    model: Model
    held_out: Sequence[AnnotatedPhoto] = ()  # what `pictures` shows; whoever holds photos out sets it

    def __init__(self, recipe: Recipe, model: Model, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> None:
        assert isinstance(recipe.options, OwnOptions)
        self.options, self.seed, self.photos, self.names = recipe.options, recipe.seed, photos, tuple(names)
        self.vectors = {name: model.text(wordings(name)) for name in self.names}
        self._check_names()
        others = other_names(model.text, self.names)
        self.unasked = tuple(name for name in others if _reserved(name))
        self.others = tuple(name for name in others if not _reserved(name))
        self.vectors |= {name: model.text([name]) for name in self.others}
        self.shows = {name: [index for index, photo in enumerate(photos) if name in photo.present] for name in self.names}
        self._photo = lru_cache(IN_MEMORY)(lambda index: in_memory(photos[index]))
        torch.manual_seed(recipe.seed)
        # channels last: depthwise convolutions train three times as fast on CPUs
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        self.before = copy.deepcopy(model).eval().requires_grad_(False)
        self.shared_tower = any(rule.frozen and "tower.*" in rule.pattern.split("|") for rule in recipe.groups)
        self.found = self._found()
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

    @torch.no_grad()
    def _found(self) -> tuple[str, ...]:
        """The other names that the network sees on some of the photos: where it says most, it has most to forget."""
        if not self.others:
            return ()
        photos = [self._photo(index).image.float() / 255 for index in range(0, len(self.photos), -(-len(self.photos) // LOOKED_AT))]
        side = (self.options.size, self.options.size)
        pixels = torch.cat([F.interpolate(photo[None], size=side, mode="bilinear", antialias=True) for photo in photos])
        condition = torch.cat([self.vectors[name] for name in self.others])
        image = self.before.features(normalise(pixels, self.before.config.preprocess))
        presence = self.before.decode(image, PromptFeatures(tuple(map(Text, self.others)), condition)).presence
        assert presence is not None
        return tuple(name for name, logit in zip(self.others, presence.amax(0).tolist(), strict=True) if logit > 0)

    # --- examples ---

    def example(self, number: int) -> Example:
        rng = np.random.default_rng((self.seed, number))
        photo = self._photo(self._drawn(rng))
        pixels, masks, unknown = crop(photo, self.options.size, rng)
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
        chosen = there + [missing[i] for i in rng.permutation(len(missing))[: count - len(there)]]
        names = [chosen[i % len(chosen)] for i in range(count)]  # of few names each is asked in several wordings
        nothing = torch.zeros(known.shape)
        targets = torch.stack([seen[name] if name in there else nothing for name in names])
        return names, targets, torch.tensor([name in there for name in names])

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples)

    def describe(self, number: int) -> str:
        return f"photo {self.photos[self._drawn(np.random.default_rng((self.seed, number)))].path}"

    # --- losses ---

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        model, weights = self.model.eval(), self.options.losses  # batch statistics stay those of many photos: batches here are small
        pixels = normalise(batch.pixels, model.config.preprocess)
        condition = self._conditions(batch).to(pixels.device)
        own = batch.targets.shape[1]
        taps = self._taps(model, pixels, learning=not self.shared_tower)
        logits, presence = model.answer(model.neck(taps, model.classifier).float(), condition)
        logits, presence = logits.float(), presence.float()
        large = F.interpolate(logits[:, :own], size=batch.targets.shape[-2:], mode="bilinear")
        mask, dice = mask_losses(large, batch.targets, batch.known, batch.present)
        named = {"mask": mask, "dice": dice, "presence": presence_loss(presence[:, :own], batch.present)}
        if condition.shape[1] > own:
            old_logits, old_presence = self._before(pixels, taps, condition[:, own:])
            named["kept"] = _drift(logits[:, own:], old_logits) + 0.1 * _drift(presence[:, own:], old_presence)
        return {name: value * weights.get(name, 1.0) for name, value in named.items()}

    @torch.no_grad()
    def _before(self, pixels: Tensor, taps: tuple[Tensor, ...], condition: Tensor) -> tuple[Tensor, Tensor]:
        """What the network said before it was trained: logits (B, M, h, w) and presence (B, M)."""
        before = self.before.to(pixels.device)
        same = taps if self.shared_tower else self._taps(before, pixels, learning=False)
        logits, presence = before.answer(before.neck(same, before.classifier).float(), condition)
        return logits.float(), presence.float()

    def _taps(self, model: Model, pixels: Tensor, *, learning: bool) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(learning and torch.is_grad_enabled()):
            taps: tuple[Tensor, ...] = model.tower(pixels.contiguous(memory_format=torch.channels_last))
            return taps

    def _conditions(self, batch: Batch) -> Tensor:
        """(B, K, E): every name in one of its wordings, half the time the bare name."""
        generator = torch.Generator().manual_seed(batch.first)
        rows = []
        for name in (name for asked in batch.names for name in asked):
            draw, pick = torch.rand(2, generator=generator).tolist()
            choices = self.vectors[name]
            rows.append(choices[0 if draw < 0.5 else int(pick * len(choices))])
        return torch.stack(rows).view(len(batch.names), -1, rows[0].shape[0])

    def pictures(self) -> Image.Image:
        """Held-out photos in pairs: what the network says when it is asked for every name of the data, and the truth."""
        return answers(self.model, self.held_out, self.names)

    def finished(self, model: nn.Module) -> nn.Module:
        """The network with its adapters merged into the weights."""
        return merged(model) if self.options.rank else model


def _drift(logits: Tensor, before: Tensor) -> Tensor:
    """How far answers are from what they were: the mean Kullback-Leibler divergence of their probabilities, 0 at the start."""
    target = before.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(before, target)
    return F.binary_cross_entropy_with_logits(logits, target) - entropy


def adapted_parts(model: Model) -> list[str]:
    """Names of the linear layers and pointwise convolutions that get adapters: of the tower's later stages, the neck and the decoder."""
    fitting = (name for name, part in model.named_modules() if _pointwise(part))
    return [name for name in fitting if name.startswith(ADAPTED)]


def _pointwise(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1))


def other_names(text: StaticText, names: Sequence[str]) -> tuple[str, ...]:
    """Things that none of ``names`` means, by the text tower's own measure: what the network is held to while it learns these."""
    known = tuple(sorted({*SYNONYMS, *ELSEWHERE}))
    nearest = (text(known) @ text(names).T).amax(1).tolist()
    return tuple(name for name, cosine in zip(known, nearest, strict=True) if cosine < NEAR)


def _reserved(name: str) -> bool:
    """A quarter of the other names, the same in every run."""
    return zlib.crc32(name.encode()) % 4 == 0

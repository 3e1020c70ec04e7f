"""Training examples of PSALM's four kinds as batches, and what the network says to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .losses import LossConfig, Targets, language_loss, mask_losses
from .network import Network, Understood
from .predictor import Head
from .tokens import LONGEST, PromptBatch, PromptIds
from .tokens import collate as collate_prompts

__all__ = ["Batch", "Example", "answers", "batch_losses", "collate", "shuffle_classes"]


@dataclass(frozen=True, slots=True)
class Example:
    """One photo and one question.

    ``pixels`` (3, S, S) normalised; ``targets`` None in conversations. ``regions`` (K, S, S) bool, the visual prompts of the targets, one
    for each. ``places`` (C + 1,) int64: where the prompt names each class, whose numbers stay those of the data set.
    """

    pixels: Tensor
    prompt: PromptIds
    targets: Targets | None = None
    regions: Tensor | None = None
    places: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples of one kind; fields as in `Example`."""

    pixels: Tensor
    prompts: PromptBatch
    targets: tuple[Targets, ...] | None = None
    regions: tuple[Tensor, ...] | None = None
    places: Tensor | None = None


class Shuffles(Protocol):
    """Python's generator, or one like it."""

    def shuffle(self, x: list[int]) -> None:
        """Bring a list into another order, in place."""


def shuffle_classes(names: Sequence[str], random: Shuffles) -> tuple[list[str], Tensor]:
    """Class names in a random order, background with them, and the place (C + 1,) at which each now stands."""
    order = list(range(len(names)))
    random.shuffle(order)
    return [names[number] for number in order], torch.tensor(order).argsort()


def collate(examples: Sequence[Example], pad: int, longest: int = LONGEST) -> Batch:
    """``pad``: the id of [PAD]; ``longest``: ids at which a prompt is cut."""
    targets = tuple(example.targets for example in examples if example.targets is not None)
    regions = tuple(example.regions for example in examples if example.regions is not None)
    places = [example.places for example in examples if example.places is not None]
    return Batch(
        torch.stack([example.pixels for example in examples]),
        collate_prompts([example.prompt for example in examples], pad, longest),
        targets or None,
        regions or None,
        torch.stack(places) if places else None,
    )


def answers(model: Network, batch: Batch) -> tuple[Understood, list[Head]]:
    """What is understood of a batch, classes back in the data set's order, and every round of predictions; none for conversations."""
    maps, read = model.look(batch.pixels)
    tokens = model.projector(read[-1])
    regions = None if batch.regions is None else model.regions(tokens, model.draw(batch.regions))
    understood = model.understand(batch.prompts, tokens, regions)
    if batch.targets is None:
        return understood, []
    asked = understood.conditions
    if asked.classes is not None and batch.places is not None:
        classes = asked.classes.gather(1, batch.places[..., None].expand(-1, -1, asked.classes.shape[-1]))
        understood = replace(understood, conditions=replace(asked, classes=classes))
    return understood, model.predict(model.pixel_decoder(maps), understood, every=True)


def batch_losses(model: Network, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """Weighted losses by name: of masks and conditions, or of the next token."""
    understood, heads = answers(model, batch)
    if batch.targets is None:
        return {"language": language_loss(model.language.head(understood.states), understood.merged.labels)}
    return mask_losses(heads, batch.targets, config)

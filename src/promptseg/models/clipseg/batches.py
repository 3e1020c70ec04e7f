"""Training batches of CLIPSeg: items of a data set with their examples drawn, and what the network says to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...data.augment import Augmentation
from ...data.items import PromptSample
from ...data.randomness import Draws
from ...errors import ConfigError
from .mixing import mix
from .network import Model
from .prompts import AttentionTechnique, Drawing, technique
from .visual import denormalise, normalise


@dataclass(frozen=True, slots=True)
class Example:
    """One photo and what is asked of it.

    ``pixels`` (3, S, S) normalised; ``target`` (1, S, S) 0/1; ``prompt`` the phrase in its wording, None where only the picture counts;
    ``picture`` (3, s, s) normalised, an example as CLIP is shown it, or None; ``weight`` of the text, 0..1.
    """

    pixels: Tensor
    target: Tensor
    prompt: str | None
    picture: Tensor | None
    weight: float


@dataclass(frozen=True, slots=True)
class Batch:
    """B examples; ``pictures`` (K, 3, s, s) belong to the examples ``shown`` (K,). ``prompts`` has B texts or none."""

    pixels: Tensor
    targets: Tensor
    prompts: tuple[str, ...]
    pictures: Tensor | None
    shown: Tensor
    weights: Tensor


class Teller:
    """Turns items into examples: what the network is told, and how an example is drawn.

    ``condition``: "text", "picture" or "mixed". Where an item without example must be told by a picture, that is empty, as published.

    Raises:
        ConfigError: the technique restricts attention instead of drawing.
        PromptError: there is no such technique.
    """

    def __init__(self, condition: str, name: str, layers: int) -> None:
        show = technique(name, layers)
        if isinstance(show, AttentionTechnique):
            raise ConfigError(f"config.technique: training shows examples by drawing, and {name!r} restricts attention. Choose another.")
        self.condition, self._show = condition, show

    def __call__(self, item: PromptSample, draws: Draws) -> Example:
        """``draws`` are for techniques that draw by chance."""
        picture = None if self.condition == "text" else self._picture(item, draws)
        prompt = None if self.condition == "picture" else item.prompt
        return Example(item.image, item.target, prompt, picture, item.text_weight if picture is not None else 1.0)

    def _picture(self, item: PromptSample, draws: Draws) -> Tensor | None:
        if item.support is not None:
            return _drawn(self._show, item.support.image, item.support.mask, draws)
        if self.condition == "picture":
            return torch.zeros_like(_drawn(self._show, item.image, item.target[0], draws))
        return None


def _drawn(show: Drawing, image: Tensor, mask: Tensor, draws: Draws) -> Tensor:
    """What depends on torch's global generator depends on ``draws`` alone, and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draws.integer(2**31))
        return show(image, mask)


def augmented(item: PromptSample, change: Augmentation, draws: Draws) -> PromptSample:
    """Photo and target changed together; where the photo does not reach lies the mean colour, and nothing of what is asked."""
    shown = change(denormalise(item.image), item.target, draws)
    return replace(item, image=normalise(shown.image), target=shown.masks.float())


def collate(examples: Sequence[Example]) -> Batch:
    """Examples of one size as a batch."""
    shown = [index for index, example in enumerate(examples) if example.picture is not None]
    pictures = [example.picture for example in examples if example.picture is not None]
    return Batch(
        pixels=torch.stack([example.pixels for example in examples]),
        targets=torch.stack([example.target for example in examples]),
        prompts=tuple(example.prompt for example in examples if example.prompt is not None),
        pictures=torch.stack(pictures) if pictures else None,
        shown=torch.tensor(shown, dtype=torch.long),
        weights=torch.tensor([example.weight for example in examples]),
    )


def conditions(model: Model, batch: Batch) -> Tensor:
    """(B, E) float32: texts, pictures or both mixed; only what counts is encoded."""
    visual = None if batch.pictures is None else model.embed_images(batch.pictures).float()
    if not batch.prompts:
        assert visual is not None
        return visual
    text = model.embed_texts(batch.prompts).float()
    if visual is None:
        return text
    return text.index_copy(0, batch.shown, mix(text[batch.shown], visual, batch.weights[batch.shown]))


def answers(model: Model, batch: Batch) -> Tensor:
    """Each example's own prompt on its own photo -> logits (B, 1, S, S) float32."""
    logits: Tensor = model.decoder(model.encode_image(batch.pixels), conditions(model, batch)[:, None])
    return logits

"""A sixth family on one page, outside the package: it finds things by their colour. Tests put it into the table of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptseg.contracts import Card, DenseLogits, Options, Preprocess, PromptFeatures, Published, Recipe, Rename, Size, View
from promptseg.nn import views as windows
from promptseg.nn.conversion import load_official
from promptseg.prompts import Blend, Exemplar, Prompt, Text
from promptseg.segmenter import Segmenter
from promptseg.training.run import Run as TrainingRun

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1), "black": (0, 0, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig:
    """``reach``: squared distance in RGB, 0..3, up to which a colour counts as the one that was named."""

    reach: float = 0.3
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1)))


class Model(nn.Module):
    """logit = gain * (reach - squared distance between a pixel's colour and the prompt's)."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config, self.gain = config, nn.Parameter(torch.tensor(20.0))
        self.encodings = {"image": 0, "prompts": 0}

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        self.encodings["image"] += len(pixel_values)
        return F.avg_pool2d(pixel_values, 2)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        self.encodings["prompts"] += len(prompts)
        return PromptFeatures(tuple(prompts), torch.tensor([colour(prompt) for prompt in prompts], dtype=self.gain.dtype))

    def decode(self, image: Tensor, prompts: PromptFeatures) -> DenseLogits:
        distance = (image[:, None] - prompts.condition[None, :, :, None, None]).square().sum(2)
        return DenseLogits(self.gain * (self.config.reach - distance))

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        return windows.views(size, options, self.config.preprocess)

    def merge(self, predictions: Sequence[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
        return windows.merge(predictions, views, size)

    @classmethod
    def from_official(cls, config: ToyConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        model = cls(config)
        load_official(model, LAYOUTS, *state_dicts)
        return model.eval()


def colour(prompt: Prompt) -> Any:
    """RGB in 0..1; a word that names no colour is far from all of them."""
    if isinstance(prompt, Exemplar):
        return (np.asarray(prompt.image)[np.asarray(prompt.mask)].mean(axis=0) / 255).tolist()
    if isinstance(prompt, Blend):
        pair = np.array([colour(prompt.text), colour(prompt.exemplar)])  # type: ignore[arg-type]
        return (prompt.alpha * pair[0] + (1 - prompt.alpha) * pair[1]).tolist()
    assert isinstance(prompt, Text)
    return next((rgb for word, rgb in COLOURS.items() if word in prompt.text.split()), (-3, -3, -3))


LAYOUTS = {"official": (Rename("toy.gain", "gain"),), "hf": (Rename("model.gain", "gain"),)}

CARD = Card(
    name="toy",
    family="toy",
    config=ToyConfig(),
    summary="Finds colours by name.",
    source="nobody's paper",
    code_license="Apache-2.0",
    weights_license="none needed",
    tasks=("masks", "semantic"),
    prompts=("text", "exemplar", "blend"),
    parameters=1,
    preprocess=ToyConfig().preprocess,
    published=(Published(layout="official", files=("toy.pth",), url="nowhere"),),
)
CARDS = (CARD,)


class Run(TrainingRun):
    """Learns how sharp the edges between colours are, from photos of thirds."""

    def __init__(self, recipe: Recipe, log: Callable[[str], None]) -> None:
        self.model = Model(ToyConfig())
        log("nothing to prepare")

    def example(self, number: int) -> Tensor:
        return torch.from_numpy(np.roll(photo(32, 48), number, axis=1)).permute(2, 0, 1) / 255

    def collate(self, examples: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(examples))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        names = [Text(name) for name in ("red", "green", "blue")]
        logits = self.model.decode(self.model.encode_image(batch), self.model.encode_prompts(names)).logits
        return {"mask": F.binary_cross_entropy_with_logits(logits, F.avg_pool2d(batch, 2))}


def two_steps() -> Recipe:
    """The shortest recipe that there can be."""
    return Recipe(name="toy", card="toy", data="none", output="runs/toy", steps=2, batch_size=1, lr=0.5)


RECIPES = {"toy": two_steps}


def segmenter(**arguments: Any) -> Segmenter:
    """A ready one."""
    return Segmenter(Model(ToyConfig()), CARD, **{"device": "cpu", "precision": "float32", **arguments})


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Left third red, middle green, right blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for channel in range(3):
        pixels[:, channel * width // 3 : (channel + 1) * width // 3, channel] = 255
    return pixels

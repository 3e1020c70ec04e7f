"""PSALM's training run: four kinds of questions in turn, one network for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from ...contracts import Recipe
from ...data.randomness import Draws, Epochs
from ...data.samples import spread
from ...errors import ConfigError
from ...training.distributed import everybodys, moved, my_part
from ...training.lora import adapt, merged
from ...training.run import Run
from ...zoo import read_weights
from .batches import Batch, Example, batch_losses, collate
from .losses import LossConfig
from .matching import Costs
from .mixing import Mix
from .model import Model
from .questions import Conversations, Interactive, Panoptic, Questions, Referring
from .recipes import LANGUAGE_PARTS, PsalmTraining, Source, Weighting
from .start import start
from .tokens import Tokenizer
from .validation import Figure

FILES: dict[str, Callable[[Path, Path, Tokenizer, int], Questions]] = {
    "referring": Referring,
    "interactive": Interactive,
    "conversation": Conversations,
}


class PsalmRun(Run):
    """See `training.run.Run`. Every epoch goes through the mix in an order of its own; whose turn it is, the example's number says."""

    model: Model

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, PsalmTraining)
        self.seed, self.options, self.losses_of = recipe.seed, options, loss_config(options.losses)
        self.tokenizer = Tokenizer() if options.tokenizer is None else Tokenizer.from_folder(Path(options.tokenizer))
        root, side = Path(recipe.data).expanduser(), options.config.preprocess.size
        self.sources = [_Joined(_opened(source, root, self.tokenizer, side)) for source in options.sources]
        for source, questions in zip(options.sources, self.sources, strict=True):
            if source.kind == "panoptic" and options.config.classes not in ((), questions.names[:-1]):
                raise ConfigError(f"config.classes are not the {len(questions.names) - 1} of {', '.join(source.path)}, in their order.")
        held_out = options.validation if recipe.validate_every is not None else ()
        if recipe.validate_every is not None and not held_out:
            raise ConfigError("validate_every needs options.validation: sources that are held out, such as val2017 of COCO panoptic.")
        self.held_out = [(source.kind, _Joined(_opened(source, root, self.tokenizer, side))) for source in held_out]
        self.mix = Mix([len(source) for source in self.sources], [source.ratio for source in options.sources], options.every)
        self.place = Epochs(len(self.mix), recipe.seed)
        counts = ", ".join(f"{len(found)} {source.kind}" for source, found in zip(options.sources, self.sources, strict=True))
        log(f"data: {counts} questions in {root}; weights: {', '.join(options.weights) or 'random'}")
        torch.manual_seed(recipe.seed)
        self.model = Model.from_official(options.config, *map(read_weights, options.weights)) if options.weights else Model(options.config)
        self.model.words = self.tokenizer
        start(self.model, options.language, options.masks, options.projector)
        if options.lora is not None:
            adapt(self.model.language, LANGUAGE_PARTS, options.lora)

    def example(self, number: int) -> Example:
        source, index, draws = self._place(number)
        return self.sources[source].example(index, Random(draws.integer(2**31)))

    def collate(self, examples: Sequence[Example]) -> Batch:
        """
        Raises:
            ConfigError: the examples are not all of one kind.
        """
        if len({(one.targets is None, one.regions is None, one.places is None) for one in examples}) > 1:
            raise ConfigError(
                f"{len(examples)} examples at once reach into the next source's turn of {self.options.every}: choose batch_size and "
                "accumulate so that a process's part divides every."
            )
        return collate(examples, self.tokenizer.pad, self.model.config.language.context)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        return batch_losses(self.model, batch, self.losses_of)

    def validate(self) -> dict[str, float]:
        """One figure for every held-out source (`validation.Figure`), of questions spread evenly over it. Processes divide them."""
        figures: dict[str, float] = {}
        device, most = self.model.mask_tokens.device, self.options.validated
        with torch.random.fork_rng(devices=[]):  # training goes on with the numbers that it would have drawn
            torch.manual_seed(0)
            for kind, questions in self.held_out:
                chosen, figure = spread(range(len(questions)), most), Figure(kind, questions.names)
                for index in (chosen[place] for place in my_part(len(chosen))):
                    example = questions.example(index, Random(index))
                    figure.count(self.model, example, moved(self.collate([example]), device))
                figures |= Figure.of(everybodys(figure))
        return figures

    def describe(self, number: int) -> str:
        source, index, _ = self._place(number)
        return f"{self.options.sources[source].kind}: {self.sources[source].describe(index)}"

    def finished(self, model: nn.Module) -> nn.Module:
        """Adapters are added to the weights."""
        return model if self.options.lora is None else merged(model)

    def _place(self, number: int) -> tuple[int, int, Draws]:
        """An example's source, its number there, and what it draws from."""
        source, index = self.mix.place(number, self.place(number)[1])
        return source, index, Draws(self.seed, number)


class _Joined(Questions):
    """Several files as one source."""

    def __init__(self, parts: Sequence[Questions]) -> None:
        self.parts = parts
        self.names = parts[0].names

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def example(self, index: int, random: Random) -> Example:
        part, place = self._part(index)
        return part.example(place, random)

    def describe(self, index: int) -> str:
        part, place = self._part(index)
        return part.describe(place)

    def _part(self, index: int) -> tuple[Questions, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)


def _opened(source: Source, root: Path, tokenizer: Tokenizer, side: int) -> list[Questions]:
    if source.kind == "panoptic":
        return [Panoptic(root / path, source.split, tokenizer, side) for path in source.path]
    return [FILES[source.kind](root / path, root / source.photos, tokenizer, side) for path in source.path]


def loss_config(weights: Weighting) -> LossConfig:
    """What a recipe says of the losses, as they take it."""
    costs = Costs(points=weights.points)
    return LossConfig(mask=weights.mask, dice=weights.dice, condition=weights.condition, background=weights.background, costs=costs)

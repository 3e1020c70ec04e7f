"""The training run of CLIPSeg and its baselines: published data, a frozen CLIP, one loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...contracts import Recipe
from ...data.coco20i import Coco20i
from ...data.items import PromptData, PromptSample
from ...data.lvis import LvisOneShot
from ...data.phrasecut import PhraseCut, phrases
from ...data.randomness import Draws
from ...data.samples import spread
from ...data.sheet import compared
from ...data.vocabularies import templates
from ...metrics import ThresholdSweep, merged
from ...training.distributed import everybodys, moved, my_part
from ...training.run import Run
from .batches import Batch, Example, Teller, answers, augmented, collate
from .losses import mask_loss
from .network import Model
from .recipes import Categories, ClipSegOptions, Episodes
from .start import starting_network
from .visual import denormalise
from .wordings import TEMPLATE_SETS

VALIDATION_TEMPLATES = templates("photo-bare")
AT_ONCE = 8  # validation items
THRESHOLD = 0.3  # of the paintings; the paper's for CLIPSeg
TELLING, CHANGING = 1, 2  # keys of the draws with which examples are shown and photos changed, apart from those of their items


class ClipSegRun(Run):
    """See `training.run.Run`. Every epoch goes through the items in the same order, as published; only their draws differ."""

    model: Model

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, ClipSegOptions)
        self.seed, self.augmentation = recipe.seed, options.augmentation
        self.tell = Teller(options.condition, options.config.technique, options.config.image.layers)
        root = Path(recipe.data).expanduser()
        self.items = training_items(root, options, recipe.seed)
        wanted = recipe.validate_every is not None or recipe.pictures_every is not None
        if wanted:
            self.asked = validation_items(root, options)
            self.looked_at = spread(range(len(self.asked)), options.validation)
        log(f"data: {len(self.items)} items in {root}; CLIP: {options.clip or 'random towers'}")
        self.model = starting_network(options, recipe.seed)

    def example(self, number: int) -> Example:
        epoch, index = divmod(number, len(self.items))
        self.items.epoch = epoch
        item = self.items[index]
        if self.augmentation is not None:
            item = augmented(item, self.augmentation, Draws(self.seed, epoch, index, CHANGING))
        return self.tell(item, Draws(self.seed, epoch, index, TELLING))

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"mask": mask_loss(answers(self.model, batch), batch.targets)}

    def describe(self, number: int) -> str:
        epoch, index = divmod(number, len(self.items))
        return f"{self.items.describe(index)}, epoch {epoch}"

    def validate(self) -> dict[str, float]:
        """mIoU, IoU_FG and IoU_BIN, each at its best threshold, and AP, as the paper counts them. Processes divide the items."""
        sweep = ThresholdSweep()
        for item, scores in self._answered(my_part(len(self.looked_at))):
            sweep.update(item.group, scores, item.target[0].numpy() > 0)
        found = merged(everybodys(sweep)).compute()
        best = {"mIoU": found.best("mean").mean, "IoU_FG": found.best("foreground").foreground, "IoU_BIN": found.best("binary").binary}
        return {**best, "AP": found.average_precision}

    def pictures(self) -> Image.Image:
        """Validation photos in pairs: what the network says, and the truth."""
        answered = self._answered(spread(range(len(self.looked_at))))
        return compared(
            (_photo(item), {item.phrase: scores > THRESHOLD}, {item.phrase: item.target[0].numpy() > 0}) for item, scores in answered
        )

    @torch.no_grad()
    def _answered(self, places: Sequence[int]) -> Iterator[tuple[PromptSample, NDArray[np.float32]]]:
        """Validation items and their scores (S, S), 0..1."""
        device = self.model.text.projection.device
        for first in range(0, len(places), AT_ONCE):
            chosen = [self.looked_at[place] for place in places[first : first + AT_ONCE]]
            items = [self.asked[index] for index in chosen]
            batch = collate([self.tell(item, Draws(self.seed, index)) for item, index in zip(items, chosen, strict=True)])
            scores = answers(self.model, moved(batch, device)).sigmoid()[:, 0].cpu().numpy()
            yield from zip(items, scores, strict=True)


def training_items(root: Path, options: ClipSegOptions, seed: int) -> PromptData:
    """What the network learns from.

    Raises:
        DataError: the data set is not at ``root``.
        ConfigError: an impossible option.
    """
    wanted, shown = options.items, options.condition != "text"
    mixed = options.condition == "mixed"
    wordings = TEMPLATE_SETS[options.mixing.templates if mixed else "plain"]  # without mixing phrases go in bare, as published
    weight = (options.mixing.low, options.mixing.high) if mixed else None
    if isinstance(wanted, Episodes):
        return Coco20i(
            root, wanted.fold, split="train", image_size=options.size, negatives=wanted.negatives, templates=wordings,
            text_weight=weight, seed=seed,
        )  # fmt: skip
    if isinstance(wanted, Categories):
        return LvisOneShot(
            root, image_size=options.size, min_share=wanted.min_share, removed=wanted.removed, templates=wordings, text_weight=weight,
            seed=seed,
        )  # fmt: skip
    return PhraseCut(
        phrases(root, "train"), image_size=options.size, negatives=wanted.negatives, removed=wanted.removed, with_support=shown,
        only_supported=wanted.only_supported, templates=wordings, text_weight=weight, seed=seed,
    )  # fmt: skip


def validation_items(root: Path, options: ClipSegOptions) -> PromptData:
    """What it is tried on: the split val of PhraseCut or LVIS, or the fold's test episodes; asked in one wording, or by pictures.

    Raises:
        DataError: the data set is not at ``root``.
    """
    pictures = options.condition == "picture"
    if isinstance(options.items, Episodes):
        return Coco20i(root, options.items.fold, image_size=options.size, templates=VALIDATION_TEMPLATES)
    if isinstance(options.items, Categories):
        return LvisOneShot(root, "val", image_size=options.size, min_share=options.items.min_share, templates=VALIDATION_TEMPLATES)
    return PhraseCut(
        phrases(root, "val"), image_size=options.size, crop=False, with_support=pictures, only_supported=pictures,
        templates=VALIDATION_TEMPLATES, shuffle=False,
    )  # fmt: skip


def _photo(item: PromptSample) -> NDArray[np.uint8]:
    """(S, S, 3)."""
    return (denormalise(item.image) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()

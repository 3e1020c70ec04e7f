"""DenseCLIP's training run for segmentation: ADE20K, the head's loss and the score map's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...contracts import Options, Preprocess, Recipe, View
from ...data.ade20k import ade150
from ...data.randomness import Draws, shuffled
from ...data.samples import IGNORE
from ...errors import ConfigError
from ...images import to_pixels
from ...metrics import SemanticIoU, merged
from ...prompts import Text
from ...training.distributed import everybodys, my_part
from ...training.run import Run
from ...zoo import read_weights
from .config import SemanticHead
from .imagenet import ImageNetEncoder, start_from_imagenet
from .losses import segmentation_losses
from .network import Model
from .photos import Augment
from .recipes import DenseClipTraining
from .start import start_from_clip


@dataclass(frozen=True, slots=True)
class Batch:
    """``pixels`` (B, 3, side, side), normalised; ``labels`` (B, side, side) int64, `IGNORE` where nothing is known."""

    pixels: Tensor
    labels: Tensor


class DenseClipRun(Run):
    """See `training.run.Run`. Every epoch goes through the photos in an order of its own."""

    model: Model
    _epoch: tuple[int, Sequence[int]] = (-1, ())  # the newest one, and its order

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, DenseClipTraining)
        head = options.config.head
        assert isinstance(head, SemanticHead)
        self.seed, self.options, self.side = recipe.seed, options, head.crop
        root = Path(recipe.data).expanduser()
        self.photos = ade150(root, "training")
        if self.photos.classes != options.config.classes:
            raise ConfigError("The network's classes are not those of ADE20K, in its order; this run trains on no others.")
        self.augment = Augment(limits=head.limits, crop=head.crop, ignore=IGNORE)
        if recipe.validate_every is not None:
            asked = ade150(root, "validation")
            self.asked = [asked[index] for index in range(0, len(asked), -(-len(asked) // options.validation))]
        clip = options.clip
        log(f"data: {len(self.photos)} photos of {len(self.photos.classes)} classes in {root}; CLIP: {clip or 'random towers'}")
        torch.manual_seed(recipe.seed)
        self.model = Model(options.config)
        if clip is not None:
            start_from_clip(self.model, read_weights(clip), partial=options.partial)
        if options.imagenet is not None and isinstance(self.model.image, ImageNetEncoder):
            start_from_imagenet(self.model.image, read_weights(options.imagenet))
        self.model.train()

    def example(self, number: int) -> Batch:
        epoch, index = self._place(number)
        sample = self.photos[index]
        photo, labels = self.augment(sample.image(), sample.labels(), Draws(self.seed, epoch, index).integer(2**31))
        size = (photo.shape[0], photo.shape[1])
        look = self.model.config.preprocess
        pixels = to_pixels(photo, View((0, 0, size[1], size[0]), size, size), Preprocess(size=1, mean=look.mean, std=look.std))
        margin = (0, self.side - size[1], 0, self.side - size[0])  # filled with the mean colour, of which nothing is known
        known = torch.from_numpy(labels.astype(np.int64))
        return Batch(F.pad(pixels, margin)[None], F.pad(known, margin, value=IGNORE)[None])

    def collate(self, examples: Sequence[Batch]) -> Batch:
        return Batch(torch.cat([one.pixels for one in examples]), torch.cat([one.labels for one in examples]))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits, scores = self.model(batch.pixels)
        language = self.model.config.language
        return segmentation_losses(logits, scores, batch.labels, language.tau if language else 1.0, IGNORE)

    def describe(self, number: int) -> str:
        epoch, index = self._place(number)
        return f"{self.photos[index].id}, epoch {epoch}"

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """mIoU on photos of the validation split, in windows as published. Processes divide them."""
        total = SemanticIoU(self.photos.classes, ignore=IGNORE)
        features = self.model.encode_prompts([Text(name) for name in self.model.classes])
        device = self.model.head.classify.weight.device
        for sample in (self.asked[index] for index in my_part(len(self.asked))):
            photo = sample.image()
            size = (photo.shape[0], photo.shape[1])
            views = self.model.views(size, Options())
            pixels = (to_pixels(photo, view, self.model.config.preprocess)[None].to(device) for view in views)
            found = (self.model.decode(self.model.encode_image(one), features) for one in pixels)
            logits = self.model.merge(found, views, size).logits.float()
            labels = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(0)
            total.update(labels.cpu().numpy(), sample.labels())
        return {"mIoU": merged(everybodys(total)).compute().mean_iou}

    def _place(self, number: int) -> tuple[int, int]:
        """An example's epoch, and the index of its photo."""
        epoch, place = divmod(number, len(self.photos))
        if self._epoch[0] != epoch:
            self._epoch = epoch, shuffled(range(len(self.photos)), self.seed, epoch)
        return epoch, self._epoch[1][place]

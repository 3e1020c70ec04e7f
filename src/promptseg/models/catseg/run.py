"""CAT-Seg's training run: COCO-Stuff, one loss, CLIP's weights partly learning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ...contracts import DenseLogits, Preprocess, Recipe, View
from ...data.coco import coco_stuff
from ...data.randomness import Draws, Epochs
from ...data.samples import IGNORE, LabelSample, by_class, spread
from ...data.sheet import compared
from ...errors import ConfigError
from ...images import to_pixels
from ...metrics import SemanticIoU, merged
from ...prompts import Text
from ...training.distributed import everybodys, my_part
from ...training.run import Run
from ...zoo import read_weights
from .config import CatSegOptions
from .losses import class_loss
from .mapper import Mapper
from .network import Model
from .recipes import CatSegTraining
from .tuning import tune

LONGEST = 1333  # side of the resized photos in training


@dataclass(frozen=True, slots=True)
class Batch:
    """``pixels`` (B, 3, side, side), normalised; ``labels`` (B, h, w) int64, `IGNORE` where nothing is known."""

    pixels: Tensor
    labels: Tensor


class CatSegRun(Run):
    """See `training.run.Run`. Every epoch goes through the photos in an order of its own."""

    model: Model

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, CatSegTraining)
        self.seed, self.options = recipe.seed, options
        root, square = Path(recipe.data).expanduser(), (options.crop, options.crop)
        self.photos = coco_stuff(root, "train2017")
        self.place = Epochs(len(self.photos), recipe.seed)
        self.mapper = Mapper(short=(options.crop,), long=LONGEST, crop=square, padded=square, pad_label=IGNORE)
        if recipe.validate_every is not None or recipe.pictures_every is not None:
            asked = coco_stuff(root, "val2017")
            self.asked = spread(asked, options.validation)
        self.names = [Text(name) for name in self.photos.classes]
        log(f"data: {len(self.photos)} photos of {len(self.names)} classes in {root}; CLIP: {options.clip or 'random towers'}")
        torch.manual_seed(recipe.seed)
        clip = options.clip
        self.model = Model(options.config) if clip is None else Model.from_clip(options.config, read_weights(clip))
        tune(self.model.train(), options.mode)
        _check_rates(self.model, recipe)

    def example(self, number: int) -> Batch:
        epoch, index = self.place(number)
        sample = self.photos[index]
        photo, labels, _ = self.mapper(sample.image(), sample.labels(), Draws(self.seed, epoch, index).integer(2**31))
        return Batch(self._pixels(photo)[None], torch.from_numpy(np.ascontiguousarray(labels)).long()[None])

    def collate(self, examples: Sequence[Batch]) -> Batch:
        return Batch(torch.cat([one.pixels for one in examples]), torch.cat([one.labels for one in examples]))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.model(batch.pixels, self.names).logits
        return {"class": class_loss(logits, batch.labels, IGNORE)}

    def describe(self, number: int) -> str:
        epoch, index = self.place(number)
        return f"{self.photos[index].id}, epoch {epoch}"

    def finished(self, model: nn.Module) -> nn.Module:
        """The same weights without the pooling of training, as the published models are asked."""
        assert isinstance(model, Model)
        with torch.device("meta"):  # no random numbers are drawn between two steps
            result = Model(replace(model.config, pooling=1))
        result.load_state_dict(model.state_dict(), assign=True)
        return result

    def validate(self) -> dict[str, float]:
        """mIoU on photos of the validation split, seen whole and with the pooling of training, as published. Processes divide them."""
        total = SemanticIoU(self.photos.classes, ignore=IGNORE, absent="labelled")
        for sample, _, labels in self._answered(self.asked[index] for index in my_part(len(self.asked))):
            total.update(labels, sample.labels())
        return {"mIoU": merged(everybodys(total)).compute().mean_iou}

    def pictures(self) -> Image.Image:
        """Validation photos in pairs: what the network says, and the truth."""
        answered = self._answered(spread(self.asked))
        return compared((photo, by_class(labels, self.photos.classes), sample.masks()[0]) for sample, photo, labels in answered)

    @torch.no_grad()
    def _answered(self, samples: Iterable[LabelSample]) -> Iterator[tuple[LabelSample, NDArray[np.uint8], NDArray[np.int64]]]:
        """Photos, and the best class (H, W) of each pixel."""
        features, device = self.model.encode_prompts(self.names), self.model.text.projection.device
        for sample in samples:
            photo = sample.image()
            size = (photo.shape[0], photo.shape[1])
            (view,) = self.model.views(size, CatSegOptions(mode="whole"))
            pixels = self.model.prepare(to_pixels(photo, view, self.model.config.preprocess), view)
            logits = self.model.decode(self.model.encode_image(pixels[None].to(device)), features).logits
            best, labels = np.full(size, -1, np.float32), np.zeros(size, np.int64)
            for index, scores in enumerate(self.model.to_scores(DenseLogits(logits.float().cpu()), size)):
                labels[scores > best] = index
                np.maximum(best, scores, out=best)
            yield sample, photo, labels

    def _pixels(self, photo: np.ndarray) -> Tensor:
        """uint8 (h, w, 3) -> what CLIP sees, (3, side, side)."""
        config = self.options.config
        size = (photo.shape[0], photo.shape[1])
        view = View((0, 0, size[1], size[0]), size, size)
        pixels = to_pixels(np.ascontiguousarray(photo), view, Preprocess(size=1, mean=config.preprocess.mean, std=config.preprocess.std))
        return nn.functional.interpolate(pixels[None], (config.side, config.side), mode="bilinear", align_corners=False)[0]


def _check_rates(model: Model, recipe: Recipe) -> None:
    """CLIP learns at a rate of its own, so whoever changes the mode of a recipe has to say which.

    Raises:
        ConfigError: a tensor of CLIP learns that no group names.
    """
    named = [pattern for rule in recipe.groups for pattern in rule.pattern.split("|")]
    for name, parameter in model.named_parameters():
        clip = parameter.requires_grad and not name.startswith(("aggregator.", "upsample"))
        if clip and not any(fnmatchcase(name, pattern) for pattern in named):
            raise ConfigError(
                f"In mode {recipe.options.mode!r} {name} of CLIP learns, but no group says how fast. Start from that mode's recipe, or "
                "name it in groups."
            )

"""DenseCLIP's training run for segmentation: ADE20K or one's own label maps, the head's loss and the score map's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...contracts import Options, Preprocess, Recipe, View
from ...data.ade20k import ade150
from ...data.own import kind_of, own
from ...data.photosets import is_validation
from ...data.randomness import Draws, Epochs
from ...data.samples import IGNORE, LabelSample, PhotoSet, by_class, spread
from ...data.sheet import compared
from ...data.whole_maps import context60, voc21
from ...errors import ConfigError, DataError
from ...images import to_pixels
from ...metrics import SemanticIoU, merged
from ...prompts import Text
from ...training.distributed import everybodys, my_part
from ...training.run import Run
from .config import SemanticHead
from .losses import segmentation_losses
from .network import Model
from .photos import Augment
from .recipes import DenseClipTraining
from .start import start

Reader: TypeAlias = Callable[[Path, str], PhotoSet[LabelSample]]
_VOC = {"training": "train", "validation": "val"}
PUBLISHED: Mapping[str, tuple[str, Reader, Mapping[str, str]]] = {  # title, reader, its names of the splits
    "ade20k": ("ADE20K", ade150, {"training": "training", "validation": "validation"}),
    "voc": ("Pascal VOC", voc21, _VOC),
    "context": ("PASCAL-Context", context60, _VOC),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """``pixels`` (B, 3, side, side), normalised; ``labels`` (B, side, side) int64, `IGNORE` where nothing is known."""

    pixels: Tensor
    labels: Tensor


class DenseClipRun(Run):
    """See `training.run.Run`. Every epoch goes through the photos in an order of its own."""

    model: Model

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, DenseClipTraining)
        head = options.config.head
        assert isinstance(head, SemanticHead)
        self.seed, self.options, self.side = recipe.seed, options, head.crop
        root = Path(recipe.data).expanduser()
        self.photos = labelled(root, options, "training")
        self.place = Epochs(len(self.photos), recipe.seed)
        self.augment = Augment(limits=head.limits, crop=head.crop, ignore=IGNORE)
        if recipe.validate_every is not None or recipe.pictures_every is not None:
            asked = labelled(root, options, "validation")
            self.asked = spread(asked, options.validation)
        log(f"data: {len(self.photos)} photos of {len(options.config.classes)} classes in {root}")
        torch.manual_seed(recipe.seed)
        self.model = Model(options.config)
        start(self.model, options.clip, options.imagenet, log, partial=options.partial)
        self.model.train()

    def example(self, number: int) -> Batch:
        epoch, index = self.place(number)
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
        epoch, index = self.place(number)
        return f"{self.photos[index].id}, epoch {epoch}"

    def validate(self) -> dict[str, float]:
        """mIoU on photos of the validation split, in windows as published. Processes divide them."""
        total = SemanticIoU(self.model.classes, ignore=IGNORE)
        for sample, _, labels in self._answered(self.asked[index] for index in my_part(len(self.asked))):
            total.update(labels, sample.labels())
        return {"mIoU": merged(everybodys(total)).compute().mean_iou}

    def pictures(self) -> Image.Image:
        """Validation photos in pairs: what the network says, and the truth."""
        answered = self._answered(spread(self.asked))
        return compared((photo, by_class(labels, self.model.classes), sample.masks()[0]) for sample, photo, labels in answered)

    @torch.no_grad()
    def _answered(self, samples: Iterable[LabelSample]) -> Iterator[tuple[LabelSample, NDArray[np.uint8], NDArray[np.int64]]]:
        """Photos, and the best class (H, W) of each pixel."""
        features = self.model.encode_prompts([Text(name) for name in self.model.classes])
        device = self.model.head.classify.weight.device
        for sample in samples:
            photo = sample.image()
            size = (photo.shape[0], photo.shape[1])
            views = self.model.views(size, Options())
            pixels = (to_pixels(photo, view, self.model.config.preprocess)[None].to(device) for view in views)
            found = (self.model.decode(self.model.encode_image(one), features) for one in pixels)
            logits = self.model.merge(found, views, size).logits.float()
            labels = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(0)
            yield sample, photo, labels.cpu().numpy()


def labelled(root: Path, options: DenseClipTraining, split: Literal["training", "validation"]) -> Sequence[LabelSample]:
    """Photos of a split whose labels count the network's classes.

    Raises:
        DataError: there are none, they are no label maps, or know not all of the classes.
        ConfigError: the network's classes are not those of the published data set that is asked for.
    """
    wanted = options.config.classes
    if options.dataset != "own":
        title, read, splits = PUBLISHED[options.dataset]
        scenes = read(root, splits[split])
        if scenes.classes != wanted:
            raise ConfigError(f"The network's classes are not those of {title}, in its order; for others: options.dataset=own.")
        return scenes
    if kind_of(root) != "maps":
        raise DataError(f"{root} holds no label maps (images/, labels/ and classes.txt), which this run trains on.")
    photos: PhotoSet[LabelSample] = own(root, zero="ignore")
    if lacking := [name for name in wanted if name not in photos.classes]:
        raise DataError(f"{root / 'classes.txt'} knows no {', '.join(lacking[:5])}: name classes of the list in options.config.classes.")
    places = np.array([*(wanted.index(name) if name in wanted else IGNORE for name in photos.classes), IGNORE])  # the last: of IGNORE, -1
    kept = [photo for photo in photos if is_validation(photo.id) == (split == "validation")]
    if not kept:
        raise DataError(f"Of the {len(photos)} photos in {root} none is for {split}: there are too few.")
    return [replace(photo, classes=wanted, labels=partial(_renamed, photo, places)) for photo in kept]


def _renamed(photo: LabelSample, places: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    renamed: NDArray[np.int32] = places[photo.labels()].astype(np.int32)
    return renamed

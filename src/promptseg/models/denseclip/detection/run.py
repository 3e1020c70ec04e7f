"""The detectors' training run: COCO's instances, the heads' losses and the score map's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ....contracts import Recipe
from ....data.coco import coco_instances
from ....data.randomness import Draws, Epochs
from ....data.samples import spread
from ....detections import instances
from ....embeddings import tree_map
from ....errors import ConfigError, DataError
from ....images import to_pixels
from ....metrics import BoxAP, Found, Labelled, MaskAP, merged
from ....prompts import Text
from ....training.distributed import everybodys, my_part
from ....training.run import Run
from ..config import MaskHead
from ..start import start
from .anchored import Truth
from .asking import DetectionOptions
from .network import Detector
from .photos import shown
from .picking import LEAST
from .recipes import DetectionTraining


@dataclass(frozen=True, slots=True)
class Batch:
    """``pixels`` (B, 3, H, W), normalised, padded at the right and bottom; ``truths`` what is in each image."""

    pixels: Tensor
    truths: tuple[Truth, ...]


class DetectionRun(Run):
    """See `training.run.Run`. Every epoch goes through the photos with something to find in an order of its own."""

    model: Detector

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, DetectionTraining)
        self.seed, self.options = recipe.seed, options
        root = Path(recipe.data).expanduser()
        photos = coco_instances(root, "train2017")
        if photos.classes != options.config.classes:
            raise ConfigError("The network's classes are not those of the annotations, in their order; this run trains on no others.")
        self.photos = [sample for sample in photos if not sample.empty]
        self.place = Epochs(len(self.photos), recipe.seed)
        if not self.photos:
            raise DataError(f"{root}: no photo of train2017 has anything annotated. Check annotations/instances_train2017.json.")
        if recipe.validate_every is not None:
            asked = coco_instances(root, "val2017")
            self.asked = spread(asked, options.validation)
        log(f"data: {len(self.photos)} photos of {len(photos.classes)} classes in {root}")
        torch.manual_seed(recipe.seed)
        self.model = Detector(options.config)
        start(self.model, options.clip, options.imagenet, log)
        self.model.train()

    def example(self, number: int) -> Batch:
        epoch, index = self.place(number)
        sample, options = self.photos[index], self.options
        mirrored = bool(Draws(self.seed, epoch, index).integer(2))
        limits = (options.long, options.short)
        config = options.config
        pixels, truth = shown(sample.image(), sample.regions(), config.classes, config.preprocess, limits, mirrored)
        return Batch(pixels[None], (truth,))

    def collate(self, examples: Sequence[Batch]) -> Batch:
        height, width = (max(one.pixels.shape[axis] for one in examples) for axis in (2, 3))
        pixels = [F.pad(one.pixels, (0, width - one.pixels.shape[3], 0, height - one.pixels.shape[2])) for one in examples]
        return Batch(torch.cat(pixels), tuple(truth for one in examples for truth in one.truths))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.model.losses(batch.pixels, batch.truths)

    def describe(self, number: int) -> str:
        epoch, index = self.place(number)
        return f"{self.photos[index].id}, epoch {epoch}"

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """COCO's AP of boxes, and of masks where the network has them. Processes divide the photos."""
        classes, options = self.model.classes, self.options
        boxes, masks = BoxAP(classes), MaskAP(classes)
        features = self.model.encode_prompts([Text(name) for name in classes])
        asking = DetectionOptions(long=options.long, short=options.short)
        for sample in (self.asked[index] for index in my_part(len(self.asked))):
            photo = sample.image()
            size = (photo.shape[0], photo.shape[1])
            (view,) = self.model.views(size, asking)
            pixels = self.model.prepare(to_pixels(photo, view, self.model.config.preprocess), view)
            answer = self.model.decode(self.model.encode_image(pixels[None].to(features.condition.device)), features)
            here = tree_map(lambda tensor: tensor.float().cpu(), answer)
            things = instances(self.model.merge([here], [view], size), size, classes, threshold=LEAST)
            found = [
                Found({"size": size, "counts": mask.runs.to_string()}, label, mask.score, box=(box[0], box[1], box[2], box[3]))
                for mask, label, box in zip(things, things.labels, things.boxes.tolist(), strict=True)
            ]
            truth = [Labelled(one.mask, one.name, one.crowd, float(one.mask.sum()), one.box) for one in sample.regions()]
            boxes.update(sample.id, found, truth)
            masks.update(sample.id, found, truth)
        figures = {"box AP": merged(everybodys(boxes)).compute().ap}
        return figures | ({"mask AP": merged(everybodys(masks)).compute().ap} if isinstance(options.config.head, MaskHead) else {})

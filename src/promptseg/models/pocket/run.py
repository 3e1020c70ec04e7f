"""The training run of `pocket`: reads the photographs, builds the starting network, turns a batch into losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...contracts import Recipe
from ...data import photosets
from ...data.asked_crops import Batch, Example, TrainingPhoto, collate
from ...data.captions import captioned_photos
from ...errors import ConfigError, DataError
from ...nn.efficientnet_config import HEAD
from ...training import checkpoints
from ...training.chain import left_by
from ...training.pretrained import efficientnet
from ...training.run import Run as TrainingRun
from .batches import Examples
from .config import PocketConfig
from .distill import distill
from .losses import alignment_loss, mask_losses, presence_loss
from .network import Model, normalise
from .photos import in_memory
from .pictures import answers
from .pseudo import pseudo_labelled
from .recipes import PocketOptions, earlier
from .start import SAID, labelled
from .vocabulary import ELSEWHERE, PLAIN_NAMES, RARE_WITH_PEOPLE, SYNONYMS, wordings

START = "start-seed{}.safetensors"  # the network before its first step
Log = Callable[[str], None]


def training_photos(root: Path) -> list[photosets.AnnotatedPhoto]:
    """The training split of every annotated set under ``root``."""
    return [photo for photo in _annotated(root) if not photo.validation]


def _annotated(root: Path) -> list[photosets.AnnotatedPhoto]:
    return [
        *photosets.coco(root / "coco"),
        *photosets.people(root / "coco_person"),
        *photosets.label_maps(root / "msrc", "msrc", drop=("horse",)),
        *photosets.label_maps(root / "camvid", "camvid"),
        *photosets.label_maps(root / "ccp", "ccp", zero_is_known=True),
    ]


class PocketRun(TrainingRun):
    """See `training.run.Run`."""

    model: Model

    def __init__(self, recipe: Recipe, log: Log = print) -> None:
        options = recipe.options
        assert isinstance(options, PocketOptions)
        self.options, self.batch_size = options, recipe.batch_size
        root = Path(recipe.data)
        everything = _annotated(root)
        annotated = [photo for photo in everything if not photo.validation]
        self.looked_at = [photo for photo in everything if photo.validation]
        if not annotated:
            raise DataError(f"{root} holds no training photographs; it should contain coco/, coco_person/, msrc/, camvid/, ccp/.")
        named = list(photosets.named_photos(root / "imagenet", root / "imagenet_names.csv"))
        log(f"data: {len(annotated)} annotated photographs, {len(named)} named ones")
        photos = [in_memory(photo) for photo in annotated]
        class_names = [name for _, name in named]
        denied = {*ELSEWHERE, *RARE_WITH_PEOPLE}
        names = sorted({name for photo in photos for name in (*photo.names, *photo.absent)} | {*class_names, *PLAIN_NAMES} | denied)
        said = [photo for photo in captioned_photos(root / "flickr8k") if not photosets.is_validation(Path(photo.id).stem)]
        tower, weight, bias = efficientnet(options.config.variant)
        preprocess = options.config.preprocess
        photos += pseudo_labelled(named, tower, weight, bias, preprocess.mean, preprocess.std)
        before = earlier(recipe)
        if before is None:
            start = Path(recipe.output) / START.format(recipe.seed)
            if not start.exists():
                captions = [caption for photo in said for caption in photo.captions]
                _keep(starting_network(options, class_names, names, captions, recipe.seed, log), start)
            self.model = _begun(options, checkpoints.load(start))
        else:
            known = left_by(before)
            self.model = _begun(options, _of_form(known.model, options.config).state_dict())
            log(f"looking for {', '.join(SAID)} on {len(said)} captioned photographs")
            photos += labelled(said, known)
        log(f"data: {len(photos)} photographs in memory, {len(photos) - len(annotated)} with pseudo-masks")
        self._words(names)
        self.examples = _examples(photos, self.vectors, recipe, options)
        self.bank: dict[str, dict[str, Tensor]] = {}  # name -> photo -> pooled features, as last seen

    def _words(self, names: list[str]) -> None:
        """Text vectors of every wording of every name; the first row of a name is the raw name."""
        self.names = names
        self.wordings = {name: self.model.text(wordings(name)) for name in names}
        self.vectors = {name: rows[0] for name, rows in self.wordings.items()}
        self.all_names = torch.stack([self.vectors[name] for name in names])
        self.rows = {name: index for index, name in enumerate(names)}

    def example(self, number: int) -> Example:
        return self.examples(number)

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples)

    def describe(self, number: int) -> str:
        photo = self.examples.photo(number)
        return f"photo {photo.id} of {photo.source}"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        data, model, options = batch, self.model, self.options
        model.tower.eval()  # its batch statistics stay those of pretraining: batches here are small
        generator = torch.Generator().manual_seed(batch.first // self.batch_size)
        image = model.features(normalise(data.pixels, model.config.preprocess)).float()
        pooled = model.pool(image, data.targets * data.known[:, None])
        condition = self._conditions(data, generator)
        self._remember(data, pooled.detach())
        logits, presence = model.answer(image, condition)
        logits = F.interpolate(logits.float(), size=data.targets.shape[-2:], mode="bilinear")
        bce, dice = mask_losses(logits, data.targets, data.known, data.present)
        aligned = self._alignment(data, pooled)
        named = {"mask": bce, "dice": dice, "presence": presence_loss(presence.float(), data.present), "alignment": aligned}
        return {name: value * options.losses.get(name, 1.0) for name, value in named.items()}

    def _conditions(self, data: Batch, generator: torch.Generator) -> Tensor:
        """(B, K, E): most prompts said in one of their wordings (half the time the raw name), some shown: a region of another photo."""
        rows, device = [], data.pixels.device  # words are read on the CPU, and so is what a checkpoint gave back
        for photo, asked in zip(data.photos, data.names, strict=True):
            for name in asked:
                draw, shown, pick = torch.rand(3, generator=generator).tolist()
                others = [key for key in self.bank.get(name, {}) if key != photo]
                if others and shown < self.options.exemplars:
                    rows.append(self.model.embed_region(self.bank[name][others[int(pick * len(others))]].to(device)))
                else:
                    choices = self.wordings[name]
                    rows.append(choices[0 if draw < 0.5 else int(pick * len(choices))].to(device))
        return torch.stack(rows).view(len(data.photos), -1, rows[0].shape[0])

    def _remember(self, data: Batch, pooled: Tensor) -> None:
        """Keep the pooled features of what is present, the newest eight photos of each name."""
        for b, photo in enumerate(data.photos):
            for k, name in enumerate(data.names[b]):
                if data.present[b, k]:
                    shelf = self.bank.setdefault(name, {})
                    shelf.pop(photo, None)
                    shelf[photo] = pooled[b, k].clone()
                    while len(shelf) > 8:
                        shelf.pop(next(iter(shelf)))

    def _alignment(self, data: Batch, pooled: Tensor) -> Tensor:
        where = data.present.nonzero().tolist()
        target = torch.tensor([self.rows[data.names[b][k]] for b, k in where], dtype=torch.long, device=pooled.device)
        return alignment_loss(self.model.embed_region(pooled[data.present]), self.all_names.to(pooled.device), target)

    def pictures(self) -> Image.Image:
        """Validation photos in pairs: what the network says of the names that are there, and the truth."""
        return answers(self.model, self.looked_at)

    def state(self) -> dict[str, Any]:
        return {"bank": self.bank}

    def load_state(self, state: dict[str, Any]) -> None:
        self.bank = state["bank"]


def _examples(photos: list[TrainingPhoto], vectors: dict[str, Tensor], recipe: Recipe, options: PocketOptions) -> Examples:
    return Examples(
        photos, options.shares, vectors, size=options.size, first_size=options.first_size, first_steps=options.first_steps,
        batch_size=recipe.batch_size, prompts=options.prompts, paste=options.paste, seed=recipe.seed,
    )  # fmt: skip


def starting_network(options: PocketOptions, class_names: list[str], names: list[str], captions: list[str], seed: int, log: Log) -> Model:
    """Pretrained tower, distilled text tower, fresh decoder."""
    torch.manual_seed(seed)
    model = Model(options.config)
    model.tower, weight, bias = efficientnet(options.config.variant)
    assert weight.shape == (options.config.classes, HEAD)
    said = [word for name in names for word in dict.fromkeys((name, *SYNONYMS.get(name, ()), *wordings(name)[:6]))]
    model.text = distill(said, captions, width=options.config.text_width, seed=seed, log=log)
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
        model.class_keys.copy_(model.text(class_names))
    return model


def _keep(model: Model, start: Path) -> None:
    """Write the starting network, whole or not at all: an interrupted run need not distil the text tower again, which takes minutes."""
    start.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(start, model.state_dict())


def _of_form(model: nn.Module, config: PocketConfig) -> Model:
    """The network of the training before, if this one can take its weights."""
    if isinstance(model, Model) and replace(model.config, second_look=config.second_look, preprocess=config.preprocess) == config:
        return model
    raise ConfigError("options.after: the network of the training before is of another form than options.config asks for. Train it anew.")


def _begun(options: PocketOptions, weights: Mapping[str, Tensor]) -> Model:
    """The network with these weights, as training wants it."""
    model = Model(options.config)
    model.load_state_dict(weights)
    # channels last: depthwise convolutions train three times as fast on CPUs
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    return model.eval()

"""Fine-tuning CLIPSeg and its baselines on somebody's own photos: three presets, and the run that the engine trains.

The loss is that of the published training (`losses.mask_loss`); the text tower stays in every preset, so that words mean what they meant.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contracts import ParameterGroup, Recipe
from ...data import vocabularies
from ...data.asked_crops import Batch
from ...data.photosets import AnnotatedPhoto
from ...nn.clip import ImageTokens
from ...training.lora import adapt
from ...training.own_run import OwnOptions, OwnRun, drift, frozen
from ...training.schedules import Cosine, Warmup
from .decoder import ClipSegImage
from .losses import mask_loss
from .network import Model
from .visual import normalise
from .wordings import TEMPLATE_SETS

WORDINGS = ("{}", *TEMPLATE_SETS["shuffle+"])  # the bare name, as it is asked afterwards, and those of the published training
OTHERS = "coco80"  # vocabulary of the other names

_OPTIONS = OwnOptions(size=352, prompts=3, others=1, losses={"mask": 1.0, "kept": 4.0})
_HEAD = Recipe(
    name="clipseg/finetune-head", card="clipseg-rd64", data="", output="", steps=200, batch_size=4, lr=5e-4, weight_decay=0.02, ema=0.97,
    schedule=Warmup(steps=20, start=0.1, main=Cosine()), save_every_s=60.0, options=_OPTIONS,
    groups=(ParameterGroup(pattern="image.*|text.*|logit_scale", frozen=True),),
)  # fmt: skip
_FULL = (ParameterGroup(pattern="text.*|logit_scale", frozen=True), ParameterGroup(pattern="image.*", lr=0.1))

PRESETS: Mapping[str, Recipe] = {
    "head": _HEAD,
    "lora": replace(_HEAD, name="clipseg/finetune-lora", groups=(), lr=1e-3, options=replace(_OPTIONS, rank=8)),
    "full": replace(_HEAD, name="clipseg/finetune-full", groups=_FULL, lr=2e-4),
}


class FineTune(OwnRun):
    """See `training.own_run.OwnRun`. CLIP reads any name; blocks of the image tower that the decoder does not read stay as they are.

    Raises:
        ConfigError: the text tower reads two names alike.
    """

    model: Model

    @torch.no_grad()
    def __init__(self, recipe: Recipe, model: Model, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> None:
        vectors = {name: model.embed_texts([wording.format(name) for wording in WORDINGS]) for name in names}
        others = other_names(names)
        super().__init__(recipe, photos, vectors, dict(zip(others, model.embed_texts(others)[:, None], strict=True)))
        torch.manual_seed(recipe.seed)
        self.shared_tower = frozen(recipe, "image.*")
        same = (model.text, model.image) if self.shared_tower else (model.text,)
        self.before = copy.deepcopy(model, {id(part): part for part in same}).eval()
        self.found = self._found()
        self.model = model
        if self.options.rank:
            adapt(model, adapted_parts(model), self.options.rank)
        elif not self.shared_tower:
            _let_read_blocks_learn(model)

    def _found(self) -> tuple[str, ...]:
        if not self.others:
            return ()
        condition = torch.cat([self.vectors[name] for name in self.others])
        pixels = normalise(self.samples())
        peaks = _answers(self.before, _seen(self.before, pixels), pixels, condition).amax((0, 2, 3))
        return tuple(name for name, logit in zip(self.others, peaks.tolist(), strict=True) if logit > 0)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        pixels, condition, own = normalise(batch.pixels), self.conditions(batch), batch.targets.shape[1]
        seen = _seen(self.model, pixels)
        logits = _answers(self.model, seen, pixels, condition)
        large = F.interpolate(logits[:, :own], size=batch.targets.shape[-2:], mode="bilinear")
        named = {"mask": mask_loss(large, batch.targets, batch.known[:, None])}
        if condition.shape[1] > own:
            named["kept"] = drift(logits[:, own:], self._before(pixels, seen, condition[:, own:]))
        return self.weighted(named)

    @torch.no_grad()
    def _before(self, pixels: Tensor, seen: ImageTokens, condition: Tensor) -> Tensor:
        """What the network said before it was trained (B, M, h, w)."""
        before = self.before.to(pixels.device)
        return _answers(before, seen if self.shared_tower else _seen(before, pixels), pixels, condition)


def _seen(model: Model, pixels: Tensor) -> ImageTokens:
    return model.see(pixels, taps=model.config.taps, embed=False)


def _answers(model: Model, seen: ImageTokens, pixels: Tensor, condition: Tensor) -> Tensor:
    """Each image's conditions (B, K, E), or the same for all (N, E) -> logits."""
    image = ClipSegImage(model.decoder.reduce(seen.activations), seen.grid, (pixels.shape[-2], pixels.shape[-1]))
    logits: Tensor = model.decoder(image, condition)
    return logits


def _let_read_blocks_learn(model: Model) -> None:
    """What leads to the last activation that the decoder reads."""
    for name, parameter in model.image.named_parameters():
        behind = name.startswith(("norm_post.", "projection", "norm.", "head.")) or _block(name) > max(model.config.taps)
        parameter.requires_grad_(not behind)


def adapted_parts(model: Model) -> list[str]:
    """Names of the linear layers that get adapters: the decoder's, and those of the image tower's attention.

    CLIP's MLPs multiply by their weights themselves, past any adapter; ``reduce_cond`` is a fixed projection.
    """
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    ours = [name for name in layers if name.startswith("decoder.") and name != "decoder.reduce_cond"]
    attention = [name for name in layers if name.startswith("image.") and ".attn." in name]
    return ours + [name for name in attention if _block(name) <= max(model.config.taps)]


def _block(name: str) -> int:
    """The block of the image tower in which a part lies, 0 for what comes before."""
    return next((int(piece) for piece in name.split(".") if piece.isdecimal()), 0)


def other_names(names: Sequence[str]) -> tuple[str, ...]:
    """Things that share no word with any of ``names``: what the network is held to while it learns these."""
    taken = {word for name in names for word in _words(name)}
    return tuple(name for name in vocabularies.names(OTHERS) if not taken & _words(name))


def _words(name: str) -> set[str]:
    return {word.rstrip("s") for word in name.lower().split()}

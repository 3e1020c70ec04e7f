"""Fine-tuning `pocket` on somebody's own photos: three presets, and the run that the engine trains (`training.own_run`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...contracts import ParameterGroup, PromptFeatures, Recipe
from ...data.asked_crops import Batch
from ...data.photosets import AnnotatedPhoto
from ...errors import ConfigError
from ...prompts import Text
from ...training.lora import adapt
from ...training.own_run import ALIKE, OwnOptions, OwnRun, drift, frozen
from ...training.schedules import Cosine, Warmup
from .decoder import Given
from .losses import mask_losses, presence_loss
from .network import Model, TaughtHead, normalise
from .pictures import answers
from .text import StaticText
from .vocabulary import KNOWN, own_wordings, wordings

NEAR = 0.55  # cosine from which another name may mean what a name of the data means
ADAPTED = ("tower.stages.3.", "tower.stages.4.", "tower.stages.5.", "tower.stages.6.", "tower.head.", "neck.", "decoder.")

_OPTIONS = OwnOptions(size=384, stretched=False, losses={"mask": 1.0, "dice": 1.0, "presence": 0.3, "kept": 4.0})
_HEAD = Recipe(  # one small crop a step: what counts is how many steps fit into some minutes
    name="pocket/finetune-head", card="pocket", data="", output="", steps=1800, batch_size=1, lr=2e-3, weight_decay=0.02, ema=0.99,
    schedule=Warmup(steps=20, start=0.1, main=Cosine()), save_every_s=60.0, options=replace(_OPTIONS, size=320, others=0),
    groups=(ParameterGroup(pattern="tower.*|classifier.*|region.*|log_sharpness|neck.*|decoder.*", frozen=True),),
)  # fmt: skip


def _variant(preset: str, groups: tuple[ParameterGroup, ...], lr: float, options: OwnOptions) -> Recipe:
    return replace(_HEAD, name=f"pocket/finetune-{preset}", steps=450, batch_size=2, ema=0.97, groups=groups, lr=lr, options=options)


PRESETS: Mapping[str, Recipe] = {
    "head": _HEAD,
    "lora": _variant("lora", (), 3e-3, replace(_OPTIONS, rank=8)),
    "full": _variant("full", (ParameterGroup(pattern="tower.*|classifier.*", lr=0.1),), 2e-3, _OPTIONS),
}


class FineTune(OwnRun):
    """See `training.own_run.OwnRun`.

    Where the recipe freezes the tower, the network gets a head of its own for the names of the data, `network.TaughtHead`, and nothing else
    learns: it answers other prompts as before. Where the tower learns, its other answers are held to what they were.

    Raises:
        ConfigError: the text tower reads no word of a name, or two names alike; the tower would learn below a head that was taught on it;
            other names are to be asked of a head of its own.
    """

    model: Model

    def __init__(self, recipe: Recipe, model: Model, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> None:
        vectors = {name: model.text(own_wordings(name, names)) for name in names}
        _check_known(vectors)
        super().__init__(recipe, photos, vectors, {name: model.text([name]) for name in other_names(model.text, names)})
        torch.manual_seed(recipe.seed)
        self.model = model
        self.head = self._own_head() if frozen(recipe, "tower.*") else None
        if self.head is None and model.taught:
            raise ConfigError(
                "This model was fine-tuned with the preset head, and what it learned reads the image tower as it is: no other preset may "
                "change that now. Choose --preset head, or begin with pocket and all photos."
            )
        # channels last: depthwise convolutions train three times as fast on CPUs
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        if self.options.others:
            self.before = copy.deepcopy(model).eval().requires_grad_(False)
            self.found = self._found()
        if self.options.rank:
            adapt(model, adapted_parts(model), self.options.rank)

    def _own_head(self) -> TaughtHead:
        if self.options.others:
            raise ConfigError("The preset head learns a head that answers no other names: set options.others=0, or choose --preset full.")
        text = self.model.text
        taught = torch.cat([self.vectors[name] for name in self.names])
        apart = [name for name in KNOWN if (text(wordings(name, synonyms=False)) @ text(self.names).T).max() < ALIKE]
        return self.model.requires_grad_(False).teach(taught, text(apart)).requires_grad_(True)

    @torch.no_grad()
    def _found(self) -> tuple[str, ...]:
        if not self.others:
            return ()
        condition = torch.cat([self.vectors[name] for name in self.others])
        image = self.before.features(normalise(self.samples(), self.before.config.preprocess))
        presence = self.before.decode(image, PromptFeatures(tuple(map(Text, self.others)), condition)).presence
        assert presence is not None
        return tuple(name for name, logit in zip(self.others, presence.amax(0).tolist(), strict=True) if logit > 0)

    # --- losses ---

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        model = self.model.eval()  # batch statistics stay those of many photos: batches here are small
        pixels = normalise(batch.pixels, model.config.preprocess)
        condition = self.conditions(batch)
        own = batch.targets.shape[1]
        taps = model.tower(pixels.contiguous(memory_format=torch.channels_last))
        head = self.head or model
        logits, presence = model.answer(head.neck(taps, Given.of(taps, model.classifier)).float(), condition, head.decoder)
        logits, presence = logits.float(), presence.float()
        large = F.interpolate(logits[:, :own], size=batch.targets.shape[-2:], mode="bilinear")
        mask, dice = mask_losses(large, batch.targets, batch.known, batch.present)
        named = {"mask": mask, "dice": dice, "presence": presence_loss(presence[:, :own], batch.present)}
        if condition.shape[1] > own:
            old_logits, old_presence = self._before(pixels, condition[:, own:])
            named["kept"] = drift(logits[:, own:], old_logits) + 0.1 * drift(presence[:, own:], old_presence)
        return self.weighted(named)

    @torch.no_grad()
    def _before(self, pixels: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """What the network said before it was trained: logits (B, M, h, w) and presence (B, M)."""
        before = self.before.to(pixels.device)
        logits, presence = before.answer(before.features(pixels).float(), condition)
        return logits.float(), presence.float()

    def pictures(self) -> Image.Image:
        """Held-out photos in pairs: what the network says when it is asked for every name of the data, and the truth."""
        return answers(self.model, self.held_out, self.names)


def _check_known(vectors: Mapping[str, Tensor]) -> None:
    for name, rows in vectors.items():
        if not rows[0].any():
            raise ConfigError(f"pocket reads English words and knows none in {name!r}. Say what it is: --classes 'coffee cup={name}, ...'.")


def adapted_parts(model: Model) -> list[str]:
    """Names of the linear layers and pointwise convolutions that get adapters: of the tower's later stages, the neck and the decoder."""
    fitting = (name for name, part in model.named_modules() if _pointwise(part))
    return [name for name in fitting if name.startswith(ADAPTED)]


def _pointwise(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1))


def other_names(text: StaticText, names: Sequence[str]) -> tuple[str, ...]:
    """Things that none of ``names`` means, by the text tower's own measure: what the network is held to while it learns these."""
    nearest = (text(KNOWN) @ text(names).T).amax(1).tolist()
    return tuple(name for name, cosine in zip(KNOWN, nearest, strict=True) if cosine < NEAR)

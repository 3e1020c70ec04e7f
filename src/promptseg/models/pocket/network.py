"""`pocket`, the embedded model: CLIPSeg's recipe at pocket size.

A photo goes through EfficientNet-Lite once; a prompt becomes a unit vector in one space that words (static vectors distilled from a
sentence encoder) and image regions (pooled from the tower) share; the decoder answers each prompt with a mask and a presence.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contracts import DenseLogits, Options, Preprocess, PromptFeatures, Size, View
from ...errors import ConfigError, PromptError, PromptUnread
from ...nn import views as default_views
from ...nn.conversion import join, load
from ...nn.efficientnet import EfficientNetLite
from ...nn.efficientnet_config import HEAD
from ...notices import tell
from ...prompts import Blend, Exemplar, Prompt, Text, as_prompts
from .config import PocketConfig
from .decoder import Decoder, Given, Neck, PocketImage, region_width
from .text import StaticText

NOTHING = -20.0  # logit of a probability of 2e-9
PROMPTS_AT_ONCE = 32  # decoded together; bounds the memory of a thousand prompts
EQUAL = 1e-3  # between cosines of one name, which half precision moves
TAUGHT = 0.65  # cosine from which a prompt means something that a head was taught: "red car on the left" and car; dress and skirt have 0.6


@dataclass(frozen=True, slots=True)
class TwoLooks:
    """Features of B photos and, at another size, of their mirror images."""

    first: PocketImage
    mirrored: PocketImage


class TaughtHead(nn.Module):
    """Neck and decoder that a fine-tuning taught some names, and that answer only prompts that mean one of them.

    ``names`` (T, text_width): unit vectors of their wordings; ``others`` (R, text_width): of names that a prompt may mean
    rather, as "truck" does where "car" was taught.
    """

    names: Tensor
    others: Tensor

    def __init__(self, names: Tensor, others: Tensor, neck: Neck, decoder: Decoder) -> None:
        super().__init__()
        self.register_buffer("names", names)
        self.register_buffer("others", others)
        self.neck, self.decoder = neck, decoder

    def nearness(self, unit: Tensor) -> Tensor:
        """Unit vectors (N, text_width) -> (N,) cosine with the nearest taught wording, -1 where another name is nearer."""
        near = (unit @ self.names.float().T).amax(1)
        if not len(self.others):
            return near
        return near.masked_fill((unit @ self.others.float().T).amax(1) > near + EQUAL, -1)


class Model(nn.Module):
    """See `contracts.Network` for the protocol.

    ``taught``: heads of fine-tunings, the newest last. A prompt is answered by the one that was taught what it means, else by ``neck`` and
    ``decoder``, as before the fine-tuning.
    """

    class_keys: Tensor

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = EfficientNetLite(config.variant)
        self.classifier = nn.Linear(HEAD, config.classes)
        self.text = StaticText(config.pieces, config.text_width, config.piece_bytes)
        self.register_buffer("class_keys", torch.zeros(config.classes, config.text_width))  # unit vectors of the classifier's names
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))  # of the match between a condition and those names; exp(3) = 20
        region = region_width(config.variant)
        self.region = nn.Sequential(nn.Linear(region, config.text_width), nn.ReLU(), nn.Linear(config.text_width, config.text_width))
        self.neck = Neck(config)
        self.decoder = Decoder(config)
        self.taught = nn.ModuleList(_untaught(config, *counts) for counts in config.taught)

    # --- the three questions ---

    def encode_image(self, pixel_values: Tensor) -> PocketImage | TwoLooks:
        """pixel_values (B, 3, h, w) normalised, h and w multiples of 32."""
        image, scale = self.features(pixel_values), self.config.second_look
        if not scale:
            return image
        size = [max(32, round(side * scale / 32) * 32) for side in pixel_values.shape[2:]]
        # torch resizes with antialiasing in float32 only
        smaller = F.interpolate(pixel_values.float(), size=size, mode="bilinear", antialias=True).to(pixel_values.dtype)
        return TwoLooks(image, self.features(smaller.flip(3)))

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Texts, exemplars (decoded photo and mask) and blends -> unit vectors (N, text_width)."""
        prompts = as_prompts(prompts)
        rows = [self._condition(prompt) for prompt in prompts]
        width = self.config.text_width
        condition = torch.stack(rows) if rows else torch.zeros(0, width, device=self.class_keys.device)
        return PromptFeatures(tuple(prompts), condition)

    def decode(self, image: PocketImage | TwoLooks, prompts: PromptFeatures) -> DenseLogits:
        """Every prompt on every photo: logits (B, N, h/4, w/4), presence (B, N); of two looks the mean probability."""
        if isinstance(image, TwoLooks) and not len(prompts.condition):
            return self.decode(image.first, prompts)
        if isinstance(image, TwoLooks):
            one, other = self.decode(image.first, prompts), self.decode(image.mirrored, prompts)
            assert one.presence is not None
            assert other.presence is not None
            mirrored = F.interpolate(other.logits.flip(3), size=one.logits.shape[2:], mode="bilinear")
            return DenseLogits(_mean_logit(one.logits, mirrored), _mean_logit(one.presence, other.presence))
        condition = prompts.condition.to(image.grid.dtype)
        B, h, w = len(image.grid), *image.skip4.shape[-2:]
        logits = image.grid.new_empty(B, len(condition), h, w, dtype=torch.float32)
        presence = image.grid.new_empty(B, len(condition), dtype=torch.float32)
        answering = self._answering(prompts.condition)
        for head in sorted(set(answering.tolist())):
            if head >= len(image.taught):
                raise ConfigError("The photo was encoded by a model that was not taught what this one was. Encode it with this model.")
            seen, decoder = (image, self.decoder) if head < 0 else (image.taught[head], self.heads[head].decoder)
            for part in (answering == head).nonzero().flatten().split(PROMPTS_AT_ONCE):
                masks, there = self.answer(seen, condition[part].expand(B, -1, -1), decoder)
                logits[:, part], presence[:, part] = masks.float(), there.float()
        return DenseLogits(logits, presence)

    def forward(self, pixel_values: Tensor, prompts: Sequence[Prompt]) -> DenseLogits:
        return self.decode(self.encode_image(pixel_values), self.encode_prompts(prompts))

    # --- parts ---

    def features(self, pixel_values: Tensor) -> PocketImage:
        """pixel_values as `encode_image` takes them, just as they are."""
        taps = self.tower(pixel_values.contiguous(memory_format=torch.channels_last))
        given = Given.of(taps, self.classifier)
        image: PocketImage = self.neck(taps, given)
        return replace(image, taught=tuple(head.neck(taps, given) for head in self.heads))

    def answer(self, image: PocketImage, condition: Tensor, decoder: Decoder | None = None) -> tuple[Tensor, Tensor]:
        """condition (B, K, text_width), each photo its own -> logits (B, K, h/4, w/4) and presence (B, K).

        ``decoder``: of a taught head, for an image that its neck made; None: the network's own. A zero vector, which is what unreadable
        words become, is answered with nothing.
        """
        unread = (condition == 0).all(-1)
        condition = F.normalize(condition, dim=-1)
        match = condition @ self.class_keys.to(condition.dtype).T
        logits, presence = (decoder or self.decoder)(image, condition, (match * self.log_sharpness.exp()).softmax(-1))
        return logits.masked_fill(unread[..., None, None], NOTHING), presence.masked_fill(unread, NOTHING)

    def teach(self, names: Tensor, others: Tensor | None = None) -> TaughtHead:
        """Add a head for prompts that mean one of ``names`` (T, text_width) and not, as they are nearer, one of ``others`` (R, text_width),
        all unit vectors; it begins as what answers most of the names now.
        """
        answering = int(self._answering(names).mode().values)
        like = self if answering < 0 else self.heads[answering]
        apart = names[:0] if others is None else others
        head = TaughtHead(names.clone(), apart.clone(), copy.deepcopy(like.neck), copy.deepcopy(like.decoder))
        self.taught.append(head)
        self.config = replace(self.config, taught=(*self.config.taught, (len(names), len(apart))))
        return head

    @property
    def heads(self) -> list[TaughtHead]:
        """Those that fine-tunings taught, the newest last."""
        return cast("list[TaughtHead]", list(self.taught))

    def _answering(self, condition: Tensor) -> Tensor:
        """(N, text_width) -> (N,) the head that was taught the nearest name, of equal ones the newest; -1 where none means the same."""
        answering = torch.full((len(condition),), -1, device=condition.device)
        nearest = torch.full((len(condition),), TAUGHT, device=condition.device)
        unit = F.normalize(condition.float(), dim=-1)
        for index, head in enumerate(self.heads):
            near = head.nearness(unit)
            nearer = near >= torch.where(answering < 0, nearest, nearest - EQUAL)
            answering[nearer], nearest = index, torch.maximum(near, nearest)
        return answering

    def pool(self, image: PocketImage, masks: Tensor) -> Tensor:
        """Mean of the region features under each mask: masks (B, K, h, w) 0..1 at any resolution -> (B, K, R)."""
        weights = F.interpolate(masks, size=image.region.shape[-2:], mode="area").flatten(2)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
        return weights @ image.region.flatten(2).transpose(1, 2)

    def embed_region(self, pooled: Tensor) -> Tensor:
        """(..., R) pooled features -> unit vectors (..., text_width) in the space of words."""
        return F.normalize(self.region(pooled), dim=-1)

    def _condition(self, prompt: Prompt) -> Tensor:
        if isinstance(prompt, Text):
            wordings = [template.replace("{}", prompt.text) for template in prompt.templates] or [prompt.text]
            if not self.text([prompt.text]).any():
                tell(PromptUnread, f"pocket reads English words and knows none in {prompt.text!r}; its mask is empty.")
                return torch.zeros(self.config.text_width, device=self.class_keys.device)
            if unread := self.text.unread(prompt.text):
                words = ", ".join(map(repr, unread))
                tell(PromptUnread, f"pocket reads English words and does not know {words} in {prompt.text!r}; its mask is of the others.")
            return F.normalize(self.text(wordings).mean(0), dim=-1)
        if isinstance(prompt, Exemplar):
            return self._exemplar(prompt)
        if isinstance(prompt, Blend):
            assert isinstance(prompt.text, Text)
            mixed = prompt.alpha * self._condition(prompt.text) + (1 - prompt.alpha) * self._condition(prompt.exemplar)
            return F.normalize(mixed, dim=-1)
        raise PromptError(f"pocket reads texts, exemplars and blends, not {type(prompt).__name__}.")

    def _exemplar(self, prompt: Exemplar) -> Tensor:
        if prompt.technique not in (None, "pool"):
            raise PromptError(f"pocket shows an exemplar by 'pool' (mean feature of its region), not {prompt.technique!r}.")
        photo, mask = np.asarray(prompt.image), np.asarray(prompt.mask, dtype=bool)
        preprocess = self.config.preprocess
        (view,) = self.views((photo.shape[0], photo.shape[1]), Options(fit="native"))
        device, dtype = self.class_keys.device, self.classifier.weight.dtype
        pixels = torch.from_numpy(photo.copy()).to(device).permute(2, 0, 1)[None].float() / 255
        pixels = F.interpolate(pixels, size=view.content, mode="bilinear", antialias=True)
        region = F.interpolate(torch.from_numpy(mask).to(device)[None, None].float(), size=view.content, mode="area")
        image = self.features(normalise(pixels, preprocess).to(dtype))
        return self.embed_region(self.pool(image, region.to(dtype)))[0, 0].float()

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        return default_views.views(size, options, self.config.preprocess)

    def merge(self, predictions: Sequence[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
        return default_views.merge(predictions, views, size)

    @classmethod
    def from_official(cls, config: PocketConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """The network with published weights, whose names are the module's own; the file's half precision becomes float32.

        Raises:
            WeightsError: a tensor is missing, unknown, of another shape or not finite; all are listed by name.
        """
        with torch.device("meta"):  # no random numbers are drawn for weights that are about to be replaced
            model = cls(config)
        model.to_empty(device="cpu")
        load(model, join(*state_dicts))
        return model.eval()


def _untaught(config: PocketConfig, wordings: int, others: int) -> TaughtHead:
    """A head to load weights into."""
    width = config.text_width
    return TaughtHead(torch.zeros(wordings, width), torch.zeros(others, width), Neck(config), Decoder(config))


def _mean_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of the mean of two probabilities, from their logits."""
    return torch.logaddexp(F.logsigmoid(a), F.logsigmoid(b)) - torch.logaddexp(F.logsigmoid(-a), F.logsigmoid(-b))


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(B, 3, h, w) in 0..1 -> zero mean, unit deviation as the tower was pretrained."""
    mean = torch.tensor(preprocess.mean, device=pixels.device)[:, None, None]
    std = torch.tensor(preprocess.std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std

"""GroupViT (Xu et al., CVPR 2022): an image becomes a few segments, which words name afterwards.

    pixels (B, 3, H, W) --image encoder, projector--> GroupImage: segments (B, G, E), their mean (B, E), maps per stage    encode_image
    texts               --text encoder, projector-->  conditions (N, E)                                                  encode_prompts
    GroupImage, conditions --scaled cosines--> GroupLogits: every segment and every prompt (B, G, N)                      decode

Segments do not depend on prompts; what becomes of the logits does: `to_masks` asks of every phrase by itself, `to_semantic` lets classes
compete, `to_groups` names nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...contracts import DenseLogits, GroupLogits, Options, PromptFeatures, Size, View
from ...data.vocabularies import templates
from ...errors import PromptError
from ...nn.conversion import built
from ...prompts import Prompt, Text
from ...tokenizers import clip as clip_tokenizer
from . import naming
from .config import GroupVitConfig, GroupVitOptions
from .encoder import ImageEncoder, Segments
from .keys import LAYOUTS, START
from .losses import contrastive_loss, multi_label_loss, scale_of
from .naming import RIVALS, Seen
from .photos import centre
from .projector import Projector
from .text import TextEncoder
from .windows import views as windows


@dataclass(frozen=True, slots=True)
class GroupImage:
    """``segments`` (B, G, E) and ``whole`` (B, E), projected and of length 1; ``maps`` as in `GroupLogits`.

    ``parents``: of every stage but the last (B, G_i), the segment of the next one that most of each segment goes to.
    """

    segments: Tensor
    whole: Tensor
    maps: tuple[Tensor, ...]
    parents: tuple[Tensor, ...]


class Model(nn.Module):
    """See `contracts.Network` for the protocol, `GroupVitConfig` for the variants."""

    def __init__(self, config: GroupVitConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageEncoder(config.image)
        self.text = TextEncoder(config.text)
        self.image_projector = Projector(config.image.widths[-1], config.embed, config.projector_layers)
        self.text_projector = Projector(config.text.width, config.embed, config.projector_layers)
        self.logit_scale = nn.Parameter(torch.tensor(START))
        self.multi_label_logit_scale = nn.Parameter(torch.tensor(START)) if config.own_temperature else None
        self._rivals: tuple[object, Tensor] | None = None

    @classmethod
    def from_official(cls, config: GroupVitConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """The network with published weights, the repository's or transformers'.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return built(lambda: cls(config), LAYOUTS, *(_fitted(config, state_dict) for state_dict in state_dicts))

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_image(self, pixel_values: Tensor) -> GroupImage:
        """pixel_values (B, 3, H, W), normalised, any size of at least one patch."""
        seen: Segments = self.image(pixel_values)
        projected = self.image_projector(torch.cat([seen.tokens, seen.tokens.mean(1, keepdim=True)], 1))
        projected = F.normalize(projected.float(), dim=-1)
        parents = tuple(assigned.soft[:, 0].argmax(1) for assigned in seen.assigned[1:])
        return GroupImage(projected[:, :-1], projected[:, -1], soft_maps(seen), parents)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Texts -> conditions (N, E), the mean over a text's templates, not of length 1.

        Raises:
            PromptError: another type of prompt.
        """
        for prompt in prompts:
            if not isinstance(prompt, Text):
                raise PromptError(f"GroupViT reads texts, not {type(prompt).__name__}.")
        wordings = [_wordings(prompt) for prompt in prompts if isinstance(prompt, Text)]
        phrases = list(dict.fromkeys(phrase for one in wordings for phrase in one))
        texts = dict(zip(phrases, self.embed_texts(phrases), strict=True))
        rows = [torch.stack([texts[phrase] for phrase in one]).mean(0) for one in wordings]
        condition = torch.stack(rows) if rows else self.logit_scale.new_zeros(0, self.config.embed)
        return PromptFeatures(tuple(prompts), condition)

    def decode(self, image: GroupImage, prompts: PromptFeatures) -> GroupLogits:
        """Every prompt and every segment: scaled cosines."""
        conditions = F.normalize(prompts.condition.to(image.whole.device).float(), dim=-1).T * self.scale
        segments, whole = image.segments.float(), image.whole.float()
        return GroupLogits(image.maps, segments @ conditions, whole @ conditions, segments, prompts.prompts)

    def forward(self, pixel_values: Tensor, prompts: Sequence[Prompt]) -> GroupLogits:
        """All three: normalised pixels (B, 3, H, W) and texts -> logits (B, G, N)."""
        return self.decode(self.encode_image(pixel_values), self.encode_prompts(prompts))

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """See `windows.views`."""
        return windows(size, options, self.config.preprocess, self.config.image.patch)

    def merge(self, predictions: Sequence[GroupLogits], views: Sequence[View], size: Size) -> Seen:
        """All windows as they are: what is averaged depends on what is asked."""
        return Seen(tuple(predictions), tuple(views), size)

    def losses(self, pixels: Tensor, texts: Sequence[Sequence[str]], noise: Sequence[Tensor | None] = ()) -> dict[str, Tensor]:
        """What is minimised, by name: (B, 3, H, W) images, each with its caption and then equally many prompts, none or more.

        ``noise`` as in `ImageEncoder.forward`. All texts go through the network as one batch, so that the statistics of the projector's
        batch norm are those of captions and prompts together (published code).
        """
        image = self.image_projector(self.image(pixels, noise).tokens.mean(1))
        projected = self.embed_texts([text for one in texts for text in one]).view(len(texts), len(texts[0]), -1)
        found = {"loss": contrastive_loss(image, projected[:, 0], self.logit_scale)}
        if len(texts[0]) > 1:
            own = self.logit_scale if self.multi_label_logit_scale is None else self.multi_label_logit_scale
            found["multi_label_loss"] = multi_label_loss(image, projected[:, 1:], own)
        return found

    # --- answers at the photo's size ----------------------------------------------------------------------------------------------------

    def to_masks(self, seen: Seen) -> DenseLogits:
        """See `naming.masks`."""
        return naming.masks(seen, self.rivals().cpu().float(), float(self.scale.detach()))

    def to_semantic(self, seen: Seen, synonyms: Sequence[int], threshold: float | None) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """See `naming.semantic`."""
        return naming.semantic(seen, synonyms, threshold)

    @property
    def group_counts(self) -> tuple[int, ...]:
        """How many groups each stage has."""
        return self.config.image.output_groups

    def group_views(self, size: Size) -> tuple[View, ...]:
        """The whole photo in one view (published visualisation)."""
        return self.views(size, GroupVitOptions(mode="whole"))

    def to_groups(self, image: GroupImage, size: Size) -> list[tuple[NDArray[np.int16], NDArray[np.float32], list[int]]]:
        """See `naming.groups`; and the segment of the next stage that each segment is a part of."""
        (view,) = self.group_views(size)
        found = naming.groups([one.cpu().float() for one in image.maps], view.content, size)
        parents = [*(one[0].tolist() for one in image.parents), []]
        return [(*stage, wholes) for stage, wholes in zip(found, parents, strict=True)]

    def classify(self, photo: NDArray[np.uint8], prompts: PromptFeatures) -> Tensor:
        """What a whole photo (H, W, 3) shows: cosines of its middle, as classification sees it, and the prompts, (N,)."""
        size, weight = self.config.image.size, self.image.positions
        pixels = centre(photo, int(256 / 224 * size), size).to(weight.device, weight.dtype)
        whole = self.encode_image(pixels[None]).whole[0]
        return F.normalize(prompts.condition.to(whole.device).float(), dim=-1) @ whole

    # --- parts --------------------------------------------------------------------------------------------------------------------------

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied with."""
        return scale_of(self.logit_scale)

    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        """Phrases, verbatim -> projections (N, E)."""
        ids = clip_tokenizer()(phrases, self.config.text.context).to(self.logit_scale.device)
        projected: Tensor = self.text_projector(self.text(ids))
        return projected

    def rivals(self) -> Tensor:
        """The words that a single phrase competes with, (R, E) at length 1; remembered while the weights stay as they are."""
        parts = (*self.text.parameters(), *self.text_projector.parameters())
        now = (str(self.logit_scale.device), self.logit_scale.dtype, *(part._version for part in parts), id(parts[0]))
        if self._rivals is None or self._rivals[0] != now:
            with torch.no_grad():
                said = [template.format(word) for word in RIVALS for template in templates("photo")]
                self._rivals = now, F.normalize(self.embed_texts(said).float(), dim=-1)
        return self._rivals[1]


def soft_maps(seen: Segments) -> tuple[Tensor, ...]:
    """Every stage's segments in shares of the image's places, (B, G_i, h, w): products of the soft assignments (published code)."""
    maps: list[Tensor] = []
    for assigned in seen.assigned:
        soft = assigned.soft[:, 0]  # (B, G_i, G_{i-1})
        maps.append(soft @ maps[-1] if maps else soft)
    return tuple(one.view(*one.shape[:2], *seen.grid) for one in maps)


def _wordings(prompt: Text) -> list[str]:
    return [template.replace("{}", prompt.text) for template in prompt.templates] or [prompt.text]


def _fitted(config: GroupVitConfig, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Position tables for photos of another size, resized to the configuration's (published code, on loading)."""
    from ...nn.positions import resize_grid

    grid = config.image.grid
    names = [name for name in ("img_encoder.pos_embed", "vision_model.embeddings.position_embeddings") if name in state_dict]
    resized = {name: resize_grid(state_dict[name], (grid, grid)) for name in names if state_dict[name].shape[1] != grid**2}
    return {**state_dict, **resized} if resized else state_dict

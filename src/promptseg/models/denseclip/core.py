"""What segmentation and detection share: an image encoder, class names that look at the image, and a pyramid that sees where they fit.

pixels --image--> four maps, embedding, embeddings of cells                              encode_image
names --text, learned contexts--> (K, C)                                                 class_embeddings
both --context decoder--> texts (B, K, C) --cosines--> score map --one map--> pyramid    guide, pyramid
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...nn.clip_resnet import ClipResNet, ImageMaps
from ...nn.fpn import FeaturePyramid
from .config import DenseClipConfig, ImageNetBackbone, LiteBackbone, PlainVitBackbone, ResNetBackbone, VitBackbone
from .context import ContextDecoder, score_map, visual_context
from .imagenet import ImageNetEncoder, LiteEncoder
from .plain_vit import PlainVitEncoder
from .text import ContextTextTower, class_tokens
from .vit import DenseVit

GAMMA = 1e-4  # where the weight of the context decoder's corrections starts (published code)


@dataclass(frozen=True, slots=True)
class Guidance:
    """Texts before the image (B or 1, K, C), what the image adds (B, K, C; None without context decoder), and after it (B, K, C).

    ``scores`` (B, K, h, w): cosines of cells and texts, not divided by the temperature.
    """

    base: Tensor
    difference: Tensor | None
    texts: Tensor
    scores: Tensor


class DenseClip(nn.Module):
    """All but the head; see `DenseClipConfig`."""

    def __init__(self, config: DenseClipConfig) -> None:
        super().__init__()
        self.config = config
        language = config.language
        backbone = config.backbone
        self.image = _encoder(backbone)
        self.text: ContextTextTower | None = None
        self.context_decoder: ContextDecoder | None = None
        self.gamma: nn.Parameter | None = None
        self.queries: nn.Parameter | None = None
        if language is not None:
            embed = language.text.embed
            self.text = ContextTextTower(language.text, 0 if language.prompting == "pre" else language.contexts)
            if language.prompting == "pre":
                self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, language.contexts, embed)))
                self.context_decoder = ContextDecoder(embed, language.decoder, language.text.width)
            elif language.prompting == "post":
                self.gamma = nn.Parameter(torch.full((embed,), GAMMA))
                self.context_decoder = ContextDecoder(embed, language.decoder)
        neck = config.neck
        self.neck: FeaturePyramid | None = None
        if not isinstance(backbone, PlainVitBackbone):
            self.neck = FeaturePyramid(config.neck_inputs, neck.channels, start=neck.start, outputs=neck.outputs, extra=neck.extra)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the head was trained on."""
        return self.config.classes

    def encode_image(self, pixel_values: Tensor) -> ImageMaps:
        """pixel_values (B, 3, h, w), normalised."""
        seen: ImageMaps = self.image(pixel_values)
        return seen

    def class_embeddings(self, names: Sequence[str] | None = None) -> Tensor:
        """Bare names, or those that the head was trained on -> (K, C), not normalised, the image not yet seen; before "pre" ids (K, L).

        Raises:
            PromptError: a name is empty or too long.
        """
        assert self.text is not None
        assert self.config.language is not None
        ids = class_tokens(self.classes if names is None else names, self.config.language.tokens)
        ids = ids.to(self.text.projection.device)
        return ids if self.queries is not None else self.text.embed(ids)[0]

    def guide(self, image: ImageMaps, base: Tensor) -> Guidance:
        """What `class_embeddings` gives, and an image -> what it makes of the names, and where they fit."""
        assert image.embedding is not None
        assert image.local is not None
        if self.queries is not None:
            assert self.text is not None
            assert self.context_decoder is not None
            queries = self.queries.expand(len(image.local), -1, -1)
            texts = self.text.embed(base, self.context_decoder(queries, visual_context(image.embedding, image.local)))
            return Guidance(texts, None, texts, score_map(image.local, texts))
        base = base.expand(len(image.local), -1, -1)
        if self.context_decoder is None or self.gamma is None:
            return Guidance(base, None, base, score_map(image.local, base))
        difference = self.context_decoder(base, visual_context(image.embedding, image.local))
        texts = base + self.gamma * difference
        return Guidance(base, difference, texts, score_map(image.local, texts))

    def score_map(self, pixel_values: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """Normalised pixels (B, 3, h, w) -> cosines (B, K, h', w') of every place and every name, by default the trained classes."""
        return self.guide(DenseClip.encode_image(self, pixel_values), self.class_embeddings(names)).scores

    def pyramid(self, image: ImageMaps, scores: Tensor | None) -> tuple[Tensor, ...]:
        """The pyramid's levels; ``scores`` (B, K, h, w) of the trained classes are laid behind one map's channels."""
        maps = list(image.maps)
        language = self.config.language
        if language is not None:
            assert scores is not None
            given = scores / language.tau if language.divided else scores
            maps[language.level] = torch.cat([maps[language.level], given], dim=1)
        return tuple(maps) if self.neck is None else tuple(self.neck(maps))


def _encoder(backbone: ResNetBackbone | VitBackbone | ImageNetBackbone | LiteBackbone | PlainVitBackbone) -> nn.Module:
    if isinstance(backbone, PlainVitBackbone):
        return PlainVitEncoder(backbone)
    if isinstance(backbone, ImageNetBackbone):
        return ImageNetEncoder(backbone)
    if isinstance(backbone, LiteBackbone):
        return LiteEncoder(backbone)
    return ClipResNet(backbone.network) if isinstance(backbone, ResNetBackbone) else DenseVit(backbone)

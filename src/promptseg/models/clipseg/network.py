"""CLIPSeg (Lüddecke & Ecker, CVPR 2022): a frozen CLIP and a small decoder; one prompt, one mask.

    pixels (B, 3, H, W) --image tower, decoder.reduces--> ClipSegImage: reduced taps (B, 1 + h*w, reduce_dim)   encode_image
    texts   --text tower-->  conditions (N, E)                                                                  encode_prompts
    exemplars --drawn by a visual technique, image tower--> conditions (N, E)
    ClipSegImage, conditions --decoder--> logits (B, N, 16 h, 16 w)                                              decode

Both kinds of condition live in CLIP's one space, raw (never L2-normalised), so they can be swapped or mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...contracts import DenseLogits, Options, PromptFeatures, Size, View
from ...errors import PromptError
from ...nn import views as shared_views
from ...nn.attention import AttentionMask
from ...nn.clip import Clip, ImageTokens
from ...nn.conversion import built, detect, from_official, join, shapes_of
from ...prompts import Blend, Exemplar, Prompt, Text
from ...tokenizers import clip as clip_tokenizer
from .baselines import DeconvDecoder, VitTower
from .config import ClipDeconvConfig, ClipSegConfig, VitConfig
from .decoder import ClipSegImage, Decoder
from .keys import LAYOUTS, TOWERS
from .prompts import AttentionTechnique, technique
from .visual import normalise

EXEMPLARS_AT_ONCE = 8  # shown to the image tower together


class Model(Clip):
    """See `contracts.Network` for the protocol, `ClipSegConfig` for the variants, `baselines` for CLIP-Deconv and ViTSeg.

    What is trained requires gradients: the decoder alone; in ViTSeg CLIP's text tower too, which its published code does not freeze.
    """

    def __init__(self, config: ClipSegConfig | ClipDeconvConfig) -> None:
        super().__init__(VitTower(config.image) if isinstance(config.image, VitConfig) else config.image, config.text)
        self.requires_grad_(isinstance(config.image, VitConfig))
        self.image.requires_grad_(False)
        self.config = config
        self.decoder = DeconvDecoder(config) if isinstance(config, ClipDeconvConfig) else Decoder(config)

    @classmethod
    def from_official(cls, config: ClipSegConfig | ClipDeconvConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """The network with published weights: one full state dict, CLIP's and the decoder's, or transformers' layout.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return built(lambda: cls(config), LAYOUTS, *state_dicts)

    @classmethod
    def from_clip(cls, config: ClipSegConfig | ClipDeconvConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """What training starts from: published towers, and a decoder of random weights, in training mode.

        Args:
            state_dicts: CLIP's weights, OpenAI's or transformers'; for ViTSeg timm's too.

        Raises:
            WeightsError: as `from_official`.
        """
        model = cls(config)
        expected = {name: shape for name, shape in shapes_of(model).items() if not name.startswith(("decoder.", "image.head."))}
        theirs = join(*state_dicts)
        towers = from_official(TOWERS[detect(TOWERS, theirs, expected)], theirs, expected)
        model.load_state_dict(towers, strict=False)
        return model

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_image(self, pixel_values: Tensor, *, square: bool = False) -> ClipSegImage:
        """pixel_values (B, 3, H, W), normalised, any size of at least one patch; ``square`` as in `ImageTower.forward`."""
        seen = self.see(pixel_values, taps=self.config.taps, embed=False, square=square)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        return ClipSegImage(self.decoder.reduce(seen.activations), seen.grid, size)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Texts, exemplars and blends -> raw conditions (N, E).

        Raises:
            PromptError: another type of prompt, or an unknown visual technique.
        """
        phrases = list(dict.fromkeys(phrase for prompt in prompts for phrase in _phrases(prompt)))
        texts = dict(zip(phrases, self.embed_texts(phrases), strict=True))
        exemplars = {id(shown): shown for prompt in prompts if (shown := _exemplar(prompt)) is not None}
        images = dict(zip(exemplars, self.embed_exemplars(list(exemplars.values())), strict=True))
        rows = [_condition(prompt, texts, images) for prompt in prompts]
        condition = torch.stack(rows) if rows else self.text.projection.new_zeros(0, self.config.text.embed)
        return PromptFeatures(tuple(prompts), condition)

    def decode(self, image: ClipSegImage, prompts: PromptFeatures) -> DenseLogits:
        """Every prompt on every image: float32 logits (B, N, h, w), h and w the image's sides less what is smaller than a patch."""
        return DenseLogits(self.decoder(image, prompts.condition.to(image.reduced[0])))

    def forward(self, pixel_values: Tensor, prompts: Sequence[Prompt]) -> DenseLogits:
        """All three: normalised pixels (B, 3, H, W) and prompts -> logits (B, N, h, w)."""
        return self.decode(self.encode_image(pixel_values), self.encode_prompts(prompts))

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """See `nn.views.views`."""
        return shared_views.views(size, options, self.config.preprocess)

    def merge(self, predictions: Iterable[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
        """See `nn.views.merge`."""
        return shared_views.merge(predictions, views, size)

    # --- parts --------------------------------------------------------------------------------------------------------------------------

    def see(self, pixel_values: Tensor, *, square: bool = False, **wanted: Any) -> ImageTokens:
        """The image tower as this network uses it; ``wanted`` as in `ImageTower.forward`."""
        stride = None if self.config.n_tokens is None else max(1, pixel_values.shape[-2] // self.config.n_tokens)
        seen: ImageTokens = self.image(pixel_values, stride=stride, square=square, **wanted)
        return seen

    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        """Phrases, verbatim -> conditions (N, E)."""
        ids = clip_tokenizer()(phrases, self.config.text.context).to(self.text.projection.device)
        embeddings: Tensor = self.text(ids)
        return embeddings if self.decoder.shift_vector is None else embeddings + self.decoder.shift_vector

    def embed_images(self, pixel_values: Tensor, mask: AttentionMask | None = None) -> Tensor:
        """Normalised pixels (B, 3, H, W), attention optionally restricted by masks -> conditions (B, E)."""
        embedding = self.see(pixel_values, mask=mask).embedding
        assert embedding is not None
        return embedding

    def embed_exemplars(self, exemplars: Sequence[Exemplar]) -> Tensor:
        """Decoded exemplars (image uint8 (H, W, 3), mask (H, W)), each shown by its technique -> conditions (N, E)."""
        result = self.text.projection.new_empty(len(exemplars), self.config.image.embed)
        pictures: dict[int, Tensor] = {}
        for index, exemplar in enumerate(exemplars):
            show = technique(exemplar.technique or self.config.technique, self.config.image.layers)
            image, mask = self._stretch(exemplar)
            if isinstance(show, AttentionTechnique):  # alone: see `AttentionMask.factors`
                result[index] = self.embed_images(image[None].to(result), AttentionMask(mask[None], show.kind, show.blocks))[0]
            else:
                pictures[index] = show(image, mask)
        for batch in _batches(pictures):
            result[batch] = self.embed_images(torch.stack([pictures[index] for index in batch]).to(result))
        return result

    def _stretch(self, exemplar: Exemplar) -> tuple[Tensor, Tensor]:
        """Image (3, S, S) normalised and mask (S, S), S the side at which photos are shown; sampled without antialiasing, as photos are."""
        device, size = self.text.projection.device, (self.config.preprocess.size,) * 2
        image = torch.tensor(np.asarray(exemplar.image), device=device).permute(2, 0, 1).float() / 255
        image = F.interpolate(normalise(image)[None], size, mode="bilinear", align_corners=False)[0]
        mask = torch.tensor(np.asarray(exemplar.mask), device=device)[None, None].float()
        return image, F.interpolate(mask, size, mode="nearest")[0, 0]


def _phrases(prompt: Prompt) -> list[str]:
    """The texts that a prompt needs encoded."""
    if isinstance(prompt, Blend):
        return _phrases(cast(Text, prompt.text))
    if isinstance(prompt, Text):
        return [template.replace("{}", prompt.text) for template in prompt.templates] or [prompt.text]
    return []


def _exemplar(prompt: Prompt) -> Exemplar | None:
    """The exemplar that a prompt needs encoded."""
    return prompt.exemplar if isinstance(prompt, Blend) else prompt if isinstance(prompt, Exemplar) else None


def _condition(prompt: Prompt, texts: Mapping[str, Tensor], images: Mapping[int, Tensor]) -> Tensor:
    """(E,) from the encoded phrases and exemplars (by identity)."""
    if isinstance(prompt, Text):
        return torch.stack([texts[phrase] for phrase in _phrases(prompt)]).mean(0)
    if isinstance(prompt, Exemplar):
        return images[id(prompt)]
    if isinstance(prompt, Blend):
        text = _condition(cast(Text, prompt.text), texts, images)
        return torch.lerp(images[id(prompt.exemplar)], text, prompt.alpha)
    raise PromptError(f"CLIPSeg reads texts, exemplars and blends of the two, not {type(prompt).__name__}.")


def _batches(pictures: Mapping[int, Tensor]) -> Iterator[list[int]]:
    """Indices of pictures of one size, at most `EXEMPLARS_AT_ONCE` together."""
    for shape in dict.fromkeys(picture.shape for picture in pictures.values()):
        same = [index for index, picture in pictures.items() if picture.shape == shape]
        for start in range(0, len(same), EXEMPLARS_AT_ONCE):
            yield same[start : start + EXEMPLARS_AT_ONCE]

"""CAT-Seg (Cho et al., CVPR 2024): the cosines of CLIP's image and text embeddings, refined together for all classes.

    pixels (B, 3, S, S) --dense image tower, transposed convolutions--> CatSegImage          encode_image
    names --template, text tower--> conditions (N, P * C), normalised                       encode_prompts
    CatSegImage, conditions --aggregator--> logits (B, N, 4 g, 4 g)                         decode

The logits of a class depend on the other classes that are asked with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ...contracts import DenseLogits, Options, PromptFeatures, Size, View
from ...errors import PromptError
from ...nn import views as shared_views
from ...nn.attention import PreNormBlock
from ...nn.clip import Clip
from ...nn.conversion import built, detect, from_official, join, shapes_of
from ...prompts import Prompt, Text
from ...tokenizers import clip as clip_tokenizer
from . import windows
from .aggregation import Aggregator, CatSegImage
from .config import TEMPLATE, CatSegConfig, CatSegOptions
from .keys import LAYOUTS, TOWERS
from .windows import Look


class Model(Clip):
    """See `contracts.Network` for the protocol and `CatSegConfig` for the variants."""

    def __init__(self, config: CatSegConfig) -> None:
        super().__init__(config.image, config.text)
        self.config = config
        width, (early, late) = config.image.width, config.decoder_guidance
        self.upsample1 = nn.ConvTranspose2d(width, config.tapped[0], 2, stride=2) if early else None
        self.upsample2 = nn.ConvTranspose2d(width, config.tapped[1], 4, stride=4) if late else None
        self.aggregator = Aggregator(config)
        depth, length = config.visual_prompts
        self.image_prompts = nn.Parameter(torch.empty(depth, length, config.image.width)) if depth * length else None
        if self.image_prompts is not None:
            nn.init.xavier_uniform_(self.image_prompts)

    @classmethod
    def from_official(cls, config: CatSegConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """The network with published weights, in evaluation mode.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return built(lambda: cls(config), LAYOUTS, *state_dicts)

    @classmethod
    def from_clip(cls, config: CatSegConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """What training starts from: CLIP's published towers, OpenAI's or transformers', and random weights for the rest.

        Raises:
            WeightsError: as `from_official`.
        """
        model = cls(config)
        expected = {name: shape for name, shape in shapes_of(model).items() if name.startswith(("image.", "text.", "logit_scale"))}
        theirs = join(*state_dicts)
        towers = from_official(TOWERS[detect(TOWERS, theirs, expected)], theirs, expected)
        model.load_state_dict(towers, strict=False)
        return model

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_image(self, pixel_values: Tensor) -> CatSegImage:
        """pixel_values (B, 3, side, side), normalised; `prepare` makes such squares."""
        embedding, taps = self.see(pixel_values)
        pairs = zip((self.upsample1, self.upsample2), taps, strict=True)
        return CatSegImage(embedding, tuple(upsample(tap) for upsample, tap in pairs if upsample is not None))

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Texts -> normalised conditions (N, P * C), P the wordings of the configuration.

        A text without templates is asked in the published wording, one with templates as the mean of their embeddings.

        Raises:
            PromptError: another type of prompt, or not P templates where the network has P channels of cost.
        """
        phrases, groups = [], []
        for prompt in prompts:
            if not isinstance(prompt, Text):
                raise PromptError(f"CAT-Seg takes texts, not {type(prompt).__name__}.")
            templates = prompt.templates or (TEMPLATE,)
            if self.config.prompts > 1 and len(templates) != self.config.prompts:
                raise PromptError(f"This network weighs {self.config.prompts} wordings: give each text as many templates.")
            groups.append(len(templates))
            phrases += [template.format(prompt.text) for template in templates]
        embeddings = F.normalize(self.embed_texts(phrases), dim=-1)
        parts = torch.split(embeddings, groups) if groups else ()
        rows = [part.flatten() if self.config.prompts > 1 else F.normalize(part.mean(0), dim=-1) for part in parts]
        width = self.config.prompts * self.config.text.embed
        return PromptFeatures(tuple(prompts), torch.stack(rows) if rows else embeddings.new_zeros(0, width))

    def decode(self, image: CatSegImage, prompts: PromptFeatures, *, max_classes: int | None = None, truncate: bool = False) -> DenseLogits:
        """All classes together on every image: logits (B, N, 4 g, 4 g); `CatSegOptions` explains the arguments."""
        condition = prompts.condition.to(image.embedding)
        if not len(condition):
            return DenseLogits(condition.new_zeros(len(image.embedding), 0, self.config.output, self.config.output))
        limits = [limit for limit in (max_classes, (self.config.pad_classes or None) if truncate else None) if limit is not None]
        text = torch.unflatten(condition, -1, (self.config.prompts, -1))
        return DenseLogits(self.aggregator(image, text, min(limits, default=None)))

    def forward(self, pixel_values: Tensor, prompts: Sequence[Prompt]) -> DenseLogits:
        """All three: normalised pixels (B, 3, side, side) and prompts -> logits (B, N, 4 g, 4 g)."""
        return self.decode(self.encode_image(pixel_values), self.encode_prompts(prompts))

    # --- photos -------------------------------------------------------------------------------------------------------------------------

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """The published looks; with ``options.tile`` squares of that side in photo pixels, each by itself."""
        if options.tile is not None:
            square = replace(self.config.preprocess, size=self.config.side, fit="stretch")
            return shared_views.views(size, Options(tile=options.tile, overlap=options.overlap), square)
        return windows.looks(size, options.mode if isinstance(options, CatSegOptions) else "slide")

    def prepare(self, pixels: Tensor, view: View) -> Tensor:
        """A view's normalised pixels (3, h, w) -> what CLIP sees, (3, side, side)."""
        return windows.shown(pixels, view.part, self.config.side) if isinstance(view, Look) else pixels

    def merge(self, predictions: Iterable[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
        """The windows of slide mode are kept, `to_scores` merges them class by class; tiles: see `nn.views.merge`."""
        if not isinstance(views[0], Look):
            return shared_views.merge(predictions, views, size)
        found = list(predictions)
        return found[0] if len(views) == 1 else windows.gathered(found)

    def to_scores(self, prediction: DenseLogits, size: Size) -> Iterator[NDArray[np.float32]]:
        """A merged prediction of one photo of ``size`` (H, W) -> each class's probabilities (H, W), one after the other."""
        return windows.scores(prediction, size)

    # --- parts --------------------------------------------------------------------------------------------------------------------------

    @property
    def prompt_weights(self) -> nn.Module:
        """What decides the conditions of texts; while it stays the same they may be kept."""
        return self.text

    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        """Phrases, verbatim -> embeddings (N, C), not normalised."""
        ids = clip_tokenizer()(list(phrases), self.config.text.context).to(self.text.projection.device)
        embeddings: Tensor = self.text(ids)
        return embeddings

    def see(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Normalised pixels (B, 3, h, w) -> CLIP's embedding of every cell (B, C, g, g) and the two taps (B, width, g, g)."""
        x, grid = self.image.embed_patches(pixels)
        depth, length = self.config.visual_prompts
        taps = []
        for index in range(len(self.image.blocks)):
            if self.image_prompts is not None and index < depth:
                rest = x[:, 1:] if index == 0 else x[:, 1 + length :]
                x = torch.cat([x[:, :1], self.image_prompts[index].expand(len(x), -1, -1), rest], dim=1)
            block = cast(PreNormBlock, self.image.blocks[index])
            x = block(x) if index < len(self.image.blocks) - 1 else dense(block, x)
            if index in self.config.taps:
                taps.append(_cells(x, grid))
        embedded = self.image.norm_post(x) @ self.image.projection
        return _cells(embedded, grid), (taps[0], taps[1])


def dense(block: PreNormBlock, x: Tensor) -> Tensor:
    """CLIP's last block as CAT-Seg runs it on x (B, 1 + n, C): every token is its own value, and none looks at another.

    As in the published code the residual is the class token, not the token's own stream, and queries and keys have no part.
    """
    width = x.shape[-1]
    values = F.linear(block.norm1(x), block.attn.qkv.weight[2 * width :], block.attn.qkv.bias[2 * width :])
    x = block.attn.out(values) + x[:, :1]
    result: Tensor = x + block.mlp(block.norm2(x))
    return result


def _cells(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The last h*w of (B, 1 + ... + h*w, C), what stands in front left out -> (B, C, h, w)."""
    return torch.unflatten(tokens[:, -grid[0] * grid[1] :].transpose(1, 2), -1, grid)

"""DenseCLIP for semantic segmentation (Rao et al., CVPR 2022): class names that look at the image guide a feature pyramid.

    pixels (B, 3, h, w) --image encoder--> ImageMaps                       encode_image
    names --text tower, learned contexts--> embeddings (K, C)              encode_prompts
    ImageMaps, embeddings --score map, pyramid, head--> logits             decode

The head knows the classes that it was trained on, in their order. Asked for other names, the network answers with the score map alone,
which takes any: coarser (stride 32, of the transformer 16) and less exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...contracts import DenseLogits, Options, PromptFeatures, Size, View
from ...errors import ConfigError, PromptError
from ...nn import views as shared_views
from ...nn.clip_resnet import ImageMaps
from ...nn.conversion import built
from ...prompts import Prompt, Text, plain
from . import windows
from .config import DenseClipConfig, DenseClipOptions, PlainVitBackbone, SemanticHead, own
from .core import DenseClip
from .head import FpnHead
from .keys import LAYOUTS
from .plain_vit import PlainHead

MULTIPLE = 32  # sides of tiles: the coarsest level's stride


class Model(DenseClip):
    """See `contracts.Network` for the protocol and `DenseClipConfig` for the variants."""

    def __init__(self, config: DenseClipConfig) -> None:
        super().__init__(config)
        if not isinstance(config.head, SemanticHead):
            raise ConfigError(f"This network segments; its head is a SemanticHead, not a {type(config.head).__name__}.")
        self.looks = config.head
        classes = len(config.classes)
        plain = isinstance(config.backbone, PlainVitBackbone)
        self.head = PlainHead(config.backbone.channels[0], classes) if plain else FpnHead(config.neck.channels, classes, config.head)

    @classmethod
    def from_official(cls, config: DenseClipConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """The network with published weights, in evaluation mode.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return built(lambda: cls(config), LAYOUTS, *state_dicts)

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Bare names -> embeddings (N, C), the image not yet seen; of a baseline, which reads no words, the classes' numbers (N, 1).

        With pre-model prompting no name can be read before the image is seen; its condition is nothing, (N, 0).

        Raises:
            PromptError: another type of prompt, a name that is too long or has templates, or (baseline) one that is no trained class.
        """
        names = []
        for prompt in prompts:
            if not isinstance(prompt, Text):
                raise PromptError(f"DenseCLIP takes names, not {type(prompt).__name__}.")
            if prompt.templates:
                raise PromptError(f"DenseCLIP reads bare names, its learned contexts stand for templates: give {prompt.text!r} without.")
            names.append(prompt.text)
        if self.text is None:
            return PromptFeatures(tuple(prompts), torch.tensor([[float(self._index(name))] for name in names]).view(len(names), 1))
        if not names:
            return PromptFeatures((), self.text.projection.new_zeros(0, self.text.config.embed))
        found = self.class_embeddings(names)
        return PromptFeatures(tuple(prompts), found if self.queries is None else self.queries.new_zeros(len(names), 0))

    def decode(self, image: ImageMaps, prompts: PromptFeatures) -> DenseLogits:
        """Logits (B, N, h, w): the head's at stride 4 if exactly the trained classes are asked, else the score map over its temperature."""
        if not len(prompts):
            return DenseLogits(prompts.condition.new_zeros(len(image.maps[0]), 0, *image.maps[0].shape[-2:]))
        if self.config.language is None:
            return DenseLogits(self.classify(image, None)[:, prompts.condition[:, 0].long()])
        names = tuple(prompt.text for prompt in prompts.prompts if isinstance(prompt, Text))
        base = prompts.condition.to(image.maps[0]) if self.queries is None else self.class_embeddings(names)
        scores = self.guide(image, base).scores
        if [plain(name) for name in names] == [plain(name) for name in self.classes]:
            return DenseLogits(self.classify(image, scores))
        return DenseLogits(scores / self.config.language.tau)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised pixels (B, 3, h, w) -> logits (B, K, h / 4, w / 4) of the trained classes, and their score map (B, K, h', w')."""
        image = self.encode_image(pixel_values)
        scores = None if self.text is None else self.guide(image, self.class_embeddings()).scores
        return self.classify(image, scores), scores

    def classify(self, image: ImageMaps, scores: Tensor | None) -> Tensor:
        """An image and the score map of the trained classes -> the head's logits (B, K, h, w) at stride 4."""
        logits: Tensor = self.head(self.pyramid(image, scores))
        return logits

    # --- photos -------------------------------------------------------------------------------------------------------------------------

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """The published windows; with ``options.tile``, ``fit`` or ``size`` as `nn.views.views`.

        Raises:
            ConfigError: the options are those of detectors or of another family.
        """
        given = own(options, DenseClipOptions)
        if given.tile is not None or given.fit is not None or given.size is not None:
            return shared_views.views(size, given, replace(self.config.preprocess, size=self.looks.limits[1], multiple=MULTIPLE))
        return windows.looks(size, self.looks, given)

    def whole_view(self, size: Size, options: Options) -> View:
        """The photo of ``size`` (H, W) in one look, fitted as the options say."""
        return self.views(size, replace(own(options, DenseClipOptions), mode="whole", scales=(1.0,), flip=False, tile=None))[0]

    def prepare(self, pixels: Tensor, view: View) -> Tensor:
        """Pixels (3, h, w), mirrored where the view is."""
        return pixels.flip(-1) if view.mirrored else pixels

    def merge(self, predictions: Iterable[DenseLogits], views: Sequence[View], size: Size) -> DenseLogits:
        """Windows are averaged at the resized photo's size, looks at the photo's; tiles: see `nn.views.merge`."""
        whole = (0, 0, size[1], size[0])
        if (views[0].content == views[0].shape and views[0].box == whole) or views[0].window is not None:
            return windows.merged(predictions, views, size)
        return shared_views.merge(predictions, views, size)

    def to_scores(self, prediction: DenseLogits, size: Size) -> Iterator[NDArray[np.float32]]:
        """A merged prediction of one photo of ``size`` (H, W) -> each class's share (H, W), one after the other."""
        return windows.probabilities(prediction, size)

    # --- parts --------------------------------------------------------------------------------------------------------------------------

    @property
    def prompt_weights(self) -> nn.Module | None:
        """What decides the conditions of texts; while it stays the same they may be kept."""
        return self.text if self.queries is None else None

    def _index(self, name: str) -> int:
        known = [plain(one) for one in self.classes]
        if plain(name) not in known:
            some = ", ".join(self.classes[:10])
            raise PromptError(f"This model reads no words: {name!r} is none of its {len(self.classes)} classes ({some}, ...).")
        return known.index(plain(name))

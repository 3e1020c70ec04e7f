"""PSALM (Zhang et al., ECCV 2024): a language model reads image and question; its mask tokens become the queries of a mask decoder.

    pixels (B, 3, S, S) --Swin--> maps --pixel decoder--> scales, mask features  -.
                                 `--projector--> image tokens (B, n, D)            > PsalmImage             encode_image
    prompt, image tokens, mask tokens --Phi--> states --> queries, conditions      |
    queries, conditions, PsalmImage --transformer decoder--> masks and scores    <-'                        decode

There is one forward pass of the language model and no generation. Names are read together with the image, so nothing of a prompt is
encoded before `decode`; what is reused from prompt to prompt are the image's features and the language model's states of all that
stands in front of the question: the system's message and the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...contracts import Rule
from ...errors import WeightsError
from ...nn.conversion import detect, from_official, join, shapes_of
from .conditions import Merged, class_ends, class_means, merge, region_points, region_samples, sentence_end, sentence_mean
from .config import PsalmConfig
from .language import Phi, Prefix
from .pixel_decoder import PixelDecoder, Scales
from .predictor import Conditions, Head, Predictor
from .projector import Projector
from .swin import Maps, Swin
from .tokens import IMAGE, PromptBatch


@dataclass(frozen=True, slots=True)
class PsalmImage:
    """What does not depend on the question: ``tokens`` (B, n, D) of the image, and what masks are made from.

    ``prefix``: what the tokens in front of every question leave in the language model, where it was computed.
    """

    tokens: Tensor
    seen: Scales
    prefix: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Understood:
    """What the language model made of a prompt: ``states`` (B, L, D) of the positions of ``merged``, and what is read from them."""

    merged: Merged
    states: Tensor
    queries: Tensor
    conditions: Conditions


class Network(nn.Module):
    """Tensors in, tensors out; `model.Model` adds words, clicks and photos."""

    def __init__(self, config: PsalmConfig) -> None:
        super().__init__()
        self.config = config
        width, masks = config.language.width, config.masks
        self.vision = Swin(config.vision)
        self.projector = Projector(config.vision.widths[-1], config.projector, width)
        self.language = Phi(config.language)
        self.mask_tokens = nn.Parameter(torch.zeros(masks.queries, width))  # before training they differ by their places alone
        self.pixel_decoder = PixelDecoder(config.vision.widths, masks)
        self.predictor = Predictor(masks, len(config.classes))
        self.to_query, self.to_class = nn.Linear(width, masks.width), nn.Linear(width, masks.width)
        self.to_sentence, self.to_region = nn.Linear(width, masks.width), nn.Linear(width, masks.width)

    # --- the image ----------------------------------------------------------------------------------------------------------------------

    def look(self, pixels: Tensor) -> tuple[Maps, Maps]:
        """Normalised pixels (B, 3, S, S) -> maps for the masks, and those for the language model.

        They are the same, but in training with stochastic depth, where the encoder runs once for each (published code).
        """
        maps: Maps = self.vision(pixels)
        again = self.training and self.vision.training and self.config.vision.drop_path > 0
        return maps, self.vision(pixels) if again else maps

    def regions(self, image: Tensor, points: Sequence[Tensor]) -> list[Tensor]:
        """Image tokens (B, n, D) and the points of each image's regions (K_b, P, 2) -> one vector per region, (K_b, D)."""
        return [region_samples(one, where).mean(1) for one, where in zip(image, points, strict=True)]

    def draw(self, masks: Sequence[Tensor], generator: torch.Generator | None = None) -> list[Tensor]:
        """Regions (K_b, S, S) of each image -> the points (K_b, P, 2) at which they are sampled; see `region_points`."""
        return [region_points(one, self.config.region_points, generator) for one in masks]

    # --- the question -------------------------------------------------------------------------------------------------------------------

    def understand(
        self, batch: PromptBatch, tokens: Tensor | None, regions: Sequence[Tensor] | None = None, prefix: Prefix | None = None
    ) -> Understood:
        """Prompts whose images have ``tokens`` (B, n, D) -> the language model's states, mask queries and conditions.

        ``regions``: the vectors of each prompt's regions. ``prefix``: what stands in front of the batch already.
        """
        merged = merge(batch, self.language.embed, tokens, self.mask_tokens, regions)
        valid = None
        if not bool(merged.valid.all()):
            valid = merged.valid if prefix is None else torch.cat([merged.valid.new_ones(len(merged.valid), len(prefix)), merged.valid], 1)
        states: Tensor = self.language(merged.embeds, valid, prefix)
        return Understood(merged, states, *self._read(states, merged))

    def _read(self, states: Tensor, merged: Merged) -> tuple[Tensor, Conditions]:
        """Queries (B, Q, C), and the embeddings of those conditions that the prompts hold."""
        class_states, sentence_state = (class_means, sentence_mean) if self.config.condition == "mean" else (class_ends, sentence_end)
        asked = Conditions(
            self.to_class(class_states(states, merged.classes)) if bool(merged.classes.any()) else None,
            self.to_sentence(sentence_state(states, merged.sentence)) if bool(merged.sentence.any()) else None,
            tuple(self.to_region(one[marked]) for one, marked in zip(states, merged.regions, strict=True))
            if bool(merged.regions.any())
            else None,
        )
        if self.config.queries == "table":
            return self.predictor.query_features.weight.expand(len(states), -1, -1), asked
        return self.to_query(states[merged.masks].view(len(states), -1, states.shape[-1])), asked

    def before(self, tokens: Tensor, ids: Tensor) -> Prefix:
        """The language model's states of ``ids`` (n,), which hold the image's place, for images with ``tokens`` (B, n, D)."""
        place = int((ids == IMAGE).nonzero()[0])
        begin, end = (self.language.embed(part).expand(len(tokens), -1, -1) for part in (ids[:place], ids[place + 1 :]))
        return self.language.prefix(torch.cat([begin, tokens, end], 1))

    # --- the answer ---------------------------------------------------------------------------------------------------------------------

    def predict(self, seen: Scales, understood: Understood, *, every: bool = False) -> list[Head]:
        """Rounds of masks and scores, the last of which counts; ``every`` False gives that one alone."""
        heads: list[Head] = self.predictor(seen, understood.queries, understood.conditions, every=every)
        return heads

    def forward(
        self, pixels: Tensor, batch: PromptBatch, region_masks: Sequence[Tensor] | None = None, *, prompts: Tensor | None = None
    ) -> tuple[Understood, list[Head]]:
        """Everything, as in training: normalised pixels (B, 3, S, S) and prompts -> what was understood, and every round of predictions.

        ``region_masks``: (K_b, S, S) per image. ``prompts``: pixels of the images that the regions lie in, where these are others (video).
        A batch of conversations has no mask tokens, and no predictions.
        """
        maps, read = self.look(pixels)
        tokens = self.projector(read[-1])
        regions = None
        if region_masks is not None:
            regions = self.regions(tokens if prompts is None else self.projector(self.vision(prompts)[-1]), self.draw(region_masks))
        understood = self.understand(batch, tokens, regions)
        if not bool(understood.merged.masks.any()):
            return understood, []
        return understood, self.predict(self.pixel_decoder(maps), understood, every=True)


def load(model: Network, layouts: Mapping[str, Sequence[Rule]], dtype: torch.dtype, *state_dicts: Mapping[str, Tensor]) -> None:
    """Fill a network that was built on the meta device; it takes tensors of ``dtype`` themselves, so that there is one copy of them.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape, or holds integers; all are listed by name.
    """
    theirs, expected = join(*state_dicts), shapes_of(model)
    ours = from_official(layouts[detect(layouts, theirs, expected)], theirs, expected)
    del theirs
    if whole := [name for name, tensor in ours.items() if not tensor.is_floating_point()]:
        raise WeightsError(f"Weights that are integers: {', '.join(whole[:12])}. Get the file again.", misshaped=whole)
    model.load_state_dict({name: ours.pop(name).to(dtype) for name in list(ours)}, assign=True)

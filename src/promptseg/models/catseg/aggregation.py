"""CAT-Seg's aggregator: the cost volume between image and texts, refined over space and over classes, enlarged to logits.

All classes of an image are refined together, however many there are; without gradients that takes one tensor (T, h*w, hidden) and parts of
bounded size, since space is refined class by class, classes are refined pixel by pixel, and the decoder works class by class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import ClassLayer, SpatialPair
from .config import CatSegConfig
from .decoder import Stage

CLASSES_AT_ONCE = 8  # in spatial aggregation and in the decoder, without gradients: what stays in a processor's cache
ABSENT = -100.0  # logit of a class that was left out


@dataclass(frozen=True, slots=True)
class CatSegImage:
    """Encoded images: ``embedding`` (B, C, g, g), not normalised; ``fine`` (B, tapped[0], 2g, 2g) and (B, tapped[1], 4g, 4g).

    ``fine`` holds no more of these than the decoder is guided by.
    """

    embedding: Tensor
    fine: tuple[Tensor, ...]


class AggregationLayer(nn.Module):
    """Over space, then over classes."""

    def __init__(self, config: CatSegConfig) -> None:
        super().__init__()
        width, heads = config.hidden, config.heads
        self.spatial = SpatialPair(width, config.image_guidance, heads, config.window) if config.spatial else None
        self.classes = (
            ClassLayer(width, config.text_guidance, heads, config.pad_classes, config.pooling, config.attention) if config.classes else None
        )


class Aggregator(nn.Module):
    """Cost volume -> logits (paper, sections 3.1 to 3.3)."""

    def __init__(self, config: CatSegConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Conv2d(config.prompts, config.hidden, 7, padding=3)
        embed, looks, words = config.image.embed, config.image_guidance, config.text_guidance
        self.image_guidance = nn.Conv2d(embed, looks, 3, padding=1) if looks and config.spatial else None
        self.text_guidance = nn.Linear(embed, words) if words and config.classes else None
        pairs = [pair for pair in zip(config.tapped, config.decoder_guidance, strict=True) if pair[1]]
        self.guidance = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in pairs)
        self.layers = nn.ModuleList(AggregationLayer(config) for _ in range(config.layers))
        widths = (config.hidden, *config.decoder)
        self.stages = nn.ModuleList(
            Stage(inputs, outputs, guidance) for inputs, outputs, guidance in zip(widths, widths[1:], config.decoder_guidance, strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, image: CatSegImage, text: Tensor, most: int | None = None) -> Tensor:
        """text (T, P, C) -> logits (B, T, 4g, 4g); ``most``: how many classes of each image are refined, all if None; others are -100."""
        parts = zip(image.embedding, *image.fine, strict=True)
        return torch.stack([self.one(embedding, (embedding, *fine), text, most) for embedding, *fine in parts])

    def cost(self, image: Tensor, text: Tensor) -> Tensor:
        """Cosines of image (C, g, g) and text (T, P, C) -> (T, P, g, g)."""
        cells = F.normalize(image, dim=0).flatten(1)
        return torch.unflatten((F.normalize(text, dim=-1) @ cells), -1, image.shape[1:])

    def one(self, embedding: Tensor, guidance: tuple[Tensor, ...], text: Tensor, most: int | None) -> Tensor:
        """As `forward`, for one image (C, g, g) and its guidance from coarse to fine -> (T, 4g, 4g)."""
        cost = self.cost(embedding, text)
        if most is None or len(text) <= most:
            return self._refine(cost, guidance, text)
        kept = cost.flatten(1).amax(1).topk(most).indices.sort().values
        some = self._refine(cost[kept], guidance, F.normalize(text[kept], dim=-1))  # normalised here alone, as published
        return some.new_full((len(text), *some.shape[1:]), ABSENT).index_copy(0, kept, some)

    def _refine(self, cost: Tensor, guidance: tuple[Tensor, ...], text: Tensor) -> Tensor:
        grid = (cost.shape[-2], cost.shape[-1])
        looks = None if self.image_guidance is None else F.relu(self.image_guidance(guidance[0][None]))[0].flatten(1).T
        words = None if self.text_guidance is None else F.relu(self.text_guidance(F.normalize(text.mean(1), dim=-1)))
        x = _by_parts(lambda part: self.embed(part).flatten(2).transpose(1, 2), cost)
        for layer in self.layers:
            assert isinstance(layer, AggregationLayer)
            if layer.spatial is not None:
                pair = layer.spatial
                x = _by_parts(lambda part, pair=pair: pair(part, looks, grid), x, into=x)
            if layer.classes is not None:
                x = layer.classes(x, words, grid)
        return self._decode(x, guidance[1:], grid)

    def _decode(self, x: Tensor, fine: tuple[Tensor, ...], grid: tuple[int, int]) -> Tensor:
        """x (T, h*w, hidden) -> (T, 4h, 4w)."""
        guiding = iter([F.relu(project(seen[None]))[0] for project, seen in zip(self.guidance, fine, strict=True)])
        stages = [stage for stage in self.stages if isinstance(stage, Stage)]
        guides = [next(guiding) if width else None for _, width in zip(stages, self.config.decoder_guidance, strict=False)]
        fast = not torch.is_grad_enabled()
        sizes = [(grid[0] << index, grid[1] << index) for index in range(len(stages))]
        prepared = [stage.prepare(guide, size) if fast else None for stage, guide, size in zip(stages, guides, sizes, strict=True)]

        def logits(part: Tensor) -> Tensor:
            y = torch.unflatten(part.transpose(1, 2), -1, grid)
            for stage, guide, ready in zip(stages, guides, prepared, strict=True):
                y = stage(y, guide, ready)
            result: Tensor = self.head(y)[:, 0]
            return result

        return _by_parts(logits, x)


def _by_parts(work: object, x: Tensor, into: Tensor | None = None) -> Tensor:
    """``work`` on a few classes at a time, unless gradients want all at once; results go ``into`` a tensor, if one is given."""
    assert callable(work)
    if torch.is_grad_enabled() or len(x) <= CLASSES_AT_ONCE:
        whole: Tensor = work(x)
        return whole
    for start, stop in _spans(len(x)):
        part: Tensor = work(x[start:stop])
        if into is None:
            into = part.new_empty(len(x), *part.shape[1:])
        into[start:stop] = part
    assert into is not None
    return into


def _spans(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, CLASSES_AT_ONCE):
        yield start, min(start + CLASSES_AT_ONCE, count)

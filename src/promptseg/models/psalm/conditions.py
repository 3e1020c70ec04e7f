"""The input schema (paper, section 3.2): what stands in a prompt's places, and what is read from the language model's states afterwards.

A prompt of ids with placeholders becomes embeddings in which the image's tokens, every class name, the sentence, one vector per region and
the mask tokens stand. Behind the language model the states of these places are averaged, per class, over the sentence, per region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tokens import CLASS, IGNORE, IMAGE, MASKS, REGION, SENTENCE, PromptBatch


@dataclass(frozen=True, slots=True)
class Merged:
    """B prompts with everything in its place, padded behind to one length L.

    ``embeds`` (B, L, D); ``valid`` (B, L) bool, False on padding; ``labels`` (B, L), `IGNORE` wherever something was put in. What stands
    where: ``masks``, ``sentence``, ``regions`` (B, L) bool, ``classes`` (B, L) int64: 0, or the number of the class, from 1.
    """

    embeds: Tensor
    valid: Tensor
    labels: Tensor
    masks: Tensor
    sentence: Tensor
    regions: Tensor
    classes: Tensor


def merge(
    batch: PromptBatch, embed: nn.Embedding, image: Tensor | None, mask_tokens: Tensor, regions: Sequence[Tensor] | None = None
) -> Merged:
    """``image`` (B, n, D) tokens, None where no prompt has any; ``mask_tokens`` (Q, D); ``regions`` one (K_b, D) per prompt."""
    rows = [_row(batch, row, embed, image, mask_tokens, None if regions is None else regions[row]) for row in range(len(batch.ids))]
    longest = max(len(row[0]) for row in rows)
    embeds, valid, labels, kinds, classes = zip(*rows, strict=True)
    kind = _stack(kinds, longest, 0)
    return Merged(
        torch.stack([F.pad(one, (0, 0, 0, longest - len(one))) for one in embeds]),
        _stack(valid, longest, 0).bool(),
        _stack(labels, longest, IGNORE),
        kind == MASKS,
        kind == SENTENCE,
        kind == REGION,
        _stack(classes, longest, 0),
    )


def _stack(rows: Sequence[Tensor], length: int, fill: int) -> Tensor:
    return torch.stack([F.pad(row, (0, length - len(row)), value=fill) for row in rows])


def _row(
    batch: PromptBatch, row: int, embed: nn.Embedding, image: Tensor | None, mask_tokens: Tensor, regions: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One prompt's embeddings, attention, labels, and per position the placeholder that it stands for and the number of its class."""
    ids, attention, labels = batch.ids[row], batch.attention[row], batch.labels[row]
    places = (ids < 0).nonzero().flatten().tolist()
    embeds: list[Tensor] = []
    facts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # attention, labels, kinds, classes

    def text(begin: int, end: int) -> None:
        nothing = ids.new_zeros(end - begin)
        embeds.append(embed(ids[begin:end]))
        facts.append((attention[begin:end].long(), labels[begin:end], nothing, nothing))

    begin, named, marked = 0, 0, 0
    for place in places:
        text(begin, place)
        kind, number = int(ids[place]), 0
        if kind == IMAGE:
            assert image is not None
            put = image[row]
        elif kind == MASKS:
            put = mask_tokens
        elif kind == CLASS:
            assert batch.class_ids is not None
            assert batch.class_index is not None
            put = embed(batch.class_ids[row][batch.class_index[row] == named])
            named += 1
            number = named
        elif kind == SENTENCE:
            assert batch.sentence_ids is not None
            put = embed(batch.sentence_ids[row].to(ids.device))
        else:
            assert kind == REGION
            assert regions is not None
            put = regions[marked : marked + 1]
            marked += 1
        embeds.append(put)
        one = ids.new_ones(len(put))
        facts.append((one, one * IGNORE, one * kind, one * number))
        begin = place + 1
    text(begin, len(ids))
    joined = [torch.cat(parts) for parts in zip(*facts, strict=True)]
    return torch.cat([part.to(embed.weight.dtype) for part in embeds]), joined[0], joined[1], joined[2], joined[3]


# --- reading the states -----------------------------------------------------------------------------------------------------------------


def class_means(states: Tensor, classes: Tensor) -> Tensor:
    """States (B, L, D) -> the mean over the tokens of each class's name and its [SEG], (B, K, D); ``classes`` as in `Merged`."""
    numbers = torch.arange(1, int(classes.max()) + 1, device=classes.device)
    member = (classes[:, None] == numbers[:, None]).to(states.dtype)  # (B, K, L)
    return (member @ states) / member.sum(-1, keepdim=True)


def sentence_mean(states: Tensor, sentence: Tensor) -> Tensor:
    """States (B, L, D) -> the mean over the tokens of the sentence and its [SEG], (B, 1, D)."""
    member = sentence[:, None].to(states.dtype)
    return (member @ states) / member.sum(-1, keepdim=True)


def class_ends(states: Tensor, classes: Tensor) -> Tensor:
    """States (B, L, D) -> that of the [SEG] behind each class's name, (B, K, D)."""
    return torch.stack([_last(states, classes == number) for number in range(1, int(classes.max()) + 1)], 1)


def sentence_end(states: Tensor, sentence: Tensor) -> Tensor:
    """States (B, L, D) -> that of the [SEG] behind the sentence, (B, 1, D)."""
    return _last(states, sentence)[:, None]


def _last(states: Tensor, member: Tensor) -> Tensor:
    """Of every row the state (B, D) at the last marked place of (B, L)."""
    place = member.shape[1] - 1 - member.long().flip(1).argmax(1)
    return states[torch.arange(len(states), device=states.device), place]


# --- regions of an image ----------------------------------------------------------------------------------------------------------------


def region_points(masks: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Regions (K, H, W), non-zero inside -> (K, count, 2): row / H and column / W of pixels drawn inside; zeros for an empty region.

    A region of fewer pixels gives all of them and repeats some, one of more gives ``count`` different ones. Drawn region by region from
    ``generator`` or, as in training (published code), torch's global one: only a region of exactly ``count`` pixels has nothing random.
    """
    size = torch.tensor(masks.shape[-2:], dtype=torch.float32)
    result = torch.zeros(len(masks), count, 2)
    for row, mask in zip(result, masks.cpu(), strict=True):
        points = mask.nonzero()
        inside = len(points)
        if not inside:
            continue
        if inside < count:
            points = torch.cat([points, points[torch.randint(0, inside, (count - inside,), generator=generator)]])
        elif inside > count:
            points = points[torch.randperm(inside, generator=generator)[:count]]
        row.copy_(points / size)
    return result


def region_samples(features: Tensor, points: Tensor) -> Tensor:
    """Image tokens (n, D) of a square map and points (K, P, 2) -> what lies there, bilinear, (K, P, D)."""
    side = isqrt(len(features))
    grid = features.float().T.reshape(1, -1, side, side)  # places need float32 whatever the network is
    places = (2 * points.flip(-1) - 1).to(grid)[None]
    sampled = F.grid_sample(grid, places, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    return sampled.permute(1, 2, 0).to(features.dtype)

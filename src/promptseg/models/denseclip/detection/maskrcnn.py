"""Mask R-CNN (He et al., ICCV 2017) as mmdetection 2.17 has it: proposals, then a class, a box and a mask for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....contracts import Size
from ....nn import boxes as box_ops
from ....nn.fpn import kaiming
from ....nn.matching import BACKGROUND, Rule, Sampling, match, sample
from ....nn.roi import pyramid_align, roi_align
from ..config import MaskHead
from .anchored import Anchors, Levels, Truth, box_losses, rows
from .picking import Found, pick, require_numbers

STRIDES = (4, 8, 16, 32, 64)
STDS = (0.1, 0.1, 0.2, 0.2)  # of the second stage's deltas
BOX, MASK = 7, 14  # side of the features of a box, and of a mask before it is doubled
PROPOSAL_RULE, BOX_RULE = Rule(positive=0.7, negative=0.3, least=0.3), Rule(positive=0.5, negative=0.5, least=0.5)
PROPOSAL_OVERLAP = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How many anchors and boxes the losses look at; None: all of them."""

    anchors: Sampling | None
    boxes: Sampling | None


PUBLISHED = Draws(anchors=Sampling(count=256, positive=0.5), boxes=Sampling(count=512, positive=0.25))


class Proposals(nn.Module):
    """Where anything might be: one score and one delta per anchor."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.anchors = Anchors(STRIDES, 8, [1.0])
        self.rpn_conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, self.anchors.count, 1)
        self.rpn_reg = nn.Conv2d(channels, self.anchors.count * 4, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Levels:
        """Five levels (B, C, h, w) -> logits (B, 3, h, w) and deltas (B, 12, h, w) of each."""
        seen = [F.relu(self.rpn_conv(level)) for level in pyramid]
        return Levels(tuple(self.rpn_cls(level) for level in seen), tuple(self.rpn_reg(level) for level in seen))

    @torch.no_grad()
    def propose(self, levels: Levels, sizes: Sequence[Size], per_level: int, most: int = 1000) -> list[tuple[Tensor, Tensor]]:
        """Boxes (N, 4) and scores (N,) for each image of ``sizes`` (without padding), best first."""
        anchors = self.anchors.of(levels.logits)
        logits, deltas = [rows(level, 1)[..., 0] for level in levels.logits], [rows(level, 4) for level in levels.deltas]
        results = []
        for image, size in enumerate(sizes):
            boxes, scores, where = [], [], []
            for number, (anchor, logit, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
                score, best = logit[image].sigmoid().sort(descending=True)
                best = best[:per_level]
                boxes.append(box_ops.decode(anchor[best], delta[image][best], size))
                scores.append(score[:per_level])
                where.append(torch.full_like(best, number))
            box, score, level = torch.cat(boxes), torch.cat(scores), torch.cat(where)
            real = (box[:, 2:] > box[:, :2]).all(1).nonzero()[:, 0]
            kept = real[box_ops.nms(box[real], score[real], PROPOSAL_OVERLAP, level[real], most)]
            results.append((box[kept], score[kept]))
        return results

    def losses(self, levels: Levels, truths: Sequence[Truth], sampling: Sampling | None) -> dict[str, list[Tensor]]:
        """``loss_rpn_cls`` and ``loss_rpn_bbox`` of every level, divided by the number of anchors that are looked at."""
        anchors, matches = self.anchors.matches(levels.logits, truths, PROPOSAL_RULE)
        wanted, counts, taking = torch.zeros_like(matches).float(), torch.zeros_like(matches).float(), torch.full_like(matches, BACKGROUND)
        total = 0
        for image, found in enumerate(matches):
            positive, negative = sample(found, sampling)
            wanted[image, positive], taking[image, positive] = 1, found[positive]
            counts[image, positive], counts[image, negative] = 1, 1
            total += max(len(positive), 1) + max(len(negative), 1)
        logits = [rows(level, 1)[..., 0] for level in levels.logits]
        lengths = [level.shape[1] for level in logits]
        parts = zip(logits, torch.split(wanted, lengths, 1), torch.split(counts, lengths, 1), strict=True)
        scored = [F.binary_cross_entropy_with_logits(*part[:2], weight=part[2], reduction="sum") / total for part in parts]
        return {
            "loss_rpn_cls": scored,
            "loss_rpn_bbox": box_losses([rows(level, 4) for level in levels.deltas], anchors, truths, taking, total),
        }


class BoxHead(nn.Module):
    """The class of a box, background last, and a delta for each class."""

    def __init__(self, inputs: int, classes: int, channels: int) -> None:
        super().__init__()
        self.shared_fcs = nn.ModuleList([nn.Linear(inputs * BOX**2, channels), nn.Linear(channels, channels)])
        self.fc_cls = nn.Linear(channels, classes + 1)
        self.fc_reg = nn.Linear(channels, classes * 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features (N, C, 7, 7) -> logits (N, K + 1), deltas (N, 4 K)."""
        x = features.flatten(1)
        for layer in self.shared_fcs:
            x = F.relu(layer(x))
        return self.fc_cls(x), self.fc_reg(x)


class MaskBranch(nn.Module):
    """A mask of a box for each class."""

    def __init__(self, inputs: int, classes: int, config: MaskHead) -> None:
        super().__init__()
        widths = [inputs, *[config.mask_channels] * config.mask_convs]
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.upsample = nn.ConvTranspose2d(widths[-1], config.mask_channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(config.mask_channels, classes, 1)
        for conv in self.convs:
            kaiming(conv)

    def forward(self, features: Tensor) -> Tensor:
        """features (N, C, 14, 14) -> logits (N, K, 28, 28)."""
        x = features
        for conv in self.convs:
            x = F.relu(conv(x))
        result: Tensor = self.conv_logits(F.relu(self.upsample(x)))
        return result


class MaskRcnn(nn.Module):
    """The three together; boxes and masks are read from the four finest levels."""

    def __init__(self, inputs: int, classes: int, config: MaskHead) -> None:
        super().__init__()
        self.classes = classes
        self.rpn = Proposals(inputs, config.rpn_channels)
        self.box = BoxHead(inputs, classes, config.fc_channels)
        self.mask = MaskBranch(inputs, classes, config)

    def read(self, pyramid: Sequence[Tensor], rois: Tensor, out: int) -> Tensor:
        """Features (N, C, out, out) of rois (N, 5): image index, x0, y0, x1, y1."""
        return pyramid_align(pyramid[:4], STRIDES[:4], rois, out).to(pyramid[0].dtype)

    def detect(self, pyramid: Sequence[Tensor], sizes: Sequence[Size]) -> list[Found]:
        """What is in each image of ``sizes`` (without padding): at most 100 boxes with masks, best first.

        Raises:
            NumericalError: scores, boxes or masks are NaN.
        """
        levels = self.rpn(pyramid)
        require_numbers(*levels.logits, *levels.deltas)
        proposals = [boxes for boxes, _ in self.rpn.propose(levels, sizes, 1000)]
        found = self.refine(pyramid, proposals, sizes)
        logits = self.mask(self.read(pyramid, as_rois([one.boxes for one in found]), MASK)).float()
        chosen = logits[torch.arange(len(logits)), torch.cat([one.labels for one in found])]
        require_numbers(chosen)
        masks = torch.split(chosen, [len(one.boxes) for one in found])
        return [replace(one, masks=mask) for one, mask in zip(found, masks, strict=True)]

    def refine(self, pyramid: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Found]:
        """Each image's proposals (N, 4) -> its boxes with their classes; NaN raises as in `detect`."""
        logits, deltas = self.box(self.read(pyramid, as_rois(proposals), BOX))
        require_numbers(logits, deltas)
        lengths = [len(one) for one in proposals]
        scores = torch.split(logits.float().softmax(-1)[:, :-1], lengths)
        moves = torch.split(torch.unflatten(deltas.float(), 1, (-1, 4)), lengths)
        parts = zip(proposals, moves, scores, sizes, strict=True)
        return [pick(box_ops.decode(boxes, move, size, STDS), score) for boxes, move, score, size in parts]

    # --- losses -------------------------------------------------------------------------------------------------------------------------

    def losses(self, pyramid: Sequence[Tensor], truths: Sequence[Truth], draws: Draws = PUBLISHED) -> dict[str, Tensor | list[Tensor]]:
        """Of the proposals (per level), and of classes, boxes and masks on a sample of them."""
        levels = self.rpn(pyramid)
        proposals = [boxes for boxes, _ in self.rpn.propose(levels, [truth.size for truth in truths], 2000)]
        first: dict[str, Tensor | list[Tensor]] = {**self.rpn.losses(levels, truths, draws.anchors)}
        return first | self.second_losses(pyramid, proposals, truths, draws.boxes)

    def second_losses(
        self, pyramid: Sequence[Tensor], proposals: Sequence[Tensor], truths: Sequence[Truth], sampling: Sampling | None
    ) -> dict[str, Tensor | list[Tensor]]:
        """``loss_cls``, ``loss_bbox``, and ``loss_mask`` where the truth has masks."""
        sampled = [drawn(boxes, truth, sampling) for boxes, truth in zip(proposals, truths, strict=True)]
        logits, deltas = self.box(self.read(pyramid, as_rois([one.boxes for one in sampled]), BOX))
        labels = torch.cat([self._labels(one, truth) for one, truth in zip(sampled, truths, strict=True)])
        result: dict[str, Tensor | list[Tensor]] = {"loss_cls": F.cross_entropy(logits.float(), labels)}
        found = [(one.boxes[: one.positives], truth, one.takes[: one.positives]) for one, truth in zip(sampled, truths, strict=True)]
        positive = (labels < self.classes).nonzero()[:, 0]
        moves = torch.unflatten(deltas.float(), 1, (-1, 4))[positive, labels[positive]]
        wanted = torch.cat([box_ops.encode(boxes, truth.boxes[takes], STDS) for boxes, truth, takes in found])
        result["loss_bbox"] = (moves - wanted).abs().sum() / len(labels)
        if all(truth.masks is not None for truth in truths):
            masks = self.mask(self.read(pyramid, as_rois([boxes for boxes, _, _ in found]), MASK)).float()
            chosen = masks[torch.arange(len(masks)), labels[positive]]
            shapes = torch.cat([mask_targets(boxes, truth, takes) for boxes, truth, takes in found])
            result["loss_mask"] = F.binary_cross_entropy_with_logits(chosen, shapes) if len(shapes) else masks.sum() * 0
        return result

    def _labels(self, one: Sampled, truth: Truth) -> Tensor:
        """The classes of a sample, the number of classes for background."""
        labels = torch.full((len(one.boxes),), self.classes, device=one.boxes.device)
        labels[: one.positives] = truth.labels[one.takes[: one.positives]]
        return labels


@dataclass(frozen=True, slots=True)
class Sampled:
    """Boxes (N, 4) of one image that the second stage learns from, the ``positives`` first; which true box each takes (N,)."""

    boxes: Tensor
    takes: Tensor
    positives: int


def drawn(proposals: Tensor, truth: Truth, sampling: Sampling | None) -> Sampled:
    """The true boxes in front of the proposals (N, 4), matched and sampled."""
    own = torch.arange(len(truth.boxes), device=proposals.device)
    boxes, matches = torch.cat([truth.boxes, proposals]), torch.cat([own, match(proposals, truth.boxes, BOX_RULE)])
    positive, negative = sample(matches, sampling)
    chosen = torch.cat([positive, negative])
    return Sampled(boxes[chosen], matches[chosen], len(positive))


def mask_targets(boxes: Tensor, truth: Truth, takes: Tensor) -> Tensor:
    """The true masks inside boxes (N, 4), as 0 and 1: (N, 28, 28)."""
    assert truth.masks is not None
    rois = torch.cat([takes[:, None].to(boxes), boxes], 1)
    return (roi_align(truth.masks[:, None], rois, 2 * MASK, 1.0)[:, 0] >= 0.5).to(boxes)


def as_rois(boxes: Sequence[Tensor]) -> Tensor:
    """The boxes (N_i, 4) of each image as rois (N, 5): image index, x0, y0, x1, y1."""
    return torch.cat([torch.cat([one.new_full((len(one), 1), index), one], 1) for index, one in enumerate(boxes)])

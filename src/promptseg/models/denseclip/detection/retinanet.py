"""RetinaNet's head (Lin et al., ICCV 2017) as mmdetection 2.17 has it: one score per anchor and class on five levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....contracts import Size
from ....nn import boxes as box_ops
from ....nn.fpn import kaiming
from ....nn.matching import BACKGROUND, Rule
from ..config import RetinaHead
from .anchored import Anchors, Levels, Truth, box_losses, focal, rows
from .picking import Found, pick, require_numbers

STRIDES = (8, 16, 32, 64, 128)
RULE = Rule(positive=0.5, negative=0.4, least=0.0)
PER_LEVEL = 1000  # anchors of a level that are decoded at test


class RetinaNet(nn.Module):
    """Two towers of convolutions, shared by all levels."""

    def __init__(self, inputs: int, classes: int, config: RetinaHead) -> None:
        super().__init__()
        self.classes = classes
        self.anchors = Anchors(STRIDES, 4, [2 ** (step / 3) for step in range(3)])
        widths = [inputs, *[config.channels] * config.convs]
        pairs = list(pairwise(widths))
        self.cls_convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)
        self.reg_convs = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)
        self.retina_cls = nn.Conv2d(widths[-1], self.anchors.count * classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(widths[-1], self.anchors.count * 4, 3, padding=1)
        for conv in (*self.cls_convs, *self.reg_convs):
            kaiming(conv)

    def forward(self, pyramid: Sequence[Tensor]) -> Levels:
        """Five levels (B, C, h, w) -> logits (B, 9 K, h, w) and deltas (B, 36, h, w) of each."""
        logits, deltas = [], []
        for level in pyramid:
            seen, placed = level, level
            for see, place in zip(self.cls_convs, self.reg_convs, strict=True):
                seen, placed = F.relu(see(seen)), F.relu(place(placed))
            logits.append(self.retina_cls(seen))
            deltas.append(self.retina_reg(placed))
        return Levels(tuple(logits), tuple(deltas))

    def detect(self, pyramid: Sequence[Tensor], sizes: Sequence[Size]) -> list[Found]:
        """What is in each image of ``sizes`` (without padding): at most 100 boxes, best first.

        Raises:
            NumericalError: scores or boxes are NaN.
        """
        levels = self(pyramid)
        require_numbers(*levels.logits, *levels.deltas)
        return self.decode(levels, sizes)

    def decode(self, levels: Levels, sizes: Sequence[Size]) -> list[Found]:
        """Raw outputs -> boxes: the best anchors of every level, then the best pairs of a box and a class."""
        anchors = self.anchors.of(levels.logits)
        logits = [rows(level, self.classes) for level in levels.logits]
        deltas = [rows(level, 4) for level in levels.deltas]
        results = []
        for image, size in enumerate(sizes):
            boxes, scores = [], []
            for anchor, logit, delta in zip(anchors, logits, deltas, strict=True):
                score = logit[image].sigmoid()
                best = score.amax(-1).topk(min(PER_LEVEL, len(score))).indices
                boxes.append(box_ops.decode(anchor[best], delta[image][best], size))
                scores.append(score[best])
            results.append(pick(torch.cat(boxes), torch.cat(scores)))
        return results

    def losses(self, pyramid: Sequence[Tensor], truths: Sequence[Truth]) -> dict[str, list[Tensor]]:
        """``loss_cls`` and ``loss_bbox`` of every level; each divided by the number of anchors that find something."""
        levels = self(pyramid)
        anchors, matches = self.anchors.matches(levels.logits, truths, RULE)
        total = float((matches >= 0).sum(1).clamp(min=1).sum())
        wanted = torch.stack([self._labels(truth, found) for truth, found in zip(truths, matches, strict=True)])
        counts = (matches >= BACKGROUND).float()[..., None]
        logits = [rows(level, self.classes) for level in levels.logits]
        lengths = [level.shape[1] for level in logits]
        parts = zip(logits, torch.split(wanted, lengths, 1), torch.split(counts, lengths, 1), strict=True)
        scored = [
            (focal(level, F.one_hot(label, self.classes + 1)[..., :-1].float()) * count).sum() / total for level, label, count in parts
        ]
        return {"loss_cls": scored, "loss_bbox": box_losses([rows(level, 4) for level in levels.deltas], anchors, truths, matches, total)}

    def _labels(self, truth: Truth, matches: Tensor) -> Tensor:
        """The class of every anchor (N,), the number of classes for none."""
        labels = torch.cat([truth.labels, truth.labels.new_tensor([self.classes])])
        return labels[torch.where(matches >= 0, matches, len(truth.labels))]

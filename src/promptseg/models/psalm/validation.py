"""How well a network in training answers held-out questions, on its own grid: one figure per kind of question, the larger the better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.samples import IGNORE
from ...metrics import ReferringIoU, SemanticIoU, merged
from .batches import Batch, Example, answers
from .losses import Targets, language_loss
from .network import Network
from .predictor import Head

__all__ = ["Figure"]


@dataclass
class Figure:
    """The answers of one kind of question, counted; ``names``: classes, where these are asked, background last."""

    kind: str
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.maps = SemanticIoU(self.names, ignore=IGNORE) if self.kind == "panoptic" else None
        self.masks = ReferringIoU("skip")
        self.talked: list[float] = []

    @torch.no_grad()
    def count(self, model: Network, example: Example, batch: Batch) -> None:
        """Ask one question, which is the whole ``batch``."""
        understood, heads = answers(model, batch)
        if example.targets is None:
            self.talked.append(-language_loss(model.language.head(understood.states), understood.merged.labels).item())
        elif self.maps is not None:
            self.maps.update(*_maps(heads[-1], example.targets))
        else:
            for found, truth in _masks(heads[-1], example):
                self.masks.update(found.numpy(), truth.numpy() > 0)

    @staticmethod
    def of(parts: Sequence[Figure]) -> dict[str, float]:
        """What several processes counted, together.

        "mIoU, panoptic": of the map that the most probable class of every labelled pixel makes; "mIoU, referring" and "mIoU, interactive":
        of the best mask for each expression or mark; "likelihood, conversation": mean logarithm of the next token's probability.
        """
        kind, talked = parts[0].kind, [value for part in parts for value in part.talked]
        if kind == "conversation":
            return {f"likelihood, {kind}": sum(talked) / max(1, len(talked))}
        maps = [part.maps for part in parts if part.maps is not None]
        if maps:
            return {f"mIoU, {kind}": merged(maps).compute().mean_iou}
        return {f"mIoU, {kind}": merged([part.masks for part in parts]).compute().giou}


def _maps(head: Head, targets: Targets) -> tuple[Tensor, Tensor]:
    """Maps (S, S) of classes as answered and as labelled, background among them."""
    assert head.classes is not None
    summed = torch.einsum("qc,qhw->chw", head.classes[0].float().softmax(-1)[:, :-1], head.masks[0].float().sigmoid())
    side = targets.masks.shape[-1]
    answered = F.interpolate(summed[None], (side, side), mode="bilinear", align_corners=False)[0].argmax(0)
    truth = torch.full((side, side), IGNORE, dtype=torch.long)
    for mask, label in zip(targets.masks, targets.labels, strict=True):
        truth[mask > 0] = label
    return answered.cpu(), truth


def _masks(head: Head, example: Example) -> list[tuple[Tensor, Tensor]]:
    """For every target (S, S) the mask of the query that scores best for it; for an expression, of all its targets together."""
    assert example.targets is not None
    targets = example.targets.masks
    if head.regions is not None:
        best, truths = head.regions[0].argmax(-1), targets
    else:
        assert head.sentence is not None
        best, truths = head.sentence[0, :, 0].argmax(-1, keepdim=True), targets.amax(0, keepdim=True)
    chosen = F.interpolate(head.masks[:, best].float(), targets.shape[-2:], mode="bilinear", align_corners=False)[0]
    return list(zip(chosen.cpu() > 0, truths, strict=True))

"""How well a network in training answers held-out questions: one figure per kind of question, the larger the better."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.samples import IGNORE
from ...metrics import ReferringIoU, SemanticIoU, merged
from ...training.distributed import everybodys, moved, my_part
from .batches import Example, answers, collate
from .losses import Targets, language_loss
from .network import Network
from .predictor import Head
from .questions import Questions

__all__ = ["validate"]


@torch.no_grad()
def validate(model: Network, kind: str, questions: Questions, most: int, pad: int) -> dict[str, float]:
    """At most ``most`` questions of a source, spread evenly over it, on the network's own grid. Processes divide them.

    "mIoU, panoptic": of the map that the most probable class of every labelled pixel makes; "mIoU, referring" and "mIoU, interactive": of
    the best mask for each expression or mark; "likelihood, conversation": mean logarithm of the next token's probability.
    """
    chosen = range(0, len(questions), -(-len(questions) // most))
    talked: list[float] = []
    metric = SemanticIoU(questions.names, ignore=IGNORE) if kind == "panoptic" else ReferringIoU("skip")
    with torch.random.fork_rng(devices=[]):  # training goes on with the numbers that it would have drawn
        torch.manual_seed(0)
        for index in (chosen[place] for place in my_part(len(chosen))):
            example = questions.example(index, Random(index))
            batch = moved(collate([example], pad, model.config.language.context), model.mask_tokens.device)
            understood, heads = answers(model, batch)
            if example.targets is None:
                talked.append(-language_loss(model.language.head(understood.states), understood.merged.labels).item())
            elif isinstance(metric, SemanticIoU):
                metric.update(*_maps(heads[-1], example.targets))
            else:
                for found, truth in _masks(heads[-1], example):
                    metric.update(found.numpy(), truth.numpy() > 0)
    if kind == "conversation":
        everything = [value for part in everybodys(talked) for value in part]
        return {"likelihood, conversation": sum(everything) / max(1, len(everything))}
    if isinstance(metric, SemanticIoU):
        return {f"mIoU, {kind}": merged(everybodys(metric)).compute().mean_iou}
    return {f"mIoU, {kind}": merged(everybodys(metric)).compute().giou}


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

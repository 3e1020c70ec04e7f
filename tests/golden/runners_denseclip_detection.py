"""DenseCLIP's detectors (kinds ``denseclip/det_forward``, ``det_loss`` and ``det_seg_loss``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from cases import Case, Results
from numpy.typing import NDArray
from runners_clip import with_counters
from runners_denseclip import model_input
from runners_denseclip_parts import config_of
from torch import Tensor

from promptseg.contracts import Size
from promptseg.models.denseclip.detection.anchored import Truth
from promptseg.models.denseclip.detection.losses import box_score_loss, box_targets
from promptseg.models.denseclip.detection.maskrcnn import BOX, MASK, Draws, MaskRcnn, as_rois, drawn
from promptseg.models.denseclip.detection.network import Detector, enlarged
from promptseg.models.denseclip.detection.picking import Found
from promptseg.models.denseclip.detection.retinanet import RetinaNet
from promptseg.nn import roi

EVERYTHING = Draws(anchors=None, boxes=None)


def network(case: Case) -> Detector:
    """The detector of a case with its weights."""
    return Detector.from_official(config_of(case.args["config"], case.args["class_names"]), with_counters(case.state_dict()))


# --- forward ----------------------------------------------------------------------------------------------------------------------------


def det_forward(case: Case) -> Results:
    """Everything from pixels to detections."""
    net, pixels = network(case), model_input(case.args["input"], case.args["config"])
    image = net.encode_image(pixels).encoded
    results: dict[str, Any] = {"input": pixels} | {f"c{index}": level for index, level in enumerate(image.maps, 2)}
    scores = None
    if net.config.language is not None:
        found = net.guide(image, net.class_embeddings())
        scores, divided = found.scores, found.scores / net.config.language.tau
        results |= {"global": image.embedding, "local": image.local, "text_base": found.base, "text_final": found.texts}
        results |= {"score_map3": divided, "score_map0": enlarged(divided, image.maps[0])}
    levels = net.pyramid(image, scores)
    results |= {f"fpn{index}": level for index, level in enumerate(levels)}
    size = (pixels.shape[2], pixels.shape[3])
    if isinstance(net.head, RetinaNet):
        return results | retina(case, net.head, levels, size)
    return results | mask_rcnn(case, net.head, levels, size)


def retina(case: Case, head: RetinaNet, pyramid: Sequence[Tensor], size: Size) -> dict[str, Any]:
    """Raw outputs of the five levels and the boxes."""
    raw = head(pyramid)
    named = {f"cls{index}": level for index, level in enumerate(raw.logits)}
    named |= {f"reg{index}": level for index, level in enumerate(raw.deltas)}
    return {**named, **detections(case, head.decode(raw, [size])[0])}


def mask_rcnn(case: Case, head: MaskRcnn, pyramid: Sequence[Tensor], size: Size) -> dict[str, Any]:
    """Proposals, both heads on the given boxes, and the boxes found."""
    raw, rois = head.rpn(pyramid), case.args["rois"]
    proposals, scores = head.rpn.propose(raw, [size], 1000)[0]
    features = head.read(pyramid, rois, BOX)
    logits, deltas = head.box(features)
    named = {f"rpn_cls{index}": level for index, level in enumerate(raw.logits)}
    named |= {f"rpn_reg{index}": level for index, level in enumerate(raw.deltas)}
    named |= {"roi_level": roi.levels(rois, 4), "roi_feat7": features, "bbox_cls": logits, "bbox_reg": deltas}
    named |= {"mask_logits": head.mask(head.read(pyramid, rois, MASK)), "proposals": len(proposals)}
    named |= matched(case, "proposals", proposals, scores, None)
    return {**named, **detections(case, head.refine(pyramid, [proposals], [size])[0])}


def detections(case: Case, found: Found) -> dict[str, Any]:
    """The boxes found, in the photo's pixels."""
    return matched(case, "detections", found.boxes / case.args["scale_factor"], found.scores, found.labels)


def matched(case: Case, what: str, boxes: Tensor, scores: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """The stored entries, NaN (-1) in place of each for which no produced one is left that equals it by the case's rule."""
    parts = ("boxes", "scores") if labels is None else ("boxes", "scores", "labels")
    stored: dict[str, NDArray[Any]] = {part: case.tensors[f"{what}.{part}"].copy() for part in parts if f"{what}.{part}" in case.tensors}
    if not stored:
        return {}
    box = np.abs(boxes.numpy()[None] - stored["boxes"][:, None]).max(-1) <= case.args["match"]["box"]
    fits = box & (np.abs(scores.numpy()[None] - stored["scores"][:, None]) <= case.args["match"]["score"])
    if labels is not None:
        fits &= labels.numpy()[None] == stored["labels"][:, None]
    free = np.ones(len(boxes), bool)
    for index, row in enumerate(fits):
        (places,) = np.nonzero(row & free)
        if len(places):
            free[places[0]] = False
            continue
        for values in stored.values():
            values[index] = np.nan if values.dtype.kind == "f" else -1
    return {f"{what}.{part}": values for part, values in stored.items()}


# --- losses -----------------------------------------------------------------------------------------------------------------------------


def det_loss(case: Case) -> Results:
    """The losses of a batch, every candidate looked at."""
    net, pixels, args = network(case), model_input(case.args["input"], case.args["config"]), case.args
    size = (pixels.shape[2], pixels.shape[3])
    boxes, labels = args["gt_boxes"].split(args["gt_per_image"]), args["gt_labels"].long().split(args["gt_per_image"])
    truths = [Truth(boxes=box, labels=label, size=size, padded=size) for box, label in zip(boxes, labels, strict=True)]
    image = net.encode_image(pixels).encoded
    assert net.config.language is not None
    scores = net.guide(image, net.class_embeddings()).scores
    pyramid, finest = net.pyramid(image, scores), enlarged(scores / net.config.language.tau, image.maps[0])
    target, mask = box_targets(boxes, labels, len(net.classes), (finest.shape[2], finest.shape[3]))
    results: dict[str, Any] = {"seg_loss": box_score_loss(finest, boxes, labels)}
    results |= {"seg_target_sum": int(target.sum()), "seg_mask_sum": int(mask.sum()) * len(net.classes)}
    if isinstance(net.head, RetinaNet):
        return results | by_level(net.head.losses(pyramid, truths))
    head = net.head
    results |= by_level(head.rpn.losses(head.rpn(pyramid), truths, None))
    proposals = args["proposals"].split(args["proposals_per_image"])
    second = head.second_losses(pyramid, proposals, truths, None)
    results |= {f"roi.{name}": loss for name, loss in second.items()}
    sampled = [drawn(one, truth, None) for one, truth in zip(proposals, truths, strict=True)]
    logits, _ = head.box(head.read(pyramid, as_rois([one.boxes for one in sampled]), BOX))
    wanted = [truth.labels[one.takes].where(one.takes >= 0, head.classes) for one, truth in zip(sampled, truths, strict=True)]
    results["roi.acc"] = 100 * (logits.argmax(1) == torch.cat(wanted)).float().mean()
    results["roi.counts"] = [[one.positives, len(one.boxes) - one.positives] for one in sampled]
    return results


def by_level(losses: Mapping[str, Any]) -> dict[str, Any]:
    """A list of losses as one value per level."""
    return {f"{name}.{level}": value for name, values in losses.items() for level, value in enumerate(values)}


def det_seg_loss(case: Case) -> Results:
    """The auxiliary loss alone, and its gradient."""
    args = case.args
    height, width = (side // 4 for side in args["image_size"])
    boxes, labels = list(args["boxes"]), list(args["labels"].long())
    target, mask = box_targets(boxes, labels, args["num_classes"], (height, width))
    with torch.enable_grad():
        scores = args["score_map"].clone().requires_grad_()
        loss = box_score_loss(scores, boxes, labels)
        (gradient,) = torch.autograd.grad(loss, scores)
    return {"target": target, "mask": mask, "loss": loss.item(), "grad/score_map": gradient}


RUNNERS = {
    "denseclip/det_forward": det_forward,
    "denseclip/det_loss": det_loss,
    "denseclip/det_seg_loss": det_seg_loss,
}

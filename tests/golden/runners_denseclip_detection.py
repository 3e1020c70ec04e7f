"""DenseCLIP's detectors (kinds ``denseclip/det_forward``, ``det_loss`` and ``det_seg_loss``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from cases import Case, Results
from numpy.typing import NDArray
from torch import Tensor

from promptseg.contracts import Size
from promptseg.models.denseclip.anchored import Truth
from promptseg.models.denseclip.config import (
    DecoderConfig,
    DenseClipConfig,
    LanguageConfig,
    MaskHead,
    PyramidConfig,
    ResNetBackbone,
    RetinaHead,
)
from promptseg.models.denseclip.detection_losses import box_score_loss, box_targets
from promptseg.models.denseclip.detector import Detector, Guided, enlarged
from promptseg.models.denseclip.maskrcnn import BOX, MASK, Draws, MaskRcnn, as_rois, drawn
from promptseg.models.denseclip.picking import Found
from promptseg.models.denseclip.retinanet import RetinaNet
from promptseg.nn.clip_config import AttentionPoolConfig, ClipTextConfig
from promptseg.nn.roi import levels
from promptseg.prompts import Text

EVERYTHING = Draws(anchors=None, boxes=None)


def config_of(args: Mapping[str, Any], class_names: Sequence[str] | None) -> DenseClipConfig:
    """The arguments of a detector as our configuration."""
    backbone, neck, head = args["backbone"], args["neck"], args["head"]
    pool, text, decoder = backbone.get("attention_pool"), args.get("text_encoder"), args.get("context_decoder")
    language = None
    if args["language"]:
        language = LanguageConfig(
            text=ClipTextConfig(
                width=text["width"],
                layers=text["layers"],
                heads=text["heads"],
                embed=text["embed_dim"],
                context=text["class_tokens"] + text["contexts"],
            ),
            tokens=text["class_tokens"],
            contexts=text["contexts"],
            decoder=DecoderConfig(width=decoder["width"], layers=decoder["layers"], heads=decoder["heads"]),
            tau=args["tau"],
            level=args["score_level"],
            divided=args["score_level_divided_by_tau"],
        )
    found = DenseClipConfig(
        classes=tuple(class_names or [f"class {index}" for index in range(args["num_classes"])]),
        backbone=ResNetBackbone(
            layers=tuple(backbone["layers"]),
            width=backbone["width"],
            pool=pool and AttentionPoolConfig(embed=pool["embed_dim"], grid=pool["grid"], heads=pool["heads"], resize=pool["resize_positions"]),
        ),
        language=language,
        neck=PyramidConfig(
            channels=neck["out_channels"], start=neck.get("start_level", 0), outputs=neck["num_outs"], extra=neck["extra_levels"]
        ),
        head=RetinaHead(channels=head["feat_channels"], convs=head["stacked_convs"])
        if head["type"] == "retinanet"
        else MaskHead(
            rpn_channels=head["rpn_channels"],
            fc_channels=head["fc_channels"],
            mask_convs=head["mask_convs"],
            mask_channels=head["mask_channels"],
        ),
    )
    assert list(found.neck_inputs) == neck["in_channels"]
    assert len(found.classes) == args["num_classes"]
    return found


def network(case: Case) -> Detector:
    """The detector of a case with its weights; counters of batches start at 0."""
    config = config_of(case.args["config"], case.args["class_names"])
    with torch.device("meta"):
        names = Detector(config).state_dict()
    counters = {name.replace("image.", "backbone.", 1): torch.tensor(0) for name in names if name.endswith("num_batches_tracked")}
    return Detector.from_official(config, {**case.state_dict(), **counters})


def model_input(args: Mapping[str, Any]) -> Tensor:
    """(B, 3, H, W): normalised in double precision, times the gain."""
    given = args["input"]
    if isinstance(given, Tensor):
        return given
    mean, std = (255 * np.asarray(args["config"][key], np.float64) for key in ("image_mean", "image_std"))
    images = [given["gain"] * ((image.astype(np.float64) - mean) / std).astype(np.float32) for image in given["images"]]
    return torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


# --- forward ----------------------------------------------------------------------------------------------------------------------------


def det_forward(case: Case) -> Results:
    """Everything from pixels to detections."""
    net, pixels = network(case), model_input(case.args)
    image = net.encode_image(pixels)
    encoded = image.encoded
    texts = net.encode_prompts([Text(name) for name in net.classes]).condition
    guided = net.guide(encoded, texts)
    results: dict[str, Any] = {"input": pixels}
    results |= {f"c{index}": level for index, level in enumerate(encoded.maps, 2)}
    results |= {f"fpn{index}": level for index, level in enumerate(guided.levels)}
    if guided.scores is not None:
        final = net.final_texts(encoded, texts)
        results |= {"global": encoded.embedding, "local": encoded.local, "text_base": texts[None], "text_final": final}
        results |= {"score_map3": guided.scores, "score_map0": enlarged(guided.scores, encoded.maps[0])}
    size = (pixels.shape[2], pixels.shape[3])
    head = retina if isinstance(net.head, RetinaNet) else mask_rcnn
    return results | head(case, net.head, guided, size)


def retina(case: Case, head: RetinaNet, guided: Guided, size: Size) -> dict[str, Any]:
    """Raw outputs of the five levels and the boxes."""
    raw = head(guided.levels)
    named = {f"cls{index}": level for index, level in enumerate(raw.logits)} | {f"reg{index}": level for index, level in enumerate(raw.deltas)}
    return {**named, **detections(case, head.decode(raw, [size])[0])}


def mask_rcnn(case: Case, head: MaskRcnn, guided: Guided, size: Size) -> dict[str, Any]:
    """Proposals, both heads on the given boxes, and the boxes found."""
    raw, rois = head.rpn(guided.levels), case.args["rois"]
    proposals, scores = head.rpn.propose(raw, [size], 1000)[0]
    features = head.read(guided.levels, rois, BOX)
    logits, deltas = head.box(features)
    named = {f"rpn_cls{index}": level for index, level in enumerate(raw.logits)}
    named |= {f"rpn_reg{index}": level for index, level in enumerate(raw.deltas)}
    named |= {"roi_level": levels(rois, 4), "roi_feat7": features, "bbox_cls": logits, "bbox_reg": deltas}
    named |= {"mask_logits": head.mask(head.read(guided.levels, rois, MASK)), "proposals": len(proposals)}
    named |= matched(case, "proposals", proposals, scores, None)
    return {**named, **detections(case, head.refine(guided.levels, [proposals], [size])[0])}


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
    net, pixels, args = network(case), model_input(case.args), case.args
    size = (pixels.shape[2], pixels.shape[3])
    boxes, labels = args["gt_boxes"].split(args["gt_per_image"]), args["gt_labels"].long().split(args["gt_per_image"])
    truths = [Truth(boxes=box, labels=label, size=size, padded=size) for box, label in zip(boxes, labels, strict=True)]
    encoded = net.image(pixels)
    guided = net.guide(encoded, net.encode_prompts([Text(name) for name in net.classes]).condition)
    assert guided.scores is not None
    finest = enlarged(guided.scores, encoded.maps[0])
    target, mask = box_targets(boxes, labels, len(net.classes), (finest.shape[2], finest.shape[3]))
    results: dict[str, Any] = {"seg_loss": box_score_loss(finest, boxes, labels)}
    results |= {"seg_target_sum": int(target.sum()), "seg_mask_sum": int(mask.sum()) * len(net.classes)}
    if isinstance(net.head, RetinaNet):
        return results | by_level(net.head.losses(guided.levels, truths))
    head = net.head
    results |= by_level(head.rpn.losses(head.rpn(guided.levels), truths, None))
    proposals = args["proposals"].split(args["proposals_per_image"])
    second = head.second_losses(guided.levels, proposals, truths, None)
    results |= {f"roi.{name}": loss for name, loss in second.items()}
    sampled = [drawn(one, truth, None) for one, truth in zip(proposals, truths, strict=True)]
    logits, _ = head.box(head.read(guided.levels, as_rois([one.boxes for one in sampled]), BOX))
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

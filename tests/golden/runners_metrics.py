"""Metric cases of all families, by kind. What each kind takes and gives: last section of the family's specification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, Results
from numpy.typing import NDArray
from torch import Tensor

from promptseg.data.pascal import zero_shot
from promptseg.data.vocabularies import names as vocabulary
from promptseg.errors import PromptSegError
from promptseg.metrics import (
    CLIPSEG_THRESHOLDS,
    Found,
    Labelled,
    MaskAP,
    PanopticQuality,
    PanopticResult,
    Quality,
    ReferringIoU,
    SemanticBoundaryIoU,
    SemanticIoU,
    SemanticResult,
    ThresholdSweep,
    VideoJF,
    ZeroShotIoU,
    intersection_union,
)

FIXED = (0.5, 0.1, 0.2, 0.3)  # thresholds whose figures the published code always tells
OURS = {"fgiou": "foreground", "biniou": "binary", "miou": "mean"}


def null(value: float) -> float | None:
    """NaN is null in a case."""
    return None if math.isnan(value) else value


# --- CLIPSeg ----------------------------------------------------------------------------------------------------------------------------


def clipseg(case: Case) -> Results:
    """Sweeps over thresholds, each run with its own options; one that the published code cannot finish fails."""
    results: dict[str, Any] = {"thresholds": list(CLIPSEG_THRESHOLDS)}
    for run in case.args["runs"]:
        try:
            figures = {**_figures(_swept(run, case.args["batches"]), run["options"]), "fails": False}
        except (PromptSegError, TypeError):  # a threshold that is none of them; no class ids
            figures = {"fails": True}
        results |= {f"{run['name']}/{key}": value for key, value in figures.items()}
    return results


def _swept(run: Mapping[str, Any], batches: Sequence[tuple[int, int]]) -> ThresholdSweep:
    options = run["options"]
    sweep = ThresholdSweep(tuple(np.linspace(0, 1, options.get("n_values", 51))[1:-1].tolist()))
    valid = None if options.get("ignore_mask") else run["valid"]
    for start, stop in batches:
        scores, target = run["prediction"][start:stop], run["target"][start:stop]
        scores = torch.sigmoid(scores) if options.get("sigmoid") else scores
        if size := options.get("resize_to"):
            scores, target = F.interpolate(scores, size, mode="bilinear"), F.interpolate(target, size)
        if options.get("resize_pred"):
            scores = F.interpolate(scores, target.shape[2:], mode="bilinear", align_corners=True)
        names = run["classes"][start:stop].tolist()
        for index, name in enumerate(names):
            known = None if valid is None else valid[start + index] > 0
            sweep.update(name, scores[index], target[index] > 0, known)
    return sweep


def _figures(sweep: ThresholdSweep, options: Mapping[str, Any]) -> dict[str, Any]:
    result, table = sweep.compute(), sweep.confusion()
    figures: dict[str, Any] = {"ap": result.average_precision, "precision_recall_curve": result.curve}
    custom = options.get("custom_threshold")
    for theirs, ours in OURS.items():
        best = result.best(ours)  # type: ignore[arg-type]
        figures |= {f"{theirs}_best": getattr(best, ours), f"{theirs}_best_t": best.threshold}
        figures |= {f"{theirs}_{threshold}": getattr(result.at(threshold), ours) for threshold in FIXED}
        key = "mean_iou" if theirs == "miou" else theirs
        figures |= {f"{key}_ct": None if custom is None else getattr(result.at(custom), ours), f"{key}_scores": getattr(result, ours)}
    for place, cell in enumerate(("tp", "fp", "fn", "tn")):
        figures |= {cell: table[:, place].sum(0), f"{cell}_by_class": table[:, place]}
    return {**figures, "ct": custom}


def zero_shot_case(case: Case) -> Results:
    """Generalised zero-shot mIoU of every split. The published call swaps the two groups, and with them what its results are called."""
    args = case.args
    names = vocabulary("voc21-clipseg")
    results: dict[str, Any] = {"class_names": list(names)}
    for count in args["n_unseen"]:
        split = zero_shot(count)
        groups = {"seen": split.seen, "unseen": split.unseen}
        metric = ZeroShotIoU(names[: args["classes"]], unseen=tuple(names[index] for index in groups[args["unseen_argument"]]))
        for ours, truth in zip(case.tensors["prediction"], case.tensors["label"], strict=True):
            metric.update(ours, truth)
        result = metric.compute()
        figures: dict[str, Any] = {
            "mean_seen": result.seen,
            "mean_unseen": result.unseen,
            "harmonic": result.harmonic,
            "overall": result.overall,
        }
        figures |= {"by_class": list(result.iou.values()), **{name: list(ids) for name, ids in groups.items()}}
        results |= {f"{count}/{name}": value for name, value in figures.items()}
    return results


# --- label maps -------------------------------------------------------------------------------------------------------------------------


def _measured(metric: SemanticIoU, prediction: NDArray[Any], target: NDArray[Any]) -> SemanticResult:
    for ours, truth in zip(prediction, target, strict=True):
        metric.update(ours, truth)
    return metric.compute()


def _classes(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def catseg(case: Case) -> Results:
    """detectron2's evaluator; classes from ``background_from`` on are one background."""
    args, prediction = case.args, case.tensors["pred"]
    if args["background_from"] is not None:
        prediction = np.minimum(prediction, args["background_from"])
    metric = SemanticIoU(_classes(args["classes"]), ignore=args["ignore"], absent="labelled")
    result = _measured(metric, prediction, case.tensors["gt"])
    return {"confusion": metric.matrix, **_percent(result)}


def _percent(result: SemanticResult) -> dict[str, float | None]:
    """Figures in percent under detectron2's names."""
    return {
        "mIoU": 100 * result.mean_iou,
        "fwIoU": 100 * result.frequency_weighted_iou,
        "mACC": 100 * result.mean_accuracy,
        "pACC": 100 * result.pixel_accuracy,
        **{f"IoU-c{name}": null(100 * value) for name, value in result.iou.items()},
        **{f"ACC-c{name}": null(100 * value) for name, value in result.accuracy.items()},
    }


def psalm_semantic(case: Case) -> Results:
    """The same evaluator, and its reading of boundary IoU."""
    classes, ignore = _classes(case.args["num_classes"]), case.args["ignore_label"]
    metric, outlines = SemanticIoU(classes, ignore=ignore, absent="labelled"), SemanticBoundaryIoU(classes, ignore=ignore)
    maps = case.tensors["pred"], case.tensors["gt"]
    figures, edges = _percent(_measured(metric, *maps)), _measured(outlines, *maps).iou
    for name, value in edges.items():
        whole, edge = figures[f"IoU-c{name}"], null(100 * value)
        figures |= {f"BoundaryIoU-c{name}": edge, f"min(IoU, B-Iou)-c{name}": None if whole is None or edge is None else min(whole, edge)}
    return {"confusion": metric.matrix, **figures}


def mmseg(prediction: Tensor, target: Tensor, classes: int, ignore: int) -> Results:
    """mmsegmentation's figures; null where it divides nothing by nothing."""
    result = _measured(SemanticIoU(_classes(classes), ignore=ignore), prediction.numpy(), target.numpy())
    figures: dict[str, float | None] = {"aAcc": result.pixel_accuracy, "mIoU": result.mean_iou, "mAcc": result.mean_accuracy}
    for title, values in (("IoU", result.iou), ("Acc", result.accuracy), ("Dice", result.dice)):
        figures |= {f"{title}.{name}": null(value) for name, value in values.items()}
    return figures


def denseclip(case: Case) -> Results:
    """Labels that begin at 1 are moved down first."""
    args, target = case.args, case.args["gt"].long()
    if args["reduce_zero_label"]:
        target = torch.where((target == 0) | (target == args["ignore_index"]), args["ignore_index"], target - 1)
    return mmseg(args["pred"], target, args["num_classes"], args["ignore_index"])


def groupvit(case: Case) -> Results:
    """Label maps as they are."""
    args = case.args
    return mmseg(args["prediction"], args["label"], args["num_classes"], args["ignore_index"])


# --- PSALM: masks, segments, instances, videos ------------------------------------------------------------------------------------------


def psalm_iou(case: Case) -> Results:
    """The best mask, or the union of all above a threshold, against the truth."""
    masks, targets, scores = case.tensors["pred"] > 0, case.tensors["gt"] > 0, case.tensors["scores"]
    # torch's choice among equal scores is part of the case
    best = np.stack([mask[torch.topk(torch.from_numpy(score), 1).indices[0]] for mask, score in zip(masks, scores, strict=True)])
    above = [mask[score > case.args["threshold"]] for mask, score in zip(masks, scores, strict=True)]
    union = np.stack([some.any(0) if len(some) else first for some, first in zip(above, best, strict=True)])
    results: dict[str, Any] = {}
    for way, chosen in (("top1", best), ("region", best), ("gref", union)):
        metric = ReferringIoU(epsilon=EPSILON)
        for mask, target in zip(chosen, targets, strict=True):
            metric.update(mask, target)
        pairs = [
            (intersection_union(~mask, ~target), intersection_union(mask, target)) for mask, target in zip(chosen, targets, strict=True)
        ]
        both, either = np.moveaxis(np.array(pairs), 2, 0)
        figures = {"selected": chosen, "intersection": both, "union": either, "iou": np.where(either, both / (either + EPSILON), 1.0)}
        figures |= {"ciou": metric.compute().ciou, "giou": metric.compute().giou}
        results |= {f"{way}_{name}": value for name, value in figures.items()}
    return results


EPSILON = 1e-5  # added to a union by the published code


def psalm_gres(case: Case) -> Results:
    """gRefCOCO: the model says apart from its mask whether there is a target."""
    args, metric = case.args, ReferringIoU()
    for mask, target, nothing, none in zip(
        case.tensors["pred"], case.tensors["gt"], args["pred_no_target"], args["gt_no_target"], strict=True
    ):
        metric.update(mask, np.zeros_like(target) if none else target, answered=not nothing)
    result = metric.compute()
    precision = {f"Pr@{threshold}": 100 * value for threshold, value in result.precision.items()}
    return {
        "gIoU": 100 * result.giou,
        "cIoU": 100 * result.ciou,
        "T_acc": result.target_accuracy,
        "N_acc": result.no_target_accuracy,
        **precision,
    }


def psalm_jf(case: Case) -> Results:
    """One object through a video, every frame."""
    metric = VideoJF()
    for frame, (mask, target) in enumerate(zip(case.tensors["pred"], case.tensors["gt"], strict=True)):
        metric.update("video", 1, frame, mask, target)
    result, frames = metric.compute(), metric.per_frame("video", 1)
    figures = {
        f"{letter}_{figure}": getattr(which, figure) for letter, which in (("J", result.j), ("F", result.f)) for figure in STATISTICS
    }
    return {"J_per_frame": frames[:, 0], "F_per_frame": frames[:, 1], **figures}


STATISTICS = ("mean", "recall", "decay")


def psalm_pq(case: Case) -> Results:
    """Segments as panopticapi's annotations list them."""
    categories = case.args["categories"].values()
    things, stuff = (tuple(category["id"] for category in categories if bool(category["isthing"]) is wanted) for wanted in (True, False))
    metric = PanopticQuality(things, stuff)
    for image in case.args["images"]:
        (ours, predicted), (truth, labelled) = ((image[side]["map"], image[side]["annotation"]["segments_info"]) for side in ("pred", "gt"))
        crowds = {segment["id"] for segment in labelled if segment["iscrowd"]}
        metric.update(ours, _categories(predicted), truth, _categories(labelled), crowds)
    return _qualities(metric.compute(), things, stuff)


def _categories(segments: Sequence[Mapping[str, int]]) -> dict[int, str | int]:
    return {segment["id"]: segment["category_id"] for segment in segments}


def _qualities(result: PanopticResult, things: Sequence[int], stuff: Sequence[int]) -> dict[str, float]:
    figures: dict[str, float] = {}
    groups: list[tuple[str, Quality, Sequence[int]]] = [
        ("All", result.all, (*things, *stuff)),
        ("Things", result.things, things),
        ("Stuff", result.stuff, stuff),
    ]
    for title, quality, members in groups:
        rows = {title: quality, **{f"{title}_per_class.{category}": result.per_class[category] for category in members}}
        figures |= {f"{row}.{figure}": getattr(of, figure) for row, of in rows.items() for figure in ("pq", "sq", "rq")}
        figures[f"{title}.n"] = quality.classes
    return {name: 0.0 if math.isnan(value) else value for name, value in figures.items()}  # a class that is nowhere shows zeros


def psalm_ap(case: Case) -> Results:
    """COCO's files as they are."""
    truth, found = case.args["gt"], case.args["detections"]
    metric = MaskAP(tuple(category["id"] for category in truth["categories"]))
    for image in (image["id"] for image in truth["images"]):
        metric.update(
            image,
            [Found(one["segmentation"], one["category_id"], one["score"]) for one in found if one["image_id"] == image],
            [
                Labelled(one["segmentation"], one["category_id"], bool(one["iscrowd"]), one["area"])
                for one in truth["annotations"]
                if one["image_id"] == image
            ],
        )
    result = metric.compute()
    figures = {"AP": result.ap, "AP50": result.ap50, "AP75": result.ap75}
    figures |= {f"AR{limit}": value for limit, value in result.recall.items()}
    for title, by_area in (("AP", result.by_area), ("AR", result.recall_by_area)):
        figures |= {f"{title}{area[0]}": value for area, value in by_area.items()}
    return {name: -1.0 if math.isnan(value) else value for name, value in figures.items()}


RUNNERS = {
    "clipseg/metrics": clipseg,
    "clipseg/pascal_zeroshot": zero_shot_case,
    "catseg/metrics": catseg,
    "denseclip/metrics": denseclip,
    "groupvit/metric": groupvit,
    "psalm/metric_semantic": psalm_semantic,
    "psalm/metric_iou": psalm_iou,
    "psalm/metric_gres": psalm_gres,
    "psalm/metric_jf": psalm_jf,
    "psalm/metric_pq": psalm_pq,
    "psalm/metric_ap": psalm_ap,
}

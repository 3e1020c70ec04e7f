"""Fine-tuning on one's own photos, from labels to a checkpoint and a table of what it changed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..contracts import Recipe
from ..errors import ConfigError, DataError, nearest
from . import checkpoints
from .before_after import ClassRow, Measured, Report, compare_others, measure, sheet
from .loop import optimise
from .own_photos import Asked, Parts, asked_for, checked, divided

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

    from ..segmenter import Segmenter

__all__ = ["finetune"]

SETTINGS = "finetune.json"  # what a resumed run must not change
PICTURES = "before-after.png"

Preset = Literal["head", "lora", "full"]
Log = Callable[[str], None]
Steps = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the weights at the end depend on, beside the photos."""

    data: str
    model: str
    preset: str
    names: list[str]
    held_out: list[str]
    steps: int
    seed: int


def finetune(
    data: str | PathLike[str],
    *,
    model: str | PathLike[str] = "pocket",
    preset: Preset = "head",
    output: str | PathLike[str] = "runs/finetune",
    classes: Asked | Sequence[str] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    seed: int = 0,
    changed: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    report: Steps | None = None,
    log: Log = print,
) -> Report:
    """Fine-tune a model on labelled photos -> what changed; ``Report.folder`` is for `promptseg.load`.

    Args:
        data: a folder of images and masks, a COCO JSON, or a YOLO-seg folder; see `data.own.own`.
        model: a card's name, or a folder of an earlier fine-tuning.
        preset: what learns: "head" the decoder; "lora" low-rank adapters, merged at the end; "full" all, the image tower at a tenth of
            the rate.
        output: gets the checkpoint, report.md, report.json, before-after.png.
        classes: names of the data that are learned; a mapping says what each is asked by: {"trousers": ["pants", "jeans"]}.
        steps, minutes: how long; None: as the preset says. Minutes are turned into steps by measuring the first ones.
        resume: go on with what lies in ``output``, which says how long.
        changed: a last word on the preset's recipe: rates, sizes, batches.
        report: follows every step with its figures. log: tells of the rest.

    Raises:
        ConfigError: the model's family, the preset or a class does not exist here; the settings do not fit what is resumed.
        DataError: the labels are wrong, too few, or the output folder cannot be used.
        ImportError: a package of the extra ``train`` or ``lora`` is missing.
        TrainingStopped: a signal asked for it; go on with ``resume``.
        UnknownModel, WeightsNotFound, WeightsError: the model cannot be loaded.
    """
    folder, root = Path(output), Path(data)
    start = _recipe(fspath(model), preset)
    checkpoints.prepare(folder, resume)
    parts = divided(asked_for(checked(root, log), classes))
    recipe = changed(replace(start, data=str(root), output=str(folder), seed=seed))
    log(f"{len(parts.train)} photos to train on, {len(parts.held_out)} held out; {len(parts.names)} classes: {', '.join(parts.names)}")
    wanted = _length(recipe, parts, fspath(model), steps, minutes)
    settings = _settings(folder, resume, Settings(
        data=str(root), model=fspath(model), preset=preset, names=list(parts.names),
        held_out=[photo.id for photo in parts.held_out], steps=0, seed=seed,
    ), wanted)  # fmt: skip
    tuning = Tuning(replace(recipe, steps=settings.steps), parts, settings)
    before = tuning.answers(fspath(model))
    run = tuning.run()
    begun = time.monotonic()
    optimise(tuning.recipe, run, resume=resume, report=report, log=log)
    seconds = time.monotonic() - begun
    return tuning.report(before, run.unasked, seconds)

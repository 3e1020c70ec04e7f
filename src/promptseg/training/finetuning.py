"""Fine-tuning on one's own photos, from labels to a checkpoint and a table of what it changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..contracts import Card, Recipe
from ..devices import choose_device, choose_precision
from ..errors import ConfigError, DataError, nearest
from ..models import FAMILIES, family
from ..segmenter import load
from . import checkpoints
from .before_after import ClassRow, Measured, Report, compare_others, measure, sheet
from .estimate import measure as measure_step
from .files import with_words
from .loop import optimise
from .own_photos import Asked, Parts, asked_for, checked, divided

__all__ = ["finetune"]

SETTINGS = "finetune.json"  # what a resumed run must not change
PICTURES = "before-after.png"


Follow = Callable[[int, Mapping[str, float]], None]
Progress = Callable[[int], AbstractContextManager[Follow | None]]


def _silent(steps: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the weights at the end depend on, beside the photos themselves."""

    model: str
    preset: str
    names: list[str]
    held_out: list[str]
    changes: list[str]
    seed: int
    steps: int


def finetune(
    data: str | PathLike[str],
    *,
    model: str | PathLike[str] = "pocket",
    preset: str = "head",
    output: str | PathLike[str] = "runs/finetune",
    classes: Asked | Sequence[str] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    seed: int = 0,
    changes: Sequence[str] = (),
    progress: Progress = _silent,
    log: Callable[[str], None] = print,
) -> Report:
    """Fine-tune a model on labelled photos -> what that changed; ``Report.folder`` is for `promptseg.load`.

    Args:
        data: a folder of images and masks, a COCO JSON, a YOLO-seg folder or tar shards; see `data.own.own`.
        model: a card's name, or a folder that an earlier fine-tuning wrote.
        preset: what learns: "head" the decoder; "lora" low-rank adapters, merged at the end; "full" everything, the image tower at a
            tenth of the rate.
        output: gets the checkpoint, report.md, report.json and before-after.png.
        classes: which of the data's are learned; a mapping says by what words: {"trousers": ["pants", "jeans"]} joins two.
        steps, minutes: how long; without either, as the preset says. Minutes become steps by the pace of a measured one.
        resume: go on with what lies in ``output``.
        changes: settings of the preset's recipe, such as "lr=5e-4" or "options.size=320".
            Unsaid, the precision is bfloat16 where that is fast.
        progress: is told the number of steps and gives a context whose value follows every step with its figures. log: tells of the rest.

    Raises:
        ConfigError: model, preset, a class or a setting does not exist here, or is another than in the run that is resumed.
        DataError: the labels are wrong or too few, or the output folder cannot be used.
        ImportError: a package of the extra ``train`` or ``lora`` is missing.
        TrainingStopped: a signal asked for it; go on with ``resume``.
        UnknownModel, WeightsNotFound, WeightsError: the model cannot be loaded.
    """
    name, folder = fspath(model), Path(output)
    start = _preset(name, preset)
    checkpoints.prepare(folder, resume)
    parts = divided(asked_for(checked(Path(data), log), classes))
    log(f"{len(parts.train)} photos to train on, {len(parts.held_out)} held out; {len(parts.names)} classes: {', '.join(parts.names)}")
    fast = choose_precision("auto", choose_device()) == torch.bfloat16
    recipe = replace(start, data=fspath(data), output=str(folder), seed=seed, precision="bfloat16" if fast else "float32")
    recipe = with_words(recipe, changes)
    kept = _kept(folder) if resume else None
    length = kept.steps if kept else steps or _steps(name, recipe, parts, minutes)
    settings = Settings(
        model=name, preset=preset, names=list(parts.names), held_out=[photo.id for photo in parts.held_out], changes=list(changes),
        seed=seed, steps=length,
    )  # fmt: skip
    _keep(folder, settings, kept)
    run, begun = _run(name, recipe, parts), time.monotonic()
    with progress(length) as report:
        optimise(replace(recipe, steps=length), run, resume=resume, report=report, log=log)
    return _reported(folder, settings, parts, run.unasked, time.monotonic() - begun)


def _card(model: str) -> Card:
    """The card of a model, asked of the catalogue first, so that a refusal needs no weights."""
    return next((entry for entry in zoo.cards() if entry.name == model), None) or zoo.load(model)[1]


def _preset(model: str, preset: str) -> Recipe:
    card = _card(model)
    presets: Mapping[str, Recipe] | None = getattr(family(card.family), "PRESETS", None)
    if presets is None:
        able = ", ".join(name for name in FAMILIES if getattr(family(name), "PRESETS", None))
        why = getattr(family(card.family), "UNTUNED", f"its family, {card.family}, has no presets.")
        raise ConfigError(f"{model!r} cannot be fine-tuned on own photos: {why} Families that can be: {able}.")
    if preset not in presets:
        raise ConfigError(f"There is no preset {preset!r}.{nearest(preset, tuple(presets))} {model!r} has {', '.join(presets)}.")
    return replace(presets[preset], card=card.name)


def _run(model: str, recipe: Recipe, parts: Parts) -> Any:
    network, entry = zoo.load(model)
    run = family(entry.family).FineTune(recipe, network, parts.train, parts.names)
    run.held_out = parts.held_out
    return run


def _steps(model: str, recipe: Recipe, parts: Parts, minutes: float | None) -> int:
    if minutes is None:
        return recipe.steps
    pace = measure_step(recipe, _run(model, recipe, parts)).seconds  # a run of its own: the measured steps train it
    return max(1, round(minutes * 60 / pace))


# --- what a resumed run must not change -------------------------------------------------------------------------------------------------


def _kept(folder: Path) -> Settings | None:
    try:
        return Settings(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder / SETTINGS} cannot be read ({error}); begin again in another folder.") from None


def _keep(folder: Path, settings: Settings, kept: Settings | None) -> None:
    """Write the settings, or compare them with those of the run that goes on."""
    if kept is None:
        checkpoints.save_text(folder / SETTINGS, json.dumps(asdict(settings), indent=1, ensure_ascii=False) + "\n")
        return
    now, then = asdict(settings), asdict(kept)
    for key in (key for key in now if now[key] != then[key]):
        raise ConfigError(
            f"The run in {folder} was begun with another {key}: {then[key]}, now {now[key]}. Resume it with the same photos and settings, "
            "or begin again in another folder."
        )


# --- the report -------------------------------------------------------------------------------------------------------------------------


def _reported(folder: Path, settings: Settings, parts: Parts, others: Sequence[str], seconds: float) -> Report:
    before, after = load(settings.model), load(folder)
    first, last = (measure(segmenter, parts.held_out, parts.names) for segmenter in (before, after))
    report = Report(
        folder=folder, model=settings.model, preset=settings.preset, steps=settings.steps, seconds=seconds, trained=len(parts.train),
        held_out=len(parts.held_out), classes=_rows(parts, first, last), others=compare_others(before, after, parts.held_out, others),
    )  # fmt: skip
    report.save()
    with checkpoints.replacing(folder / PICTURES) as draft:
        sheet(before, after, parts.held_out, last.photos, parts.names).save(draft, "PNG")
    return report


def _rows(parts: Parts, first: Measured, last: Measured) -> tuple[ClassRow, ...]:
    counts = [[sum(name in photo.present for photo in photos) for photos in (parts.train, parts.held_out)] for name in parts.names]
    return tuple(
        ClassRow(name, trained, held_out, first.classes.get(name), last.classes.get(name))
        for name, (trained, held_out) in zip(parts.names, counts, strict=True)
    )

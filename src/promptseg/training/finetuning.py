"""Fine-tuning on one's own photos, from labels to a checkpoint and a table of what it changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import torch

from .. import zoo
from ..contracts import Card, Recipe
from ..data.own_names import Asked
from ..devices import choose_device, choose_precision
from ..errors import ConfigError, DataError, nearest
from ..models import FAMILIES, family
from ..segmenter import load
from . import checkpoints
from .before_after import ClassRow, Measured, Report, compare_others, measure, sheet
from .estimate import measure as measure_step
from .files import with_words
from .journal import LOG
from .loop import optimise
from .own_photos import Parts, asked_for, checked, checksum, divided

__all__ = ["finetune"]

ARGUMENTS = {"data": "DATA", "output": "--output", "card": "--model", "name": "--model", "steps": "--steps", "seed": "--seed"}
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
    minutes: float | None
    precision: Literal["float32", "bfloat16", "float16"]
    photos: int  # checksum


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
        preset: what learns: "head" the decoder, or one beside it for the names of the data; "lora" low-rank adapters, merged at the end;
            "full" everything, the image tower at a tenth of the rate.
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
    _check(name, folder, changes)
    if steps is not None and minutes is not None:
        raise ConfigError("Give --steps or --minutes, not both.")
    start = _preset(name, preset)
    checkpoints.prepare(folder, resume)
    kept = _kept(folder) if resume else None
    recipe = replace(start, data=fspath(data), output=str(folder), seed=seed, precision=kept.precision if kept else _precision())
    recipe = with_words(recipe, changes)
    parts = divided(asked_for(checked(Path(data), log), classes), Path(data))
    log(f"{len(parts.train)} photos to train on, {len(parts.held_out)} held out; {len(parts.names)} classes: {', '.join(parts.names)}")
    if steps is None:
        steps = kept.steps if kept else _steps(name, recipe, parts, minutes)
    settings = Settings(
        model=name, preset=preset, names=list(parts.names), held_out=[photo.id for photo in parts.held_out], changes=list(changes),
        seed=seed, steps=steps, minutes=kept.minutes if kept and minutes is None else minutes, precision=recipe.precision,
        photos=checksum([*parts.train, *parts.held_out]),
    )  # fmt: skip
    _keep(folder, settings, kept)
    run = _run(name, recipe, parts)
    with progress(steps) as report:
        optimise(replace(recipe, steps=steps), run, resume=resume, report=report, log=log)
    return _reported(folder, settings, parts, run.unasked)


def _check(model: str, folder: Path, changes: Sequence[str]) -> None:
    """Complain of what would not be followed, or be seen at the end only."""
    for key in (change.partition("=")[0] for change in changes):
        if key in ARGUMENTS:
            raise ConfigError(f"{key} is no setting of the preset: say it by {ARGUMENTS[key]}.")
    if folder.is_dir() and zoo.known(model) is None and Path(model).resolve() == folder.resolve():
        raise ConfigError(
            f"{folder} holds the model to begin with, which the new one is compared with. Choose another folder with --output."
        )


def _precision() -> Literal["float32", "bfloat16"]:
    return "bfloat16" if choose_precision("auto", choose_device()) == torch.bfloat16 else "float32"


def _card(model: str) -> Card:
    """The card of a model, asked of the catalogue first, so that a refusal needs no weights."""
    return zoo.known(model) or zoo.load(model)[1]


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
        what = "other photos, labels or classes" if key == "photos" else f"{then[key]!r}, not {now[key]!r}"
        raise ConfigError(
            f"{key}: the run in {folder} was begun with {what}. Resume it with the same photos and settings, or begin again in another "
            "folder."
        )


# --- the report -------------------------------------------------------------------------------------------------------------------------


def _reported(folder: Path, settings: Settings, parts: Parts, others: Sequence[str]) -> Report:
    steps = map(json.loads, (folder / LOG).read_text(encoding="utf-8").splitlines())  # of all parts of a run that was resumed
    seconds = sum(step.get("seconds", 0.0) for step in steps)
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

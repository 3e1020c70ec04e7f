"""What a model can be asked, as its card says: tasks and kinds of prompts. Known before any weights are there; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from . import zoo
from .contracts import Card, Options, PromptKind, Task
from .errors import ConfigError, UnsupportedPrompt, UnsupportedTask
from .models import FAMILIES, family
from .prompts import Blend, Box, Classes, Exemplar, MaskPrompt, Points, Prompt, Scribble, Text

__all__ = ["kind_of", "options_of", "require_kinds", "require_task"]

KINDS: dict[type, PromptKind] = {
    Text: "text",
    Exemplar: "exemplar",
    Blend: "blend",
    Points: "points",
    Box: "box",
    Scribble: "scribble",
    MaskPrompt: "mask",
    Classes: "classes",
}

OTHER_TASK: dict[Task, str] = {
    "refer": "For one mask per phrase: segmenter(image, prompts), `promptseg segment`.",
    "panoptic": "For one mask per phrase: segmenter(image, prompts), `promptseg segment`.",
    "instances": "For the connected parts of a mask: segmenter(image, prompt)[0].split().",
    "groups": "For named regions: segmenter.semantic(image, classes), `promptseg semantic`.",
    "track": "For each frame by itself: segmenter(frame, prompts), `promptseg segment`.",
}
OTHER_PROMPT: dict[PromptKind, str] = {
    "box": "For more of what is in a box: Exemplar(box=(x0, y0, x1, y1)).",
    "mask": "For more of what is in a mask: Exemplar(mask=mask).",
    "classes": "For the most probable class of every pixel: segmenter.semantic(image, classes).",
}


def require_task(card: Card, task: Task) -> None:
    """Nothing, if the model has the task.

    Raises:
        UnsupportedTask: the model has no such task; the message names those that have it, and what to do instead.
    """
    if task not in card.tasks:
        raise UnsupportedTask(card.name, task, [other.name for other in zoo.cards() if task in other.tasks], OTHER_TASK.get(task, ""))


def options_of(card: Card, **given: Any) -> Options:
    """How a photo is shown to the model and asked about, by its family's own kind of `Options`; what is None is as the card says.

    Raises:
        ConfigError: the family has no such option, or not all of these together, or an impossible value.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    known_family = family(card.family) if card.family in FAMILIES else None  # a network of one's own under a card of one's own
    offered: type[Options] | tuple[type[Options], ...] = getattr(known_family, "OPTIONS", Options)
    kinds = offered if isinstance(offered, tuple) else (offered,)
    known = {kind: {field.name for field in fields(kind)} for kind in kinds}
    every = sorted(set().union(*known.values()))
    for name in asked:
        known = {kind: names for kind, names in known.items() if name in names}
        if not known:
            raise ConfigError(f"{card.name!r} has no option {name!r}, it has {', '.join(every)}. Leave it out, or choose another model.")
    return next(iter(known))(**asked)


def kind_of(prompt: Prompt) -> PromptKind:
    """What cards call it."""
    return KINDS[type(prompt)]


def require_kinds(card: Card, kinds: Iterable[PromptKind], hint: str = "") -> None:
    """Nothing, if the model takes prompts of all these kinds; ``hint`` replaces what the message says to do instead.

    Raises:
        UnsupportedPrompt: the model takes no prompts of one of these kinds; the message names those that do.
    """
    for kind in dict.fromkeys(kinds):
        if kind not in card.prompts:
            others = [other.name for other in zoo.cards() if kind in other.prompts]
            raise UnsupportedPrompt(card.name, kind, others, hint or OTHER_PROMPT.get(kind, ""))

"""What a user can say, show or click: the prompt types.

All are immutable values and none touches a file: an exemplar's photo is decoded by the `Segmenter` when it is used. Coordinates are pixels
of the upright photo, ``(x, y)``; boxes are half-open, so ``Box(0, 0, width, height)`` is the whole photo.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .errors import PromptError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | torch.Tensor
    MaskInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | torch.Tensor

__all__ = ["Blend", "Box", "Classes", "Exemplar", "MaskPrompt", "Points", "Prompt", "Scribble", "Text", "as_prompts", "describe", "plain"]


@dataclass(frozen=True, slots=True)
class Text:
    """A phrase: ``Text("a dog")``; a plain string means the same.

    ``templates`` ensembles wordings: each holds one ``{}`` for the phrase and the condition is the mean of their embeddings. Without
    templates the phrase is encoded verbatim (CLIPSeg code; section 3 of the paper uses templates in training only).

    Raises:
        PromptError: the phrase is empty, not a string, no valid Unicode or holds a zero character, or a template does not hold exactly
            one ``{}``.
    """

    text: str
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise PromptError(f"A text prompt is a string, not {type(self.text).__name__}; for a picture use Exemplar(image, mask).")
        if not self.text.strip():
            raise PromptError("The text prompt is empty; say what to look for, such as 'a dog'.")
        if any("\ud800" <= character <= "\udfff" for character in self.text):
            raise PromptError(f"{self.text!r} holds bytes that are no text (lone surrogates); give the phrase in UTF-8.")
        if "\0" in self.text:
            raise PromptError(f"{self.text!r} holds a zero character, which a saved .npz would lose; leave it out.")
        object.__setattr__(self, "templates", tuple(self.templates))
        for template in self.templates:
            if template.count("{}") != 1:
                raise PromptError(f"The template {template!r} must hold exactly one '{{}}', the place of the phrase.")


@dataclass(frozen=True, slots=True, eq=False)
class Exemplar:
    """An example: a photo and where in it the thing is.

    ``image`` is anything that `Segmenter` takes as a photo; None is the photo that is being segmented ("more of what is in this box").
    ``mask`` (H, W), non-zero on the thing, or ``box`` (x0, y0, x1, y1); with neither the whole photo is the example.
    ``technique`` names how the example is shown to the model (CLIPSeg paper, section 3.3 and table 7); None is the model's standard one.

    Raises:
        PromptError: both mask and box are given, a box is empty, or neither photo nor region is given.
    """

    image: ImageInput | None = None
    mask: MaskInput | None = None
    box: tuple[float, float, float, float] | None = None
    technique: str | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.box is not None:
            raise PromptError("An exemplar takes a mask or a box, not both.")
        if self.image is None and self.mask is None and self.box is None:
            raise PromptError("An exemplar needs a photo, or a box or mask in the photo that is being segmented.")
        if self.box is not None:
            _check_box(self.box)


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Text and example together: condition = alpha * text + (1 - alpha) * exemplar (CLIPSeg paper, equation 1).

    Raises:
        PromptError: alpha lies outside 0..1.
    """

    text: Text | str
    exemplar: Exemplar
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.text, str):
            object.__setattr__(self, "text", Text(self.text))
        if not isinstance(self.text, Text) or not isinstance(self.exemplar, Exemplar):
            raise PromptError("Blend takes a text and an Exemplar, in this order: Blend('a dog', Exemplar(image, mask), 0.5).")
        if not 0 <= self.alpha <= 1:
            raise PromptError(f"alpha is the weight of the text and lies in 0..1, not {self.alpha}; 1 is the text alone, 0 the example.")


@dataclass(frozen=True, slots=True)
class Points:
    """Clicks: ``xy`` (K, 2) pixels; ``labels`` (K,) 1 = on the thing, 0 = not on it (default: all 1)."""

    xy: tuple[tuple[float, float], ...]
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        points = _check_points(self.xy, "Points")
        labels = (1,) * len(points) if self.labels is None else tuple(int(label) for label in self.labels)
        if len(labels) != len(points) or any(label not in (0, 1) for label in labels):
            raise PromptError(f"Points takes one label, 0 or 1, per point: {len(points)} points, labels {labels}.")
        object.__setattr__(self, "xy", points)
        object.__setattr__(self, "labels", labels)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around the thing, half-open: columns x0 <= x < x1, rows y0 <= y < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        _check_box((self.x0, self.y0, self.x1, self.y1))


@dataclass(frozen=True, slots=True)
class Scribble:
    """A drawn line through the thing: ``xy`` (K, 2) pixels."""

    xy: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "xy", _check_points(self.xy, "Scribble"))


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrompt:
    """A region of the photo itself: (H, W), non-zero on the thing."""

    mask: MaskInput


@dataclass(frozen=True, slots=True)
class Classes:
    """A closed list of names that compete for every pixel; a name may be a tuple of synonyms."""

    names: tuple[str | tuple[str, ...], ...]

    def __post_init__(self) -> None:
        given: object = self.names  # a string is a sequence of strings, and a likely mistake
        if isinstance(given, str):
            raise PromptError(f"Classes takes a list of names, not the single string {given!r}.")
        if not isinstance(given, Iterable):
            raise PromptError(f"Classes are a list of names, not {given!r}.")
        listed = tuple(given)
        if wrong := [name for name in listed if not isinstance(name, Iterable)]:
            raise PromptError(f"A class is a name or a list of synonyms, not {wrong[0]!r}.")
        names = tuple(name if isinstance(name, str) else tuple(name) for name in listed)
        for name in names:
            for word in (name,) if isinstance(name, str) else name:
                Text(word)
            if not name:
                raise PromptError("A class needs at least one name.")
        object.__setattr__(self, "names", names)


Prompt: TypeAlias = Text | Exemplar | Blend | Points | Box | Scribble | MaskPrompt | Classes
PROMPT_TYPES = (Text, Exemplar, Blend, Points, Box, Scribble, MaskPrompt, Classes)


def as_prompts(prompts: str | Prompt | Sequence[str | Prompt]) -> tuple[Prompt, ...]:
    """One prompt or many, strings or objects -> prompt objects in the same order; an empty list stays empty.

    Raises:
        PromptError: something is neither a string nor a prompt; the message gives its position.
    """
    if isinstance(prompts, str):
        return (Text(prompts),)
    if isinstance(prompts, PROMPT_TYPES):
        return (prompts,)
    given: object = prompts
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)):
        raise PromptError(f"Prompts are strings, prompt objects or a list of them, not {type(prompts).__name__}.")
    result: list[Prompt] = []
    for position, prompt in enumerate(given):
        if isinstance(prompt, str):
            result.append(Text(prompt))
        elif isinstance(prompt, PROMPT_TYPES):
            result.append(prompt)
        else:
            raise PromptError(f"Prompt {position} is a {type(prompt).__name__}; prompts are strings or prompt objects.")
    return tuple(result)


def plain(name: str) -> str:
    """A class's name as names are compared: CLIP reads neither capitals nor more than one blank, and none at the ends."""
    return " ".join(name.lower().split())


def describe(prompt: Prompt) -> str:
    """A short human name of a prompt, for legends, file names and tables: the phrase itself, else what kind of prompt it is."""
    if isinstance(prompt, Text):
        return prompt.text
    if isinstance(prompt, Blend):
        return f"{describe(prompt.text)} + exemplar"  # type: ignore[arg-type]  # __post_init__ made it a Text
    if isinstance(prompt, Exemplar):
        name = os.path.basename(os.fspath(prompt.image)) if isinstance(prompt.image, (str, os.PathLike)) else ""
        return f"exemplar {name}".strip()
    if isinstance(prompt, Classes):
        return ", ".join(name if isinstance(name, str) else name[0] for name in prompt.names)
    return type(prompt).__name__.removesuffix("Prompt").lower()


def _check_points(xy: Sequence[Sequence[float]], what: str) -> tuple[tuple[float, float], ...]:
    try:
        points = tuple((float(x), float(y)) for x, y in xy)
    except (TypeError, ValueError):
        raise PromptError(f"{what} takes a list of (x, y) pairs in pixels, not {xy!r}.") from None
    if not points:
        raise PromptError(f"{what} needs at least one (x, y) pair.")
    if not all(math.isfinite(value) for point in points for value in point):
        raise PromptError(f"{what} holds a coordinate that is not a finite number.")
    return points


def _check_box(box: Sequence[float]) -> None:
    try:
        x0, y0, x1, y1 = (float(value) for value in box)
    except (TypeError, ValueError):
        raise PromptError(f"A box is (x0, y0, x1, y1) in pixels, not {box!r}; give four numbers, such as (10, 20, 200, 150).") from None
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
        raise PromptError(
            f"The box (x0={x0:g}, y0={y0:g}, x1={x1:g}, y1={y1:g}) is empty; give its left top corner first, "
            "then the right bottom one: x1 > x0 and y1 > y0."
        )

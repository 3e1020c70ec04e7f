"""The wordings in which CLIPSeg says a phrase while it is trained. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator

TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = {
    "plain": ("{}",),
    "fixed": ("a photo of a {}.",),
    "shuffle": ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}."),
    "shuffle+": (
        "a photo of a {}.",
        "a photograph of a {}.",
        "an image of a {}.",
        "{}.",
        "a cropped photo of a {}.",
        "a good photo of a {}.",
        "a photo of one {}.",
        "a bad photo of a {}.",
        "a photo of the {}.",
    ),
}


def sample_wordings(phrases: Sequence[str], templates: Sequence[str], generator: Generator | None = None) -> tuple[list[str], list[int]]:
    """Each phrase in a template drawn with replacement, and the templates' indices.

    ``generator``: where the draws come from; None is torch's global generator, as published.
    """
    import torch

    if not phrases:
        return [], []
    indices = torch.multinomial(torch.ones(len(templates)), len(phrases), replacement=True, generator=generator).tolist()
    return [templates[index].format(phrase) for index, phrase in zip(indices, phrases, strict=True)], indices

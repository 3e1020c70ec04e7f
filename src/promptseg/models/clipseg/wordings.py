"""The wordings in which CLIPSeg says a phrase while it is trained. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...data import vocabularies

if TYPE_CHECKING:
    from torch import Generator

TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = {name: vocabularies.templates(name) for name in ("plain", "fixed", "shuffle", "shuffle+")}


def sample_wordings(phrases: Sequence[str], templates: Sequence[str], generator: Generator | None = None) -> tuple[list[str], list[int]]:
    """Each phrase in a template drawn with replacement, and the templates' indices.

    ``generator``: where the draws come from; None is torch's global generator, as published.
    """
    import torch

    if not phrases:
        return [], []
    indices = torch.multinomial(torch.ones(len(templates)), len(phrases), replacement=True, generator=generator).tolist()
    return [templates[index].format(phrase) for index, phrase in zip(indices, phrases, strict=True)], indices

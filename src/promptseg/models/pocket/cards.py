"""The catalogue entry of the embedded model; its long form is the model card beside the weights."""

from __future__ import annotations

from ...contracts import Card
from .config import PocketConfig

_CONFIG = PocketConfig()
_THRESHOLD = 0.55

CARDS: tuple[Card, ...] = (
    Card(
        name="pocket",
        family="pocket",
        config=_CONFIG,
        summary="Small model that ships with the package: words and examples to masks, offline",
        source="trained by this project: promptseg train pocket; see docs/pocket.md",
        code_license="Apache-2.0",
        weights_license="Apache-2.0; trained partly on photographs with research-only terms, see the model card",
        tasks=("masks", "semantic"),
        prompts=("text", "exemplar", "blend"),
        parameters=14_910_307,
        preprocess=_CONFIG.preprocess,
        threshold=_THRESHOLD,
        presence_threshold=0.5,
        background=_THRESHOLD,  # classes that are improbable everywhere label nothing: a pixel is nothing where no mask has it
        embedded=True,
    ),
)

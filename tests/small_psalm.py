"""A tiny PSALM with random weights and a tokenizer of single bytes, for every test that needs one."""

from __future__ import annotations

from dataclasses import replace

import torch

from promptseg import zoo
from promptseg.contracts import Card
from promptseg.models.psalm import Model, PsalmConfig
from promptseg.models.psalm.config import PREPROCESS, LanguageConfig, MaskConfig, SwinConfig
from promptseg.models.psalm.tokens import Tokenizer

CONFIG = PsalmConfig(
    vision=SwinConfig(width=8, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4), window=4),
    language=LanguageConfig(vocabulary=320, width=32, hidden=64, layers=2, heads=4),
    masks=MaskConfig(width=32, queries=6, encoder_layers=1, encoder_hidden=32, layers=3, heads=4, hidden=32, groups=8),
    projector=16,
    region_points=16,
    preprocess=replace(PREPROCESS, size=64),
)


def model(seed: int = 0) -> Model:
    """Weights large enough that answers differ, in evaluation mode, with its tokenizer."""
    torch.manual_seed(seed)
    found = Model(CONFIG)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    found.words = Tokenizer()
    return found.eval()


def card() -> Card:
    """The published card, its network shrunk."""
    return replace(zoo.card("psalm"), config=CONFIG, preprocess=CONFIG.preprocess)

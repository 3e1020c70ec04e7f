"""`pocket` at toy size, with stand-ins for the pretrained tower and the distilled words, whose packages are an extra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from promptseg.models.pocket import run as pocket_run
from promptseg.models.pocket.config import PocketConfig
from promptseg.models.pocket.text import StaticText, with_pieces
from promptseg.nn.efficientnet import EfficientNetLite

WORDS = [
    "a",
    "the",
    "one",
    "my",
    "photo",
    "of",
    "picture",
    "person",
    "dog",
    "cat",
    "grass",
    "sky",
    "horse",
    "face",
    "body",
    "road",
    "car",
    "pedestrian",
    "hat",
    "shoes",
    "tench",
    "goldfish",
    "shark",
    "##s",
]
PIECES = sorted({*WORDS, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")})
CONFIG = PocketConfig(variant="lite0", width=32, heads=4, blocks=1, classes=3, text_width=16, pieces=len(PIECES),
                      piece_bytes=len("\n".join(PIECES)), preprocess=replace(PocketConfig().preprocess, size=64))  # fmt: skip


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training begin from random parts."""

    def tower(variant: str) -> tuple[EfficientNetLite, torch.Tensor, torch.Tensor]:
        torch.manual_seed(1)
        return EfficientNetLite(variant).eval(), torch.randn(3, 1280), torch.zeros(3)

    def distil(names: list[str], captions: list[str], *, width: int, seed: int, log: Any) -> StaticText:
        assert "a dog on the grass ." in {caption.lower() for caption in captions}
        text = with_pieces(PIECES, width)
        text.store(torch.randn(len(PIECES), width, generator=torch.Generator().manual_seed(seed)))
        return text

    monkeypatch.setattr(pocket_run, "efficientnet", tower)
    monkeypatch.setattr(pocket_run, "distill", distil)

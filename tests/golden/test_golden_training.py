"""The least that could go wrong in training, and the smallest case that sees it."""

from __future__ import annotations

from pathlib import Path

import check
import pytest
import runners_clipseg_training
from cases import Case
from torch import Tensor

from promptseg.models.clipseg.losses import mask_loss

HERE = Path(__file__).parent


def test_a_flipped_sign_in_the_loss_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def flipped(logits: Tensor, targets: Tensor) -> Tensor:
        return mask_loss(-logits, targets)

    case = Case(HERE / "clipseg" / "component_loss.json")
    assert all(found.passed for found in check.run(case))
    monkeypatch.setattr(runners_clipseg_training, "mask_loss", flipped)
    assert not any(found.passed for found in check.run(Case(case.path)))

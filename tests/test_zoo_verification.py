"""`verify`: published values against the weights at hand, here with stand-ins for both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import small_clipseg
from promptseg import models, zoo
from promptseg.contracts import Reference
from promptseg.errors import ConfigError, DataError
from promptseg.models.clipseg import verification
from promptseg.prompts import Text

NAME = "clipseg-rd64"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(autouse=True)
def _weights_are_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(models.family("clipseg"), "CARDS", small_clipseg.cards())
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    zoo.save_folder(small_clipseg.model(), zoo.own_folder(NAME), NAME)


def stand_in(photo: Path, mean: float, std: float) -> Reference:
    """What the small model computes on the photo, worked out here step by step."""
    model, prompts = small_clipseg.model(), ("a cat", "a remote")
    small = np.asarray(Image.open(photo).resize((352, 352), Image.Resampling.BILINEAR), dtype=np.float32)
    pixels = ((torch.from_numpy(small) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        features = model.encode_prompts([Text(prompt) for prompt in prompts])
        values: dict[str, Any] = {
            "condition": tuple(features.condition[0, :3].tolist()),
            "image embedding": tuple(model.embed_images(pixels)[0, :3].tolist()),
            "logits": tuple(map(tuple, model.decode(model.encode_image(pixels), features).logits[0, 0, :3, :3].tolist())),
        }
    return Reference(source="stand-in", photo_url="http://localhost/none.png", tolerance=1e-3, inputs={"prompts": prompts}, values=values)


def test_the_published_weights_pass(monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    monkeypatch.setattr(verification, "REFERENCES", {NAME: (stand_in(photo, 0.5, 0.5),)})
    result = zoo.verify(NAME, photo)
    assert result.passed
    assert [check.what for check in result.checks] == ["condition", "image embedding", "logits"]
    assert all(check.difference < 1e-5 for check in result.checks)
    assert zoo.verify(zoo.own_folder(NAME), photo).passed


@pytest.mark.parametrize("part", ["condition", "image embedding", "logits"])
def test_other_weights_fail_and_the_difference_is_told(monkeypatch: pytest.MonkeyPatch, photo: Path, part: str) -> None:
    reference = stand_in(photo, 0.5, 0.5)
    shifted = tuple(np.add(reference.values[part], 0.01).tolist())
    monkeypatch.setattr(verification, "REFERENCES", {NAME: (replace(reference, values={**reference.values, part: shifted}),)})
    result = zoo.verify(NAME, photo)
    assert not result.passed
    assert {check.what: check.passed for check in result.checks} == {what: what != part for what in reference.values}
    assert next(check.difference for check in result.checks if check.what == part) == pytest.approx(0.01, rel=0.01)


def test_every_published_model_has_finite_values_of_the_right_shape() -> None:
    assert verification.REFERENCES.keys() == {card.name for card in zoo.cards() if card.family == "clipseg" and card.published}
    for references in verification.REFERENCES.values():
        for reference in references:
            assert {what: np.shape(value) for what, value in reference.values.items()} == {
                "condition": (3,),
                "image embedding": (3,),
                "logits": (3, 3),
            }


def test_models_without_published_values_name_those_that_have_some(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "REFERENCES", {NAME: (), "clipseg-rd16": (stand_in(photo, 0.5, 0.5),)})
    with pytest.raises(ConfigError, match="have some: clipseg-rd16"):
        zoo.verify(NAME, photo)
    assert [zoo.can_verify(name) for name in (NAME, "clipseg-rd16", "pocket")] == [False, True, False]


def test_without_a_network_the_photo_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"000000039769\.jpg.*--photo"):
        zoo.verify(NAME)


def test_a_downloaded_photo_is_kept(monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    reference = replace(stand_in(photo, 0.5, 0.5), photo_url=photo.as_uri())
    monkeypatch.setattr(verification, "REFERENCES", {NAME: (reference,)})
    assert zoo.verify(NAME).passed
    photo.unlink()
    assert zoo.verify(NAME).passed

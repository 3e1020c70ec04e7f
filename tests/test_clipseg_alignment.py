"""The analysis of visual prompts on a network small enough to follow."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import small_clipseg
import small_photosets
from promptseg import zoo
from promptseg.errors import DataError
from promptseg.models.clipseg.alignment import VARIANTS, Sample, clip_alignment
from promptseg.models.clipseg.visual import normalise
from promptseg.nn.clip import Clip
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.tokenizers import clip as clip_tokenizer


@pytest.fixture(scope="module")
def model() -> Clip:
    torch.manual_seed(0)
    image = ClipVisionConfig(width=32, layers=2, heads=2, patch=32, grid=7, embed=16)
    return Clip(image, ClipTextConfig(width=32, layers=1, heads=2, embed=16)).eval()


def samples(count: int = 2) -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        photo = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        masks = {name: np.zeros((60, 80), bool) for name in ("dog", "cat", "car")}
        masks["dog"][10:40, 10:50] = masks["cat"][30:60, 40:80] = masks["car"][:3, :3] = True
        yield photo, masks


def test_the_photo_itself_is_the_yardstick(model: Clip) -> None:
    rows = clip_alignment(model, samples())
    assert [row.variant for row in rows] == ["original", *VARIANTS]
    original = rows[0]
    assert (original.gain, original.published) == (0, None)
    for row in rows[1:]:
        assert row.gain == pytest.approx(100 * (row.probability - original.probability))
        assert -1 <= row.cosine <= 1
        assert row.published == VARIANTS[row.variant][1]
    assert len({round(row.cosine, 7) for row in rows}) > 8


def test_figures_are_those_of_the_definition(model: Clip) -> None:
    """One marked thing, by hand: the car is too small to be marked, yet a name among the three."""
    (photo, masks), *_ = samples(1)
    masks = {"dog": masks["dog"], "bird": masks["car"], "car": masks["car"]}
    row = clip_alignment(model, [(photo, masks)], {}, min_area=0.05)[0]
    pixels = normalise(torch.tensor(photo).permute(2, 0, 1).float() / 255)[None]
    shown = F.interpolate(F.interpolate(pixels, (352, 352), mode="bilinear"), (224, 224), mode="bilinear")
    with torch.no_grad():
        image = F.normalize(model.image(shown).embedding, dim=-1)
        text = F.normalize(model.text(clip_tokenizer()(["a photo of a dog", "a photo of a bird", "a photo of a car"])), dim=-1)
        logits = (image @ text.T)[0]
    assert row.cosine == pytest.approx(float(logits[0]), abs=1e-5)
    assert row.probability == pytest.approx(float((model.logit_scale.detach().exp() * logits).softmax(0)[0]), abs=1e-5)


def test_photos_with_too_few_things_are_left_out(model: Clip) -> None:
    (photo, masks), *_ = samples(1)
    with pytest.raises(DataError, match="3 named things"):
        clip_alignment(model, [(photo, {"dog": masks["dog"], "cat": masks["cat"]})])
    with pytest.raises(DataError, match="covers 99"):
        clip_alignment(model, samples(), min_area=0.99)


def test_the_example_prints_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a photograph of the replica that was given two things more."""
    root = small_photosets.write(tmp_path / "sets") / "coco"
    table = json.loads((root / "instances.json").read_text())
    for image in table["images"][:1]:
        (shown,) = (entry for entry in table["annotations"] if entry["image_id"] == image["id"])
        for category in {1, 2, 3} - {shown["category_id"]}:
            area = [[0, 0, 32, 0, 32, 48, 0, 48], [32, 0, 64, 0, 64, 48, 32, 48]][category % 2]
            table["annotations"].append({**shown, "id": len(table["annotations"]), "category_id": category, "segmentation": [area]})
    (root / "instances.json").write_text(json.dumps(table))
    folder = zoo.save_folder(small_clipseg.model(), tmp_path / "model", "clipseg-rd64")
    monkeypatch.setattr(sys, "argv", ["clip_alignment.py", "--data", str(root), "--model", str(folder), "--photos", "1"])
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "clip_alignment.py"), run_name="__main__")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["variant", "cosine", "P(object)", "gain", "paper"]
    assert [line[:32].strip() for line in lines] == ["original", *VARIANTS]
    figures = [[float(word) for word in line[32:].split()] for line in lines]
    assert all(-1 <= cosine <= 1 and 0 <= probability <= 1 for cosine, probability, *_ in figures)
    assert [row[3] for row in figures[1:]] == pytest.approx([gain for _, gain in VARIANTS.values()], abs=0.01)
    assert len({gain for _, _, gain, *_ in figures}) > 5

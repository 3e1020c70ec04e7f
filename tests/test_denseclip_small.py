"""DenseCLIP on the small tower, and on one's own label maps: what small machines train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptseg import training, zoo
from promptseg.contracts import Recipe
from promptseg.data.photosets import is_validation
from promptseg.data.samples import IGNORE
from promptseg.errors import ConfigError, DataError
from promptseg.models.denseclip import Run
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import LiteBackbone
from promptseg.models.denseclip.imagenet import LiteEncoder
from promptseg.models.denseclip.run import labelled
from promptseg.nn.efficientnet import EfficientNetLite
from promptseg.segmenter import Segmenter
from small_denseclip import RESNET

SMALL = replace(RESNET, classes=("sky", "cat"), backbone=LiteBackbone(variant="lite0", embed=16))
NAMES = [f"photo-{number}" for number in range(12)]


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Twelve photos, the upper half sky (2 of classes.txt), below a cat (1), at the right a road (3), the last column unlabelled."""
    root = tmp_path / "maps"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("cat\nsky\nroad\n")
    labels = np.zeros((48, 64), np.uint8)
    labels[:24], labels[24:], labels[:, 50:], labels[:, 63] = 2, 1, 3, 0
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 60, (48, 64, 3), np.uint8)
        pixels[labels == 2] += np.array([0, 60, 180], np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")
    return root


def _recipe(root: Path, output: Path, **options: Any) -> Recipe:
    base = training.recipe("denseclip/msrc")
    schedule = replace(base.schedule, steps=1)
    changed = replace(base.options, config=SMALL, imagenet=None, **options)
    return replace(base, data=str(root), output=str(output), steps=3, batch_size=2, validate_every=3, schedule=schedule, options=changed)


def test_the_two_runs_differ_in_language_alone() -> None:
    guided, plain = training.recipe("denseclip/msrc"), training.recipe("denseclip/msrc-baseline")
    assert replace(plain, name=guided.name, output=guided.output, options=guided.options) == guided
    assert baseline(guided.options.config) == plain.options.config
    assert len(guided.options.config.classes) == 22


def test_the_tower_keeps_its_statistics_and_takes_any_photo() -> None:
    encoder = LiteEncoder(LiteBackbone(variant="lite0", embed=16)).train()
    before = encoder.body.stem.norm.running_mean.clone()
    assert encoder.project is not None
    assert encoder.project.training
    for size in ((64, 96), (65, 97), (33, 40)):
        seen = encoder(torch.rand(2, 3, *size))
        assert [one.shape[1] for one in seen.maps] == list(LiteBackbone(variant="lite0").channels)
        assert seen.local is not None
        assert seen.local.shape[-2:] == seen.maps[-1].shape[-2:]
        assert seen.embedding.shape == (2, 16)
    assert torch.equal(encoder.body.stem.norm.running_mean, before)
    sum(one.mean() for one in seen.maps).backward()
    assert encoder.body.stages[0][0].project.conv.weight.grad.abs().sum() > 0


def test_own_maps_count_the_networks_classes_and_are_split_by_name(maps: Path) -> None:
    options = _recipe(maps, maps).options
    parts = {split: labelled(maps, options, split) for split in ("training", "validation")}
    assert sorted(photo.id for part in parts.values() for photo in part) == sorted(NAMES)
    assert [photo.id for photo in parts["validation"]] == [name for name in sorted(NAMES) if is_validation(name)]
    labels = parts["training"][0].labels()
    assert labels.shape == (48, 64)
    assert [int(labels[y, x]) for y, x in ((0, 0), (40, 0), (0, 55), (0, 63))] == [0, 1, IGNORE, IGNORE]


def test_it_trains_and_answers(maps: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    folder = training.train(_recipe(maps, tmp_path / "out"), report=lambda _, figures: losses.append(figures["head"]), log=lambda _: None)
    assert np.isfinite(losses).all()
    model, card = zoo.load(folder)
    found = Segmenter(model, card, device="cpu", precision="float32").semantic(maps / "images" / f"{NAMES[0]}.jpg")
    assert found.classes == ("sky", "cat")
    assert found.labels.shape == (48, 64)


def test_it_starts_from_the_package(maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = EfficientNetLite("lite0")
    monkeypatch.setattr("promptseg.models.denseclip.start.efficientnet", lambda variant: (tower, None, None))
    recipe = _recipe(maps, tmp_path)
    run = Run(replace(recipe, options=replace(recipe.options, imagenet="package")), lambda _: None)
    assert run.model.image.body is tower
    assert not tower.training


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"dataset": "camvid"}, ConfigError, "dataset is"),
        ({"config": replace(SMALL, classes=("sky", "horse"))}, DataError, "knows no horse"),
        ({"config": RESNET, "imagenet": "package"}, DataError, "knows no traffic light"),
        ({"config": replace(RESNET, classes=("sky",)), "imagenet": "package"}, ConfigError, "does not fit the backbone"),
        ({"dataset": "ade20k"}, DataError, "no photos"),
    ],
)
def test_what_does_not_fit_is_said(maps: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str) -> None:
    recipe = _recipe(maps, tmp_path)
    with pytest.raises(error, match=says):
        Run(replace(recipe, options=replace(recipe.options, **options)), lambda _: None)


def test_other_forms_and_too_few_photos_are_refused(maps: Path, tmp_path: Path) -> None:
    masks = tmp_path / "folders"
    for part in ("images", "masks/cat"):
        (masks / part).mkdir(parents=True)
    with pytest.raises(DataError, match="holds no label maps"):
        Run(_recipe(masks, tmp_path), lambda _: None)
    for name in NAMES:
        if is_validation(name):
            (maps / "images" / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match="none is for validation"):
        Run(_recipe(maps, tmp_path), lambda _: None)
    with pytest.raises(ConfigError, match="lite0, lite2"):
        LiteBackbone(variant="b7")  # type: ignore[arg-type]

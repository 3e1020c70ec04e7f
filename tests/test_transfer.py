"""The GroupViT paper's comparison: a plain transformer fine-tuned with masks, from published files, in miniature."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import promptseg
from promptseg import evaluation, training, zoo
from promptseg.contracts import Recipe
from promptseg.errors import ConfigError, ImageError, WeightsError
from promptseg.models.denseclip import DenseClipConfig, Model, Run
from promptseg.models.denseclip.config import PlainVitBackbone, SemanticHead
from promptseg.models.denseclip.plain_vit import PlainVitEncoder, start_from_vit
from promptseg.nn.conversion import to_official
from promptseg.nn.vit_keys import timm_vit
from promptseg.zoo.configs import from_plain, to_plain
from test_evaluation_label_maps import miniature

SMALL = PlainVitBackbone(width=32, layers=2, heads=2, grid=4)
KINDS = {"voc": ("VOC2012", "Segmentation"), "context": ("VOC2010", "SegmentationContext")}


def small(kind: str, root: Path, output: Path, **options: Any) -> Recipe:
    """The recipe with a tiny network, on the miniature of its data, whose split val is also the one to learn from."""
    year, lists = KINDS[kind]
    place = miniature(f"{kind}-maps", root) / "VOCdevkit" / year
    shutil.copy(place / "ImageSets" / lists / "val.txt", place / "ImageSets" / lists / "train.txt")
    made = training.recipe(f"groupvit/transfer-{kind}")
    head = SemanticHead(crop=64, stride=32, limits=(256, 64))
    config = replace(made.options.config, backbone=SMALL, head=head, preprocess=replace(made.options.config.preprocess, size=64))
    options = {"config": config, "imagenet": None, "validation": 2, **options}
    return replace(
        made, data=str(place), output=str(output), steps=40, batch_size=4, lr=3e-3, workers=0, validate_every=20,
        schedule=replace(made.schedule, steps=1), options=replace(made.options, **options),
    )  # fmt: skip


def hf_file() -> tuple[Any, dict[str, Tensor]]:
    """transformers' network of the small size, and its file."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "image_size": 64}
    theirs = ViTModel(ViTConfig(**sizes, layer_norm_eps=1e-6), add_pooling_layer=True).eval()
    with torch.no_grad():
        for part in theirs.parameters():
            part.normal_(0, 0.1)
    return theirs, dict(theirs.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (80, 112)])
def test_parity_with_transformers(size: tuple[int, int], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    theirs, _ = hf_file()
    theirs.save_pretrained(tmp_path)
    ours = PlainVitEncoder(SMALL)
    start_from_vit(ours, load_file(tmp_path / "model.safetensors"))
    pixels = torch.randn(2, 3, *size)
    expected = theirs(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    (found,) = ours(pixels).maps
    assert found.shape == (2, 32, size[0] // 16, size[1] // 16)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


def test_the_authors_files_start_it_too(tmp_path: Path) -> None:
    """DINO's is bare, DeiT's has a classifier, MoCo's two networks and their heads."""
    source = PlainVitEncoder(SMALL)
    bare = to_official(timm_vit(), source.state_dict())
    deit = {**bare, "head.weight": torch.zeros(10, 32), "head.bias": torch.zeros(10)}
    moco = {f"base_encoder.{name}": tensor for name, tensor in deit.items()} | {"predictor.0.weight": torch.zeros(3, 3)}
    moco |= {f"momentum_encoder.{name}": tensor + 1 for name, tensor in deit.items()}
    for theirs in (bare, deit, moco):
        torch.save({"state_dict": theirs}, tmp_path / "vit.pth")
        ours = PlainVitEncoder(SMALL)
        start_from_vit(ours, zoo.read_weights(tmp_path / "vit.pth"))
        assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in source.state_dict().items())
    with pytest.raises(WeightsError, match=r"missing: norm\.weight"):
        start_from_vit(PlainVitEncoder(SMALL), {name: tensor for name, tensor in deit.items() if name != "norm.weight"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_trains_what_its_card_says(kind: str) -> None:
    made = training.recipe(f"groupvit/transfer-{kind}")
    card = zoo.card(made.card)
    assert made.options.config == card.config
    assert from_plain(DenseClipConfig, json.loads(json.dumps(to_plain(card.config)))) == card.config
    with torch.device("meta"):
        full = Model(card.config)
    assert card.parameters == sum(part.numel() for part in full.parameters())
    assert full.classes[0] == "background"
    assert len(full.classes) == {"voc": 21, "context": 60}[kind]
    assert full(torch.zeros(1, 3, 32, 48, device="meta"))[0].shape == (1, len(full.classes), 2, 3)
    assert made.steps == 4000


@pytest.mark.parametrize("kind", KINDS)
def test_trained_on_masks_it_stands_in_the_table(kind: str, tmp_path: Path) -> None:
    """Steps lower the loss; the result answers with its classes, background among them, and the protocol counts the same pixels."""
    recipe, losses = small(kind, tmp_path / "data", tmp_path / "run"), []

    def note(_: int, figures: Mapping[str, float]) -> None:
        losses.append(figures["head"])

    folder = training.train(recipe, report=note, log=lambda _: None)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])

    asked = promptseg.load(folder, device="cpu", precision="float32")
    assert asked.card.name == f"vit-s-{kind}"
    assert f"groupvit/transfer-{kind}" in asked.card.weights_license
    protocol = evaluation.protocol(f"{kind}-maps", tmp_path / "data")
    hits = known = 0
    for sample in protocol.photos():
        found, target = asked.semantic(sample.image()).labels, sample.labels()
        hits += int((np.where(found < 0, 0, found) == target)[target >= 0].sum())
        known += int((target >= 0).sum())
    table = evaluation.evaluate(protocol, asked, resamples=0)
    figures = {row.name: row.value for row in table.rows}
    assert figures["pixel accuracy"] == pytest.approx(hits / known)
    assert table.published["DeiT, fine-tuned"]["mIoU"] == {"voc": 0.530, "context": 0.359}[kind]
    few = asked.semantic(np.zeros((20, 30, 3), np.uint8), asked.model.classes[1:3])
    assert few.labels.shape == (20, 30)


def test_a_run_starts_from_a_file(tmp_path: Path) -> None:
    source = PlainVitEncoder(SMALL)
    torch.save(to_official(timm_vit(), source.state_dict()), tmp_path / "dino.pth")
    run = Run(small("voc", tmp_path / "data", tmp_path / "run", imagenet=str(tmp_path / "dino.pth")), lambda _: None)
    assert all(torch.equal(tensor, run.model.image.state_dict()[name]) for name, tensor in source.state_dict().items())
    assert all(part.requires_grad for part in run.model.parameters())


def test_mistakes(tmp_path: Path) -> None:
    recipe = small("voc", tmp_path / "data", tmp_path / "run")
    config = recipe.options.config
    with pytest.raises(ConfigError, match="one space"):
        replace(config, language=zoo.config("denseclip-fpn-r50").language)
    with pytest.raises(ConfigError, match="heads"):
        PlainVitBackbone(heads=5)
    with pytest.raises(ConfigError, match="not those of Pascal VOC"):
        Run(replace(recipe, options=replace(recipe.options, config=replace(config, classes=("background", "cat")))), lambda _: None)
    with pytest.raises(ConfigError, match="does not fit the backbone"):
        Run(replace(recipe, options=replace(recipe.options, imagenet="package")), lambda _: None)
    with pytest.raises(ImageError, match="16x16"):
        PlainVitEncoder(SMALL)(torch.zeros(1, 3, 8, 40))

"""DenseCLIP's recipes in miniature, two steps from files of CLIP and of ImageNet: what starts where, and what moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import small_denseclip
from promptseg import training, zoo
from promptseg.contracts import Recipe
from promptseg.models.denseclip import Model, Run
from promptseg.models.denseclip.config import ImageNetBackbone, LiteBackbone, VitBackbone
from promptseg.training.files import read
from promptseg.training.groups import arrange
from small_denseclip import RESNET, VIT, build, classifier, shrunk
from small_detectors import MASK, RETINA
from test_denseclip import clip_of
from test_denseclip_detection_training import coco

HEADS = {"neck", "head"}
TEXT = {"text.contexts", "text"}
POST = {"gamma", "context_decoder"}
MOVED = {  # by recipe: the parts of the network that two steps change
    "baseline-fpn-r101": {"image", *HEADS},
    "fpn-vitb": {"image", "image.levels", *TEXT, *POST, *HEADS},
    "ablation-frozen-text": {"image", "text.contexts", *POST, *HEADS},
    "ablation-pre-model": {"image", "text", "queries", "context_decoder", *HEADS},
    "swin-t": {"image.body", "image.pool", *TEXT, *POST, *HEADS},
    "baseline-swin-s": {"image.body", *HEADS},
    "ablation-maskrcnn-pre-model": {"image", "queries", "context_decoder", *HEADS},
    "maskrcnn-imagenet-r50": {"image.body", "image.pool", "text.contexts", *POST, *HEADS},
}


def part(name: str) -> str:
    """Of a parameter."""
    first, second, *_ = (*name.split("."), "")
    return f"{first}.{second}" if second in ("levels", "contexts", "body", "pool") else first


def miniature(name: str, root: Path) -> tuple[Recipe, dict[str, Any]]:
    """A recipe on two small photos with files of tiny towers, and what these hold under our names."""
    full = training.recipe(f"denseclip/{name}")
    detects = "rcnn" in name or "retinanet" in name
    if detects:
        config = shrunk(replace(full.options.config, classes=("person", "car", "dog")), MASK if "rcnn" in name else RETINA)
        options, data = replace(full.options, config=config, long=96, short=64), coco(root / "data")
    else:
        config = shrunk(full.options.config)
        options, data = replace(full.options, config=config), small_denseclip.photos(root / "data")
    held: dict[str, Any] = {}
    if options.clip is not None:
        source = build(VIT if isinstance(config.backbone, VitBackbone) else RESNET)
        torch.save(clip_of(source), root / "clip.pt")
        options = replace(options, clip=str(root / "clip.pt"))
        held = {key: tensor for key, tensor in source.state_dict().items() if part(key) in ("image", "text")}
    if options.imagenet is not None:
        assert isinstance(config.backbone, ImageNetBackbone)
        theirs = classifier(config.backbone).state_dict()
        torch.save(theirs, root / "imagenet.pt")
        options = replace(options, imagenet=str(root / "imagenet.pt"))
        held = {key: tensor for key, tensor in held.items() if part(key) == "text"}
        held |= {f"image.body.{key.removeprefix('resnet.')}": tensor for key, tensor in theirs.items()}
    small = replace(
        full, data=str(data), output=str(root / "out"), options=options, steps=2, batch_size=2, workers=0, validate_every=None, lr=1e-3,
        schedule=replace(full.schedule, steps=1),
    )  # fmt: skip
    return small, held


@pytest.mark.parametrize("name", MOVED)
def test_two_steps_from_files(name: str, tmp_path: Path) -> None:
    recipe, held = miniature(name, tmp_path)
    start = Run(recipe, lambda _: None).model.state_dict()
    shared = [key for key in start.keys() & held.keys() if start[key].shape == held[key].shape and not key.endswith("num_batches_tracked")]
    towers = {"image.body" if recipe.options.imagenet else "image"} | ({"text"} if recipe.options.config.language else set())
    assert {part(key) for key in shared} == towers
    assert all(torch.equal(start[key], held[key]) for key in shared)
    model, _ = zoo.load(training.train(recipe, log=lambda _: None))
    moved = {part(key) for key, weight in model.named_parameters() if not torch.equal(weight, start[key])}
    assert moved == MOVED[name]
    if name == "ablation-frozen-text":
        assert torch.equal(model.text.blocks[0].attn.qkv.weight, held["text.blocks.0.attn.qkv.weight"])


def test_the_recipe_file_of_the_page_builds_a_detector(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "denseclip-detection.md").read_text(encoding="utf-8")
    (tmp_path / "lite.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    made = read(tmp_path / "lite.yaml")
    assert made.options.config.backbone == LiteBackbone(embed=1024)
    with torch.device("meta"):
        assert arrange(Model(made.options.config), made)


@pytest.mark.parametrize("name", ["fpn-r50", "maskrcnn-r50"])
def test_prompting_can_be_changed_in_any_recipe(name: str) -> None:
    """Its groups still name something: the queries stand where the contexts stood."""
    made = training.recipe(f"denseclip/{name}")
    language = replace(made.options.config.language, prompting="pre")
    changed = replace(made, options=replace(made.options, config=replace(made.options.config, language=language)))
    with torch.device("meta"):
        groups = {name: group.pattern for group in arrange(Model(changed.options.config), changed) for name in group.names}
    assert groups["queries"] == "text.contexts|queries"
    assert groups["text.projection"] == "text.*"

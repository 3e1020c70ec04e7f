"""DenseCLIP on backbones of ImageNet: every architecture answers, starts from transformers' files, and learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from promptseg import training, zoo
from promptseg.errors import ConfigError, WeightsError
from promptseg.models.denseclip import Model
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import ImageNetBackbone
from promptseg.models.denseclip.imagenet import start_from_imagenet
from promptseg.segmenter import Segmenter
from small_denseclip import CLASSES, IMAGENET, RESNET, build, classifier
from toy_family import photo

POOL = RESNET.backbone.pool
TINY = {
    "bottleneck": ImageNetBackbone(pool=POOL, **IMAGENET),
    "basic": ImageNetBackbone(layer="basic", pool=POOL, **IMAGENET),
    "swin": ImageNetBackbone(architecture="swin", pool=POOL, **IMAGENET),
}
RECIPES = {  # of transformers' files, in millions of parameters, the classifier's included
    "imagenet-r18": ("resnet-18", 11.7, 0.5), "imagenet-r50": ("resnet-50", 25.6, 2.0),
    "swin-t": ("swin-tiny-patch4-window7-224", 28.3, 0.8), "swin-s": ("swin-small-patch4-window7-224", 49.6, 0.8),
}  # fmt: skip


@pytest.mark.parametrize("kind", TINY)
def test_it_starts_from_transformers_files_and_answers(kind: str, tmp_path: Path) -> None:
    model, theirs = build(replace(RESNET, backbone=TINY[kind])), classifier(TINY[kind])
    start_from_imagenet(model.image, theirs.state_dict())
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        seen = model.encode_image(pixels)
        if kind != "swin":
            assert torch.allclose(seen.maps[-1], theirs.resnet(pixels).last_hidden_state, atol=1e-5)
        whole, cells = model.image.pool(seen.maps[-1])
    assert torch.equal(seen.embedding, whole)
    assert torch.equal(seen.local, cells)
    assert not torch.allclose(whole, cells.mean((-2, -1)))  # the mean asks the cells, which are not averaged
    assert [level.shape[-1] for level in seen.maps] == [24, 12, 6, 3]
    assert seen.local.shape == (2, 16, 2, 3)
    logits, scores = model(pixels)
    (logits.square().mean() + scores.square().mean()).backward()
    assert model.image.pool.v_proj.weight.grad.abs().sum() > 0
    asked = Segmenter(*zoo.load(zoo.save_folder(model, tmp_path, "denseclip-fpn-r50")), device="cpu", precision="float32")
    assert asked.card.preprocess == model.config.preprocess != zoo.card("denseclip-fpn-r50").preprocess
    assert list(asked.semantic(photo()).classes) == list(CLASSES)
    with torch.no_grad():
        assert Model(baseline(model.config)).eval()(pixels)[0].shape == logits.shape
    broken = {name: tensor for name, tensor in theirs.state_dict().items() if "bias" not in name}
    with pytest.raises(WeightsError, match="not the file of this backbone"):
        start_from_imagenet(model.image, broken)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_with_and_without_language(name: str) -> None:
    folder, published, classes = RECIPES[name]
    guided, plain = (training.recipe(f"denseclip/{prefix}{name}") for prefix in ("", "baseline-"))
    assert guided.options.imagenet == plain.options.imagenet == f"{folder}/model.safetensors"
    assert guided.options.config.preprocess.mean == (0.485, 0.456, 0.406)
    assert plain.options.config == baseline(guided.options.config)
    assert (guided.options.clip, plain.options.clip) == ("RN50.pt", None)
    assert (guided.card, plain.card) == ("denseclip-fpn-r50", "denseclip-baseline-fpn-r50")
    with torch.device("meta"):
        counted = sum(parameter.numel() for parameter in Model(plain.options.config).image.body.parameters())
        pool = Model(guided.options.config).image.pool
    assert counted / 1e6 == pytest.approx(published - classes, abs=0.1)
    assert pool.c_proj.out_features == 1024
    assert len(pool.positional_embedding) == 16**2 + 1


def test_impossible_sizes() -> None:
    with pytest.raises(ConfigError, match="'resnet' or 'swin'"):
        ImageNetBackbone(architecture="vgg")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'bottleneck' or 'basic'"):
        ImageNetBackbone(layer="dense")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="twice"):
        ImageNetBackbone(widths=(1, 2, 3, 4))
    with pytest.raises(ConfigError, match="multiple of the pool's heads"):
        ImageNetBackbone(widths=(10, 20, 40, 82 - 2), pool=replace(POOL, heads=32))

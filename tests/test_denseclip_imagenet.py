"""DenseCLIP on backbones of ImageNet: both architectures answer, start from transformers' files, and learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification, SwinConfig, SwinForImageClassification

from promptseg import training, zoo
from promptseg.errors import ConfigError, WeightsError
from promptseg.models.denseclip import Model
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import ImageNetBackbone
from promptseg.models.denseclip.imagenet import start_from_imagenet
from promptseg.segmenter import Segmenter
from small_denseclip import CLASSES, RESNET, build
from toy_family import photo

TINY = {
    "resnet": ImageNetBackbone(widths=(16, 32, 64, 128), depths=(1, 1, 1, 1), embed=16),
    "swin": ImageNetBackbone(architecture="swin", widths=(8, 16, 32, 64), depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), window=4, embed=16),
}


def classifier(architecture: str) -> Any:
    """transformers' own model of the same sizes."""
    torch.manual_seed(1)
    common: dict[str, Any] = {"depths": [1, 1, 1, 1], "num_labels": 5}
    if architecture == "resnet":
        return ResNetForImageClassification(ResNetConfig(**common, hidden_sizes=[16, 32, 64, 128], embedding_size=4)).eval()
    return SwinForImageClassification(SwinConfig(**common, embed_dim=8, num_heads=[1, 2, 2, 4], window_size=4)).eval()


@pytest.mark.parametrize("architecture", TINY)
def test_it_starts_from_transformers_files_and_answers(architecture: str, tmp_path: Path) -> None:
    model, theirs = build(replace(RESNET, backbone=TINY[architecture])), classifier(architecture)
    start_from_imagenet(model.image, theirs.state_dict())
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        seen = model.encode_image(pixels)
        if architecture == "resnet":
            assert torch.allclose(seen.maps[-1], theirs.resnet(pixels).last_hidden_state, atol=1e-5)
    assert [level.shape[-1] for level in seen.maps] == [24, 12, 6, 3]
    assert seen.local.shape == (2, 16, 2, 3)
    logits, scores = model(pixels)
    (logits.square().mean() + scores.square().mean()).backward()
    assert model.image.project.weight.grad.abs().sum() > 0
    asked = Segmenter(*zoo.load(zoo.save_folder(model, tmp_path, "denseclip-fpn-r50")), device="cpu", precision="float32")
    assert asked.card.preprocess == model.config.preprocess != zoo.card("denseclip-fpn-r50").preprocess
    assert list(asked.semantic(photo()).classes) == list(CLASSES)
    with torch.no_grad():
        assert Model(baseline(model.config)).eval()(pixels)[0].shape == logits.shape
    broken = {name: tensor for name, tensor in theirs.state_dict().items() if "bias" not in name}
    with pytest.raises(WeightsError, match="not the file of this backbone"):
        start_from_imagenet(model.image, broken)


@pytest.mark.parametrize("name", ["denseclip/imagenet-r50", "denseclip/swin-t"])
def test_recipes(name: str) -> None:
    made = training.recipe(name)
    assert made.options.imagenet
    assert made.options.config.preprocess.mean == (0.485, 0.456, 0.406)
    with torch.device("meta"):
        Model(made.options.config)


def test_impossible_sizes() -> None:
    with pytest.raises(ConfigError, match="'resnet' or 'swin'"):
        ImageNetBackbone(architecture="vgg")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="twice"):
        ImageNetBackbone(widths=(1, 2, 3, 4))

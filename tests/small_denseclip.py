"""DenseCLIP in miniature, both image encoders, and its training. As a script it trains until it kills itself:

python small_denseclip.py DATA OUTPUT STEP
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import replicas
from promptseg import training, zoo
from promptseg.contracts import Preprocess, Recipe
from promptseg.models.denseclip import LAYOUTS, DenseClipConfig, Model
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.config import (
    DecoderConfig,
    ImageNetBackbone,
    LanguageConfig,
    PyramidConfig,
    ResNetBackbone,
    SemanticHead,
    VitBackbone,
)
from promptseg.nn import conversion
from promptseg.nn.clip_config import AttentionPoolConfig, ClipTextConfig
from promptseg.training.groups import arrange
from promptseg.zoo.configs import from_plain, to_plain

CLASSES = ("cat", "traffic light", "sky")
RESNET = DenseClipConfig(
    classes=CLASSES,
    backbone=ResNetBackbone(layers=(1, 1, 1, 1), width=8, pool=AttentionPoolConfig(embed=16, grid=2, heads=4)),
    language=LanguageConfig(
        text=ClipTextConfig(width=16, layers=1, heads=2, embed=16, context=7), contexts=2,
        decoder=DecoderConfig(width=16, layers=1, heads=2),
    ),
    neck=PyramidConfig(channels=8),
    head=SemanticHead(channels=8, crop=64, stride=42, limits=(256, 64)),
    preprocess=Preprocess(size=64, fit="native", rounded=True),
)  # fmt: skip
assert RESNET.language is not None
VIT = replace(
    RESNET,
    backbone=VitBackbone(width=16, layers=4, heads=2, grid=4, taps=(0, 1, 2, 3), embed=16),
    language=replace(RESNET.language, level=2),
)
CONFIGS = {"resnet": RESNET, "vit": VIT, "resnet-baseline": baseline(RESNET), "vit-baseline": baseline(VIT)}
IMAGENET: dict[str, Any] = {"widths": (16, 32, 64, 128), "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 4), "window": 4}


def build(config: DenseClipConfig = RESNET, **changes: Any) -> Model:
    """A network whose weights are not near zero, so that every part matters."""
    torch.manual_seed(0)
    model = Model(replace(config, **changes))
    with torch.no_grad():
        if model.gamma is not None:
            model.gamma.fill_(1.0)
    return model.eval()


# Of the layouts of the 14 published configurations: how many tensors, and the checksum of their names and shapes; by our cards.
LAYOUTS_PUBLISHED = {
    "denseclip-fpn-r50": (624, "c01d1f8b42234a8f20b01902094d66a2"),
    "denseclip-fpn-r101": (930, "907c784fcd4770a6efc12177ce9c1fd1"),
    "denseclip-fpn-vitb": (456, "ae4e54f8db24e6f6bb9439438bab23d2"),
    "denseclip-baseline-fpn-r50": (390, "51f53c118b1499e7191c1146ca9bfd70"),
    "denseclip-baseline-fpn-r101": (696, "637ff347a948a135eebcd295627c3900"),
    "denseclip-baseline-fpn-vitb": (228, "68f1b2f14e7baa18ef9f0414fca994e0"),
    "denseclip-retinanet-r50": (600, "d274b42f1b9fe5c973bc9db255a51ec5"),
    "denseclip-retinanet-r101": (906, "bbf20f55b2ff9e30d225fe9d3aa5640a"),
    "denseclip-maskrcnn-r50": (606, "f2cd5dd3facc7102ee08f682f05bb963"),
    "denseclip-maskrcnn-r101": (912, "c10f3c2f6d65a6b858d6bc9080375282"),
    "denseclip-baseline-retinanet-r50": (366, "4a158bf5df11ce8eca1f1b59daf75a27"),
    "denseclip-baseline-retinanet-r101": (672, "c95b8b5a564c50a801fb3a8d7625d452"),
    "denseclip-baseline-maskrcnn-r50": (372, "fa1552986f1eae73f705917b232ead00"),
    "denseclip-baseline-maskrcnn-r101": (678, "695680491e7f342ccf60661e8a14941d"),
}


def layout(theirs: Mapping[str, Tensor]) -> tuple[int, str]:
    """What `LAYOUTS_PUBLISHED` says of a checkpoint."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in theirs.items())
    return len(lines), sha256("\n".join(lines).encode()).hexdigest()[:32]


def check_card(card: str) -> None:
    """Its network has the published tensors, each with a place, and as many parameters as the card says."""
    with torch.device("meta"):
        full = Model(zoo.config(card))
    theirs = zoo.to_official(full)
    assert layout(theirs) == LAYOUTS_PUBLISHED[card]
    given = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in theirs.items()}
    ours = conversion.from_official(LAYOUTS["official"], given, conversion.shapes_of(full))
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == conversion.shapes_of(full)
    assert zoo.card(card).parameters == sum(parameter.numel() for parameter in full.parameters())
    assert from_plain(type(full.config), json.loads(json.dumps(to_plain(full.config)))) == full.config


def rates(recipe: Recipe) -> dict[tuple[float, float], tuple[int, int]]:
    """Rate and decay -> tensors and numbers that have them; every pattern of the recipe's groups must name something."""
    with torch.device("meta"):
        full = Model(recipe.options.config)
    found: dict[tuple[float, float], tuple[int, int]] = {}
    for group in arrange(full, recipe):
        key = round(group.lr, 9), group.weight_decay
        tensors, numbers = found.get(key, (0, 0))
        found[key] = tensors + len(group.names), numbers + group.count
    return found


def shrunk(config: DenseClipConfig, like: DenseClipConfig = RESNET) -> DenseClipConfig:
    """A published network with the sizes of a tiny one: its classes, kind of backbone and prompting stay."""
    backbone, pool = config.backbone, config.backbone.embed and like.backbone.pool
    if isinstance(backbone, VitBackbone):
        backbone = replace(VIT.backbone, embed=config.backbone.embed and 16, drop_path=backbone.drop_path)
    else:
        backbone = replace(backbone, pool=pool, **IMAGENET) if isinstance(backbone, ImageNetBackbone) else replace(like.backbone, pool=pool)
    language = config.language
    if language is not None:
        language = replace(like.language, prompting=language.prompting, level=language.level, divided=language.divided)
    return replace(like, classes=config.classes, backbone=backbone, language=language)


def classifier(backbone: ImageNetBackbone) -> Any:
    """transformers' own model of the same sizes."""
    from transformers import ResNetConfig, ResNetForImageClassification, SwinConfig, SwinForImageClassification

    torch.manual_seed(1)
    common: dict[str, Any] = {"depths": list(backbone.depths), "num_labels": 5}
    if backbone.architecture == "swin":
        sizes = {"embed_dim": backbone.widths[0], "num_heads": list(backbone.heads), "window_size": backbone.window}
        return SwinForImageClassification(SwinConfig(**common, **sizes)).eval()
    sizes = {"hidden_sizes": list(backbone.widths), "embedding_size": 16 if backbone.layer == "basic" else 4, "layer_type": backbone.layer}
    return ResNetForImageClassification(ResNetConfig(**common, **sizes)).eval()


def photos(root: Path) -> Path:
    """`replicas.ade150` with a training split of two photos."""
    replicas.ade150(root)
    for part, suffix in (("images", ".jpg"), ("annotations", ".png")):
        folder = root / "ADEChallengeData2016" / part
        (folder / "training").mkdir()
        for number in (1, 2):
            shutil.copy(folder / "validation" / f"ADE_val_00000001{suffix}", folder / "training" / f"ADE_train_0000000{number}{suffix}")
    return root


def recipe(root: Path, output: Path, *, name: str = "denseclip/fpn-r50", **changes: Any) -> Recipe:
    """A published recipe with a tiny network of the 150 classes on random towers, and few steps."""
    base = training.recipe(name)
    small = replace(base.options, config=shrunk(base.options.config), clip=None, imagenet=None, validation=2)
    values = {"steps": 4, "batch_size": 2, "lr": 3e-3, "workers": 0, "save_every_s": 0.0, "validate_every": 4, **changes}
    schedule = replace(base.schedule, steps=1)
    return replace(base, data=str(root), output=str(output), options=small, schedule=schedule, **values)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)

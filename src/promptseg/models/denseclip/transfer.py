"""GroupViT's comparison with supervised transfer: the two networks and the runs that fine-tune them. They are of this family because it
is the one of closed lists of classes.

The paper gives the network, a pretrained ViT-S/16 and a 1x1 convolution, all of which learns from masks, and as far as we know 4,000 steps
on Pascal VOC; neither code nor weights are published. Ours are: the split train as it is (VOC 1,464 photos, PASCAL-Context 4,998), the
steps on PASCAL-Context, batches of 16, AdamW at 1e-4 with weight decay 0.05 and a rise of 400 steps, squares of 448 pixels scaled and
coloured as DenseCLIP's, the loss at every pixel, and tests in GroupViT's windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from ...contracts import Card, Preprocess, Recipe
from ...data.vocabularies import names
from ...training.schedules import Poly, Warmup
from .config import DenseClipConfig, PlainVitBackbone, SemanticHead
from .recipes import DenseClipTraining

Dataset: TypeAlias = Literal["voc", "context"]
CLASSES = {"voc": "voc21-groupvit", "context": "context60-groupvit"}  # the first is background
START = "deit-small-patch16-224/model.safetensors"


def vit_s(dataset: Dataset) -> DenseClipConfig:
    """ViT-S/16, shown photos as GroupViT is."""
    return DenseClipConfig(
        classes=names(CLASSES[dataset]),
        backbone=PlainVitBackbone(),
        head=SemanticHead(crop=448, stride=224, limits=(2048, 448)),
        preprocess=Preprocess(size=448, fit="native", rounded=True),
    )


def _card(dataset: Dataset, title: str, parameters: int) -> Card:
    config = vit_s(dataset)
    return Card(
        name=f"vit-s-{dataset}",
        family="denseclip",
        config=config,
        summary=f"ViT-S fine-tuned with the masks of {title}: what GroupViT is compared with; weights not published",
        source="Xu et al., GroupViT: Semantic Segmentation Emerges from Text Supervision, CVPR 2022, comparison with supervised transfer",
        code_license="none: no code is published",
        weights_license="none: no weights are published",
        tasks=("semantic",),
        prompts=("text",),
        parameters=parameters,
        preprocess=config.preprocess,
        background="background",
    )


CARDS: tuple[Card, ...] = (_card("voc", "Pascal VOC", 21_673_749), _card("context", "PASCAL-Context", 21_688_764))


def transfer_voc() -> Recipe:
    """Pascal VOC, 20 classes and background. In the paper mIoU 53.0 from DeiT, 39.1 from DINO and 34.3 from MoCo v3 on ImageNet."""
    return _run("voc", "VOCdevkit/VOC2012")


def transfer_context() -> Recipe:
    """PASCAL-Context, 59 classes and background. In the paper mIoU 35.9 from DeiT, 20.4 from DINO and 21.3 from MoCo v3 on ImageNet."""
    return _run("context", "VOCdevkit/VOC2010")


def _run(dataset: Dataset, place: str) -> Recipe:
    return Recipe(
        name=f"groupvit/transfer-{dataset}", card=f"vit-s-{dataset}", data=f"data/{place}", output=f"runs/groupvit/transfer-{dataset}",
        steps=4000, batch_size=16, lr=1e-4, schedule=Warmup(steps=400, start=1e-6, main=Poly(power=0.9, minimum=1e-6), join="multiply"),
        weight_decay=0.05, clip=None, ema=None, workers=4, validate_every=1000,
        options=DenseClipTraining(config=vit_s(dataset), dataset=dataset, imagenet=START),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in (transfer_voc, transfer_context)}

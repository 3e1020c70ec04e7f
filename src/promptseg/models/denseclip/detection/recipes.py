"""DenseCLIP's runs for detection, published and ours, each naming only what differs: COCO 2017, 12 epochs of 7,330 steps of 16 photos.

AdamW at 1e-4 (Mask R-CNN 2e-4), the image tower at a tenth of it, the text tower fixed but for its learned contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ....contracts import Recipe
from ....errors import ConfigError
from ....training.schedules import MultiStep, Warmup
from ..cards import baseline, on_imagenet
from ..config import DenseClipConfig, ImageNetBackbone, MaskHead, SemanticHead
from ..recipes import groups
from .cards import maskrcnn_r50, maskrcnn_r101, retinanet_r50, retinanet_r101

EPOCH = 7330  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionTraining:
    """What only the detectors' training knows.

    ``clip``, ``imagenet``: as of `DenseClipTraining`. ``long``, ``short``: limits of the sides of the resized photos, in pixels.
    ``validation``: photos of the validation split that are looked at, spread evenly over it.
    """

    config: DenseClipConfig
    clip: str | None = None
    imagenet: str | None = None
    long: int = 1333
    short: int = 800
    validation: int = 500

    def __post_init__(self) -> None:
        if isinstance(self.config.head, SemanticHead):
            raise ConfigError("This run trains detectors; its network has the head of RetinaNet or Mask R-CNN.")
        if self.validation < 1 or not 32 <= self.short <= self.long:
            raise ConfigError(
                f"validation is at least 1, short at least 32, long no less; not {self.validation}, {self.short}, {self.long}."
            )


def _run(name: str, about: str, config: DenseClipConfig, clip: str, *, card: str | None = None, **options: Any) -> Callable[[], Recipe]:
    """A run of the published twelve epochs; ``about`` it, a line for `promptseg train list`."""
    masks = isinstance(config.head, MaskHead)

    def make() -> Recipe:
        return Recipe(
            name=f"denseclip/{name}", card=f"denseclip-{card or name}", data="data/coco", output=f"runs/denseclip/{name}",
            steps=12 * EPOCH, batch_size=16, lr=2e-4 if masks else 1e-4,
            schedule=Warmup(steps=500, start=0.001, main=MultiStep(milestones=(8 * EPOCH, 11 * EPOCH)), join="multiply"),
            groups=groups(config), weight_decay=1e-4, clip=0.1, ema=None, workers=6, validate_every=EPOCH,
            options=DetectionTraining(config=config, clip=clip, **options),
        )  # fmt: skip

    make.__doc__ = about
    return make


def _pre_model(config: DenseClipConfig) -> DenseClipConfig:
    assert config.language is not None
    return replace(config, language=replace(config.language, prompting="pre"))


_ALL: tuple[Callable[[], Recipe], ...] = (
    _run("retinanet-r50", "RetinaNet on CLIP's ResNet-50.", retinanet_r50(), "RN50.pt"),
    _run("retinanet-r101", "RetinaNet on CLIP's ResNet-101.", retinanet_r101(), "RN101.pt"),
    _run("maskrcnn-r50", "Mask R-CNN on CLIP's ResNet-50.", maskrcnn_r50(), "RN50.pt"),
    _run("maskrcnn-r101", "Mask R-CNN on CLIP's ResNet-101.", maskrcnn_r101(), "RN101.pt"),
    _run("baseline-retinanet-r50", "RetinaNet on CLIP's ResNet-50, without language.", baseline(retinanet_r50()), "RN50.pt"),
    _run("baseline-retinanet-r101", "RetinaNet on CLIP's ResNet-101, without language.", baseline(retinanet_r101()), "RN101.pt"),
    _run("baseline-maskrcnn-r50", "Mask R-CNN on CLIP's ResNet-50, without language.", baseline(maskrcnn_r50()), "RN50.pt"),
    _run("baseline-maskrcnn-r101", "Mask R-CNN on CLIP's ResNet-101, without language.", baseline(maskrcnn_r101()), "RN101.pt"),
    _run(
        "ablation-maskrcnn-pre-model", "Mask R-CNN with pre-model prompting; ours.", _pre_model(maskrcnn_r50()), "RN50.pt",
        card="maskrcnn-r50",
    ),
    _run(
        "maskrcnn-imagenet-r50", "Mask R-CNN on ImageNet's ResNet-50, with the text tower of CLIP.",
        on_imagenet(maskrcnn_r50(), ImageNetBackbone()), "RN50.pt", card="maskrcnn-r50", imagenet="resnet-50/model.safetensors",
    ),
)  # fmt: skip
RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in _ALL}

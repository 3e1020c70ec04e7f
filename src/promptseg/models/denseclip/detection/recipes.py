"""DenseCLIP's published runs for detection, each naming only what differs: COCO 2017, 12 epochs of 7,330 steps of 16 photos.

AdamW at 1e-4 (Mask R-CNN 2e-4), the image tower at a tenth of it, the text tower fixed but for its learned contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....contracts import ParameterGroup, Recipe
from ....errors import ConfigError
from ....training.schedules import MultiStep, Warmup
from ..cards import baseline
from ..config import DenseClipConfig, MaskHead, SemanticHead
from .cards import maskrcnn_r50, maskrcnn_r101, retinanet_r50, retinanet_r101

EPOCH = 7330  # steps
IMAGE = ParameterGroup(pattern="image.*", lr=0.1)
LANGUAGE = (
    ParameterGroup(pattern="text.contexts"),
    ParameterGroup(pattern="text.*", lr=0.0),
    IMAGE,
    ParameterGroup(pattern="context_decoder.decoder.*.norm*", weight_decay=0.0),  # all that the published key "norm" finds
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionTraining:
    """What only the detectors' training knows.

    ``clip``: CLIP's own file; None: random towers. ``long``, ``short``: limits of the sides of the resized photos, in pixels.
    ``validation``: photos of the validation split that are looked at, spread evenly over it.
    """

    config: DenseClipConfig
    clip: str | None = None
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


def _run(name: str, config: DenseClipConfig, clip: str) -> Callable[[], Recipe]:
    masks = isinstance(config.head, MaskHead)

    def make() -> Recipe:
        return Recipe(
            name=f"denseclip/{name}", card=f"denseclip-{name}", data="data/coco", output=f"runs/denseclip/{name}",
            steps=12 * EPOCH, batch_size=16, lr=2e-4 if masks else 1e-4,
            schedule=Warmup(steps=500, start=0.001, main=MultiStep(milestones=(8 * EPOCH, 11 * EPOCH)), join="multiply"),
            groups=(IMAGE,) if config.language is None else LANGUAGE,
            weight_decay=1e-4, clip=0.1, ema=None, workers=6, validate_every=EPOCH,
            options=DetectionTraining(config=config, clip=clip),
        )  # fmt: skip

    return make


_ALL: tuple[Callable[[], Recipe], ...] = (
    _run("retinanet-r50", retinanet_r50(), "RN50.pt"),
    _run("retinanet-r101", retinanet_r101(), "RN101.pt"),
    _run("maskrcnn-r50", maskrcnn_r50(), "RN50.pt"),
    _run("maskrcnn-r101", maskrcnn_r101(), "RN101.pt"),
    _run("baseline-retinanet-r50", baseline(retinanet_r50()), "RN50.pt"),
    _run("baseline-retinanet-r101", baseline(retinanet_r101()), "RN101.pt"),
    _run("baseline-maskrcnn-r50", baseline(maskrcnn_r50()), "RN50.pt"),
    _run("baseline-maskrcnn-r101", baseline(maskrcnn_r101()), "RN101.pt"),
)
RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in _ALL}

"""DenseCLIP's published runs for segmentation and the ablations of its paper, each naming only what differs.

All train on ADE20K with 150 classes: 80,000 steps of 32 photos, AdamW at 1e-4, the image tower at a tenth of it. The text tower's rate
starts at 0 and rises to 1e-6, the schedule's minimum, as in the published code: it is almost frozen. `frozen` makes it so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...contracts import ParameterGroup, Preprocess, Recipe
from ...errors import ConfigError
from ...nn.clip_config import ClipTextConfig
from ...training.schedules import Poly, Warmup
from .cards import baseline, fpn_r50, fpn_r101, fpn_vitb, on_imagenet
from .config import DecoderConfig, DenseClipConfig, ImageNetBackbone, LanguageConfig, LiteBackbone, PyramidConfig, SemanticHead


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseClipTraining:
    """What only this family's training knows.

    ``dataset``: "ade20k", or "own": label maps as `data.own` reads them, of which a fifth, chosen by the checksum of the photos' names, is
    for validation; the value 0, and classes that the network does not have, are ignored. ``clip``: CLIP's file; None: random towers.
    ``partial``: it may be of a smaller network. ``imagenet``: transformers' file or folder of a backbone that is not CLIP's; "package":
    what is installed with the extra ``train``. ``validation``: photos of the validation split that are looked at, spread evenly over it.
    ``dataset`` "voc" and "context" are Pascal VOC and PASCAL-Context with background as their first class (`data.whole_maps`).
    """

    config: DenseClipConfig
    dataset: Literal["ade20k", "voc", "context", "own"] = "ade20k"
    clip: str | None = None
    partial: bool = False
    imagenet: str | None = None
    validation: int = 500

    def __post_init__(self) -> None:
        if self.validation < 1:
            raise ConfigError(f"validation is at least 1 photo, not {self.validation}.")
        if not isinstance(self.config.head, SemanticHead):
            raise ConfigError("This run trains segmenters; its network has a SemanticHead.")
        if self.dataset not in ("ade20k", "voc", "context", "own"):
            raise ConfigError(f"dataset is 'ade20k', 'voc', 'context' or 'own', not {self.dataset!r}.")


IMAGE = ParameterGroup(pattern="image.*", lr=0.1)
LANGUAGE = (
    ParameterGroup(pattern="text.contexts|queries"),  # queries, of which the image makes contexts, with pre-model prompting
    ParameterGroup(pattern="text.*", lr=0.0),
    IMAGE,
)
NORMS = ParameterGroup(pattern="context_decoder.decoder.*.norm*", weight_decay=0.0)  # all that the published key "norm" finds


def groups(config: DenseClipConfig) -> tuple[ParameterGroup, ...]:
    """Groups of the official runs, for detection, too; biases and other norms decay there, too."""
    if config.language is None:
        return (IMAGE,)
    return LANGUAGE if config.language.prompting == "none" else (*LANGUAGE, NORMS)


def _run(name: str, card: str, config: DenseClipConfig, clip: str | None, **options: Any) -> Recipe:
    return Recipe(
        name=f"denseclip/{name}", card=card, data="data/ade20k", output=f"runs/denseclip/{name}", steps=80_000, batch_size=32, lr=1e-4,
        schedule=Warmup(steps=1500, start=1e-6, main=Poly(power=0.9, minimum=1e-6), join="multiply"), groups=groups(config),
        weight_decay=1e-4, clip=None, ema=None, workers=4, validate_every=8000,
        options=DenseClipTraining(config=config, clip=clip, **options),
    )  # fmt: skip


def fpn_res50() -> Recipe:
    """CLIP ResNet-50 [denseclip_fpn_res50_512x512_80k]. Expected: mIoU 43.5."""
    return _run("fpn-r50", "denseclip-fpn-r50", fpn_r50(), "RN50.pt")


def fpn_res101() -> Recipe:
    """CLIP ResNet-101 [denseclip_fpn_res101_512x512_80k]. Expected: mIoU 45.1."""
    return _run("fpn-r101", "denseclip-fpn-r101", fpn_r101(), "RN101.pt")


def fpn_vit_b() -> Recipe:
    """CLIP ViT-B/16 at 640 pixels [denseclip_fpn_vit-b_640x640_80k]. Expected: mIoU 50.6."""
    return _run("fpn-vitb", "denseclip-fpn-vitb", fpn_vitb(), "ViT-B-16.pt")


def baseline_res50() -> Recipe:
    """Without language [fpn_clipres50_512x512_80k]. Expected: mIoU 39.6."""
    return _run("baseline-fpn-r50", "denseclip-baseline-fpn-r50", baseline(fpn_r50()), "RN50.pt")


def baseline_res101() -> Recipe:
    """Without language [fpn_clipres101_512x512_80k], which names the file of ResNet-50: most of the third stage starts at random.

    Expected: mIoU 42.7.
    """
    return _run("baseline-fpn-r101", "denseclip-baseline-fpn-r101", baseline(fpn_r101()), "RN50.pt", partial=True)


def baseline_vit_b() -> Recipe:
    """Without language [fpn_clipvit-b_640x640_80k]. Expected: mIoU 49.4."""
    return _run("baseline-fpn-vitb", "denseclip-baseline-fpn-vitb", baseline(fpn_vitb()), "ViT-B-16.pt")


def frozen() -> Recipe:
    """The run on ResNet-50 with a text tower that stays exactly as CLIP has it, as the paper describes it."""
    run = _run("ablation-frozen-text", "denseclip-fpn-r50", fpn_r50(), "RN50.pt")
    tower = replace(LANGUAGE[1], lr=1.0, frozen=True)
    return replace(run, groups=(LANGUAGE[0], tower, IMAGE, NORMS))


def _ablation(name: str, about: str, depth: int | None = None, **language: Any) -> Callable[[], Recipe]:
    """The run on ResNet-50 with other language guidance; ``depth``: layers of the context decoder; ``about`` it: for `train list`."""

    def make() -> Recipe:
        config = fpn_r50()
        assert config.language is not None
        changes = language if depth is None else {**language, "decoder": replace(config.language.decoder, layers=depth)}
        changed = replace(config, language=replace(config.language, **changes))
        return _run(f"ablation-{name}", "denseclip-fpn-r50", changed, "RN50.pt")

    make.__doc__ = about
    return make


BACKBONES: dict[str, tuple[ImageNetBackbone, str]] = {  # as transformers' files have them
    "imagenet-r18": (ImageNetBackbone(layer="basic", widths=(64, 128, 256, 512), depths=(2, 2, 2, 2)), "resnet-18"),
    "imagenet-r50": (ImageNetBackbone(), "resnet-50"),
    "swin-t": (
        ImageNetBackbone(architecture="swin", widths=(96, 192, 384, 768), depths=(2, 2, 6, 2)), "swin-tiny-patch4-window7-224"
    ),
    "swin-s": (
        ImageNetBackbone(architecture="swin", widths=(96, 192, 384, 768), depths=(2, 2, 18, 2)), "swin-small-patch4-window7-224"
    ),
}  # fmt: skip


def _any_backbone(name: str, *, guided: bool) -> Callable[[], Recipe]:
    """A backbone of ImageNet with the text tower of CLIP's ResNet-50 (the paper's "any visual backbone"), or without language."""

    def make() -> Recipe:
        backbone, folder = BACKBONES[name]
        config, weights = on_imagenet(fpn_r50(), backbone), f"{folder}/model.safetensors"
        if guided:
            return _run(name, "denseclip-fpn-r50", config, "RN50.pt", imagenet=weights)
        return _run(f"baseline-{name}", "denseclip-baseline-fpn-r50", baseline(config), None, imagenet=weights)

    make.__doc__ = f"{BACKBONES[name][1]} of ImageNet, {'with the text tower of CLIP' if guided else 'without language'}."
    return make


MSRC = (
    "building", "grass", "tree", "cow", "sheep", "sky", "mountain", "aeroplane", "water", "face", "car", "bicycle", "flower", "sign",
    "bird", "book", "chair", "road", "cat", "dog", "body", "boat",
)  # fmt: skip


def msrc() -> Recipe:
    """A few hundred photographs of 22 classes and the small tower of `pocket`, for two cores and ten minutes.

    The text tower is small, too, and starts at random: of the language only the guidance is left, that names must fit cells.
    """
    language = LanguageConfig(
        text=ClipTextConfig(width=256, layers=2, heads=4, embed=256, context=13), decoder=DecoderConfig(width=128, layers=2)
    )
    return _small("msrc", language)


def msrc_baseline() -> Recipe:
    """The same photographs, tower and budget without language."""
    return _small("msrc-baseline", None)


def _small(name: str, language: LanguageConfig | None) -> Recipe:
    preprocess = Preprocess(size=256, fit="native", rounded=True, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)  # of EfficientNet-Lite
    config = DenseClipConfig(
        classes=MSRC, backbone=LiteBackbone(embed=256 if language else None), language=language, neck=PyramidConfig(channels=96),
        head=SemanticHead(channels=96, crop=256, stride=171, limits=(1024, 256)), preprocess=preprocess,
    )  # fmt: skip
    return Recipe(
        name=f"denseclip/{name}", card="denseclip-fpn-r50", data="data/msrc", output=f"runs/denseclip/{name}", steps=250, batch_size=8,
        lr=1e-3, schedule=Warmup(steps=50, start=1e-5, main=Poly(power=0.9, minimum=1e-6), join="multiply"),
        groups=(ParameterGroup(pattern="image.body.*", lr=0.1),), weight_decay=0.01, clip=None, ema=None, workers=0, validate_every=250,
        options=DenseClipTraining(config=config, dataset="own", imagenet="package"),
    )  # fmt: skip


_ALL: tuple[Callable[[], Recipe], ...] = (
    fpn_res50,
    fpn_res101,
    fpn_vit_b,
    baseline_res50,
    baseline_res101,
    baseline_vit_b,
    *(_any_backbone(name, guided=guided) for guided in (True, False) for name in BACKBONES),
    msrc,
    msrc_baseline,
    frozen,
    _ablation("score-map", "Without context decoder: learned vectors and the score map only.", prompting="none"),
    _ablation("pre-model", "Pre-model prompting, which is in the paper and not in its code.", prompting="pre"),
    _ablation("decoder-1", "A context decoder of one layer; ours.", depth=1),
    _ablation("decoder-6", "A context decoder of six layers; ours.", depth=6),
)
RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in _ALL}

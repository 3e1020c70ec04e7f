"""Every training run of the CLIPSeg paper; in brackets its place in the published files, ``experiments/NAME.yaml``.

A recipe names only what differs from the one that it changes. Where the published files cannot be run as they are, or the published code
does something else than they say, the recipe says so; `docs/training.md` lists all such places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

from ...contracts import Recipe
from ...data.augment import Augmentation
from ...errors import ConfigError
from ...training.schedules import Cosine
from .config import VIT_B16_384, ClipDeconvConfig, ClipSegConfig
from .mixing import Mixing

FOLDS = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """Items of PhraseCut; `data.phrasecut.PhraseCut` explains the options."""

    negatives: float = 0.0
    removed: str | None = None
    only_supported: bool = False
    kind: Literal["phrasecut"] = "phrasecut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Items of COCO-20i; `data.coco20i.Coco20i` explains the options."""

    fold: int = 0
    negatives: float = 0.0
    kind: Literal["coco20i"] = "coco20i"


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """Items of LVIS; `data.lvis.LvisOneShot` explains the options."""

    removed: str | None = None
    min_share: float = 0.05
    kind: Literal["lvis"] = "lvis"


Items: TypeAlias = Phrases | Episodes | Categories


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSegOptions:
    """What only this family's training knows.

    ``config``: the network; its ``technique`` is how examples are drawn. ``clip``: whose CLIP is trained on: a model that `zoo` knows, a
    folder of ours, or CLIP's own file; None: random towers. ``vit``: timm's file with the image tower of ViTSeg. ``condition``: what the
    network is told: texts, pictures of an example, or a mixture by ``mixing`` (the text alone where a phrase has no example).
    """

    config: ClipSegConfig | ClipDeconvConfig
    clip: str | None = "clipseg-rd64"
    vit: str | None = None
    items: Items = field(default_factory=Phrases)
    condition: Literal["text", "picture", "mixed"] = "mixed"
    mixing: Mixing = field(default_factory=Mixing)
    augmentation: Augmentation | None = None  # of photo and target together, on top of what the items draw; as published, none
    size: int = 352  # side of the square photos, pixels
    validation: int = 500  # items of the validation split that are looked at, spread evenly over it

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % self.config.image.patch:
            raise ConfigError(f"size is the side of the photos, a multiple of the patch ({self.config.image.patch}), not {self.size}.")
        if self.augmentation is not None and self.augmentation.size not in (None, (self.size, self.size)):
            raise ConfigError(f"augmentation.size is that of the photos, {self.size}, and better left out.")
        if self.validation < 1:
            raise ConfigError(f"validation is a number of items, at least 1, not {self.validation}.")


def _variant(base: Recipe, name: str, *, card: str | None = None, lr: float | None = None, **options: Any) -> Recipe:
    """``base`` under another name, with other options."""
    changed = replace(base.options, **options)
    return replace(base, name=name, output=f"runs/{name}", card=card or base.card, lr=lr or base.lr, options=changed)


# --- PhraseCut --------------------------------------------------------------------------------------------------------------------------


def pc_plus() -> Recipe:
    """CLIPSeg (PC+), the published weights: a fifth of negatives, texts mixed with examples [phrasecut 0, ablation 0]."""
    return Recipe(
        name="clipseg/pc-plus", card="clipseg-rd64", data="data/phrasecut", output="runs/clipseg/pc-plus", steps=20_000, batch_size=64,
        lr=1e-3, schedule=Cosine(minimum=1e-4), clip=None, ema=None, precision="float16", workers=4,
        options=ClipSegOptions(config=ClipSegConfig(taps=(3, 7, 9)), items=Phrases(negatives=0.2), mixing=Mixing(high=0.5)),
    )  # fmt: skip


def pc_plus_refined() -> Recipe:
    """PC+ with the finer mask head, 50,000 steps [phrasecut 1]."""
    refined = _variant(
        pc_plus(), "clipseg/pc-plus-refined", card="clipseg-rd64-refined", config=ClipSegConfig(taps=(3, 7, 9), refined=True)
    )
    return replace(refined, steps=50_000)


def pc() -> Recipe:
    """CLIPSeg (PC): bare phrases, no examples [phrasecut 3; its mask is text here]."""
    return _variant(pc_plus(), "clipseg/pc", condition="text")


def pc_d128() -> Recipe:
    """CLIPSeg (PC, D=128): the wider decoder, no negatives [phrasecut 2; its mask is text here]."""
    return _variant(pc(), "clipseg/pc-d128", config=ClipSegConfig(taps=(3, 7, 9), reduce_dim=128), items=Phrases())


def deconv_pc() -> Recipe:
    """CLIP-Deconv on bare phrases, no negatives [phrasecut 4; its mask is text here]."""
    return _variant(pc(), "deconv/pc", card="clip-deconv", config=ClipDeconvConfig(), items=Phrases())


def _vitseg(base: Recipe, name: str, lr: float, **options: Any) -> Recipe:
    """``base`` with ViTSeg's network, whose decoder and text tower learn."""
    return _variant(base, name, card="vitseg", lr=lr, config=ClipSegConfig(image=VIT_B16_384, taps=(3, 7, 9)), **options)


def vitseg_pc_plus() -> Recipe:
    """ViTSeg (PC+): only phrases with examples, told by their pictures alone [phrasecut 5]."""
    items = Phrases(negatives=0.2, only_supported=True)
    return _vitseg(pc_plus(), "vitseg/pc-plus", 3e-4, condition="picture", items=items)


def vitseg_pc() -> Recipe:
    """ViTSeg (PC): bare phrases, no negatives [phrasecut 6; its mask is text here]."""
    return _vitseg(pc(), "vitseg/pc", 1e-4, items=Phrases())


# --- ablation ---------------------------------------------------------------------------------------------------------------------------


def ablation_no_pretraining() -> Recipe:
    """PC+ on random towers instead of CLIP's, as the paper says; the published code ignores its option [ablation 1]."""
    return _variant(pc_plus(), "clipseg/ablation-no-pretraining", lr=3e-4, clip=None)


def ablation_no_negatives() -> Recipe:
    """PC+ without negatives [ablation 2]."""
    return _variant(pc_plus(), "clipseg/ablation-no-negatives", items=Phrases())


def ablation_half_negatives() -> Recipe:
    """PC+ with as many negatives as positives [ablation 3]."""
    return _variant(pc_plus(), "clipseg/ablation-half-negatives", items=Phrases(negatives=0.5))


def ablation_no_visual() -> Recipe:
    """PC+ without examples, which is CLIPSeg (PC) [ablation 4; its mask is text here]."""
    return _variant(pc(), "clipseg/ablation-no-visual")


def ablation_d16() -> Recipe:
    """PC+ with a decoder of width 16, published weights too [ablation 5]."""
    return _variant(pc_plus(), "clipseg/ablation-d16", card="clipseg-rd16", config=ClipSegConfig(taps=(3, 7, 9), reduce_dim=16))


def ablation_layer3() -> Recipe:
    """PC+ whose decoder reads one activation and has one block [ablation 6]."""
    return _variant(pc_plus(), "clipseg/ablation-layer3", config=ClipSegConfig(taps=(3,)))


def ablation_highlight() -> Recipe:
    """PC+ whose examples are highlighted instead of cropped [ablation 7]."""
    return _variant(pc_plus(), "clipseg/ablation-highlight", config=ClipSegConfig(taps=(3, 7, 9), technique="blur_highlight"))


# --- Pascal -----------------------------------------------------------------------------------------------------------------------------


def pascal(fold: int) -> Recipe:
    """PC+ without phrases that name a class of a fold of Pascal-5i [pascal_1shot 0-3]."""
    return _variant(pc_plus(), f"clipseg/pascal-fold{fold}", items=Phrases(negatives=0.2, removed=f"pas5i-{fold}"))


def pascal_pc(fold: int) -> Recipe:
    """The same without negatives, texts and examples mixed with any weight; "PC" in the paper's table [pascal_1shot 4-7]."""
    return _variant(pascal(fold), f"clipseg/pascal-pc-fold{fold}", items=Phrases(removed=f"pas5i-{fold}"), mixing=Mixing())


def deconv_pascal(fold: int) -> Recipe:
    """CLIP-Deconv in place of CLIPSeg [pascal_1shot 8-11]."""
    return _variant(pascal_pc(fold), f"deconv/pascal-fold{fold}", card="clip-deconv", config=ClipDeconvConfig())


def vitseg_pascal(fold: int) -> Recipe:
    """ViTSeg in place of CLIPSeg, with negatives [pascal_1shot 12-15]."""
    return _vitseg(pascal(fold), f"vitseg/pascal-fold{fold}", 1e-4)


def zero_shot(unseen: int) -> Recipe:
    """PC+ without phrases that name one of the unseen classes of generalised zero-shot Pascal: 10 is [zs5], 4 is [zs2] [pascal_0shot]."""
    return _variant(pc_plus(), f"clipseg/zero-shot-unseen{unseen}", items=Phrases(negatives=0.2, removed=f"zs-{unseen // 2}"))


# --- generalisation ---------------------------------------------------------------------------------------------------------------------


def generalisation() -> Recipe:
    """PC+ without phrases that hold a word of the test of affordances and parts ("sitting", "wheels") [generalize, never released]."""
    return _variant(pc_plus(), "clipseg/generalisation", items=Phrases(negatives=0.2, removed="aff"))


def generalisation_lvis() -> Recipe:
    """CLIPSeg (LVIS): an example of each category, as the runs on COCO-20i are told; without categories of such words."""
    categories = _variant(pc_plus(), "clipseg/generalisation-lvis", items=Categories(removed="aff"), mixing=Mixing())
    return replace(categories, data="data/lvis")


def deconv_generalisation() -> Recipe:
    """CLIP-Deconv in place of CLIPSeg."""
    return _variant(generalisation(), "deconv/generalisation", card="clip-deconv", config=ClipDeconvConfig())


def vitseg_generalisation() -> Recipe:
    """ViTSeg in place of CLIPSeg, at the rate of its one-shot runs; told by texts too, since the test asks by them."""
    return _vitseg(generalisation(), "vitseg/generalisation", 1e-4)


# --- COCO-20i ---------------------------------------------------------------------------------------------------------------------------


def coco(fold: int) -> Recipe:
    """Episodes of the sixty other classes, texts and examples mixed with any weight, 7,000 steps [coco 0-3]."""
    episodes = _variant(pc_plus(), f"clipseg/coco-fold{fold}", items=Episodes(fold=fold), mixing=Mixing())
    return replace(episodes, data="data/coco20i", steps=7_000)


def coco_negatives(fold: int) -> Recipe:
    """The same with a fifth of examples that show something else; "COCO+N" in the paper's table, which says a tenth [coco 4-7]."""
    return _variant(coco(fold), f"clipseg/coco-negatives-fold{fold}", items=Episodes(fold=fold, negatives=0.2))


def vitseg_coco(fold: int) -> Recipe:
    """ViTSeg in place of CLIPSeg [coco 8-11]."""
    return _vitseg(coco(fold), f"vitseg/coco-fold{fold}", 1e-4)


def deconv_coco(fold: int) -> Recipe:
    """CLIP-Deconv in place of CLIPSeg, with negatives [coco 12-15]."""
    return _variant(coco_negatives(fold), f"deconv/coco-fold{fold}", card="clip-deconv", config=ClipDeconvConfig())


SINGLE = (
    pc_plus, pc_plus_refined, pc, pc_d128, deconv_pc, vitseg_pc_plus, vitseg_pc, ablation_no_pretraining, ablation_no_negatives,
    ablation_half_negatives, ablation_no_visual, ablation_d16, ablation_layer3, ablation_highlight, generalisation, generalisation_lvis,
    deconv_generalisation, vitseg_generalisation,
)  # fmt: skip
FOLDED = (pascal, pascal_pc, deconv_pascal, vitseg_pascal, coco, coco_negatives, vitseg_coco, deconv_coco)

_ALL: tuple[Callable[[], Recipe], ...] = (
    *SINGLE, *(partial(make, fold) for make in FOLDED for fold in FOLDS), *(partial(zero_shot, unseen) for unseen in (10, 4)),
)  # fmt: skip
RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in _ALL}

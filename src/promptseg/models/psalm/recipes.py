"""PSALM's two published stages, the paper's ablations that are settings, and ways to train it with less memory.

Stage 1 teaches the projector alone to speak to the language model, by captions; no script of it was published, its settings are those of
LLaVA v1.0.1, on which the authors say it is based. Stage 2 trains everything but the image encoder on four kinds of data in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from ...contracts import ParameterGroup, Recipe
from ...data.vocabularies import names
from ...errors import ConfigError
from .config import PREPROCESS, LanguageConfig, MaskConfig, PsalmConfig, SwinConfig
from .mixing import warmed_up

Kind: TypeAlias = Literal["panoptic", "referring", "interactive", "conversation"]
LANGUAGE_PARTS = ("qkv", "out", "up", "down")  # linear layers of the language model's blocks, which adapters change


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set of the mix, in paths below the recipe's ``data``.

    ``kind`` "panoptic": ``path`` is COCO's root and ``split`` names the part; else ``path`` are files of questions (`data.instructions`, or
    LLaVA's for "conversation"), one after another, and ``photos`` the folder of their photos. ``ratio``: turns of ``every`` examples each.
    """

    kind: Kind
    path: tuple[str, ...]
    photos: str = "."
    split: str = "train2017"
    ratio: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", tuple(self.path))
        if self.kind not in ("panoptic", "referring", "interactive", "conversation"):
            raise ConfigError(f"kind of a source is panoptic, referring, interactive or conversation, not {self.kind!r}.")
        if self.ratio < 1 or not self.path:
            raise ConfigError(f"A source has a path and a ratio of at least 1, not {self.path} and {self.ratio}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """Weights of the losses and how masks are sampled; see `losses.LossConfig`, which this makes without importing torch."""

    mask: float = 5.0
    dice: float = 5.0
    condition: float = 2.0
    background: float = 0.1
    points: int = 12544


@dataclass(frozen=True, slots=True, kw_only=True)
class PsalmTraining:
    """What only this family's training knows.

    ``config``: the network. ``weights``: files of a whole published checkpoint to begin with; none: random weights. Over these come
    ``language``, files of Phi-1.5, ``masks``, that of a Mask2Former, and ``projector``, that stage 1 left. ``tokenizer``: folder with the
    language model's; None: every byte is a token. ``every``: examples of a source before the next one's turn; a part of a batch must not
    hold two kinds. ``lora``: rank of adapters in the language model, which else learns whole. ``validation``: held-out
    sources, of each of which up to ``validated`` questions are asked after every ``validate_every`` steps.
    """

    sources: tuple[Source, ...]
    config: PsalmConfig = field(default_factory=PsalmConfig)
    weights: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    masks: str | None = None
    projector: str | None = None
    tokenizer: str | None = None
    every: int = 16
    losses: Weighting = field(default_factory=Weighting)
    lora: int | None = None
    validation: tuple[Source, ...] = ()
    validated: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "validation", tuple(self.validation))
        object.__setattr__(self, "weights", tuple(self.weights))
        object.__setattr__(self, "language", tuple(self.language))
        if not self.sources or self.every < 1:
            raise ConfigError("Training needs at least one source, and every is at least 1.")
        if len({source.kind for source in self.validation}) < len(self.validation):
            raise ConfigError("validation has one source of each kind; a source may have several files.")
        if self.validated < 1:
            raise ConfigError(f"validated is at least 1 question of each source, not {self.validated}.")
        if self.lora is not None and self.lora < 1:
            raise ConfigError(f"lora is the rank of adapters, at least 1, or null, not {self.lora}.")


PANOPTIC = Source(kind="panoptic", path=("coco",))
REFERRING = Source(
    kind="referring", path=tuple(f"{name}/train.json" for name in ("refcoco", "refcoco+", "refcocog")), photos="coco/train2014"
)
INTERACTIVE = Source(kind="interactive", path=("coco/instances_train2017_interactive.json",), photos="coco/train2017")
CONVERSATIONS = Source(kind="conversation", path=("llava/llava_v1_5_mix665k.json",), photos="llava")
CAPTIONS = Source(kind="conversation", path=("llava-pretrain/blip_laion_cc_sbu_558k.json",), photos="llava-pretrain")
PHI = ("phi-1_5_dev/model.safetensors",)
MASK2FORMER = "model_final_54b88a.pkl"  # maskformer2_swin_base_IN21k_384_bs16_50ep, COCO panoptic
FROZEN = ParameterGroup(pattern="vision.*", frozen=True)
HANDFUL_STEPS = 1500
ALIGNMENT_STEPS = 4361  # one epoch of 558,128 captions, 128 at a time


def stage1() -> Recipe:
    """Alignment: only the projector learns."""
    return Recipe(
        name="psalm/stage1", card="psalm", data="data", output="runs/psalm/stage1", steps=ALIGNMENT_STEPS, batch_size=128, lr=2e-3,
        schedule=warmed_up(ALIGNMENT_STEPS), groups=(ParameterGroup(pattern="projector.*"), ParameterGroup(pattern="*", frozen=True)),
        weight_decay=0.0, ema=None, accumulate=8, precision="bfloat16", checkpointing=("language.blocks.*",), workers=8,
        options=PsalmTraining(sources=(CAPTIONS,), language=PHI, masks=MASK2FORMER, tokenizer="phi-1_5_dev"),
    )  # fmt: skip


def stage2() -> Recipe:
    """Joint training: everything but the image encoder learns, in half precision; gradients were probably not clipped."""
    return Recipe(
        name="psalm/stage2", card="psalm", data="data", output="runs/psalm/stage2", steps=56_000, batch_size=64, lr=6e-5,
        schedule=warmed_up(56_000), groups=(FROZEN,), weight_decay=0.0, clip=None, ema=None, accumulate=16, precision="float16",
        checkpointing=("language.blocks.*",), workers=8,
        options=PsalmTraining(
            sources=(PANOPTIC, REFERRING, INTERACTIVE, CONVERSATIONS), language=PHI, masks=MASK2FORMER,
            projector="runs/psalm/stage1/model.safetensors", tokenizer="phi-1_5_dev",
        ),
    )  # fmt: skip


def handful() -> Recipe:
    """A tiny network from random weights, to learn a few photographs by heart, every task at once: `benchmarks/psalm_handful.py`."""
    config = PsalmConfig(
        vision=SwinConfig(width=16, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), window=4, drop_path=0.0),
        language=LanguageConfig(vocabulary=297, width=64, hidden=128, layers=2, heads=4),
        masks=MaskConfig(width=64, queries=12, encoder_layers=1, encoder_hidden=128, layers=3, heads=4, hidden=128, groups=8),
        projector=64, region_points=64, preprocess=replace(PREPROCESS, size=128),
    )  # fmt: skip
    sources = (
        Source(kind="panoptic", path=(".",), split="val2017"),
        Source(kind="referring", path=("val.json",), photos="val2017"),
        Source(kind="interactive", path=("instances_val2017_interactive.json",), photos="val2017"),
    )
    return Recipe(
        name="psalm/handful", card="psalm", data="data/handful", output="runs/psalm/handful", steps=HANDFUL_STEPS, batch_size=4, lr=1e-3,
        schedule=warmed_up(HANDFUL_STEPS), weight_decay=0.0, ema=None,
        options=PsalmTraining(sources=sources, config=config, every=4, losses=Weighting(points=784)),
    )  # fmt: skip


def _variant(name: str, about: str, precision: Literal["bfloat16", "float16"] = "float16", **options: Any) -> Callable[[], Recipe]:
    """Stage 2 with other options; ``about`` it, a line for `promptseg train list`."""

    def make() -> Recipe:
        run = stage2()
        changed = replace(run.options, **options)
        return replace(run, name=f"psalm/{name}", output=f"runs/psalm/{name}", options=changed, precision=precision)

    make.__doc__ = about
    return make


_ALL: tuple[Callable[[], Recipe], ...] = (
    stage1,
    stage2,
    handful,
    _variant("stage2-bf16", "Stage 2 in bfloat16.", "bfloat16"),
    _variant("stage2-lora", "Stage 2 in bfloat16, the language model by adapters of rank 16.", "bfloat16", lora=16),
    _variant("ablation-no-alignment", "Stage 2 without stage 1.", projector=None),
    _variant("ablation-no-mask-tokens", "Queries that do not go through the language model.", config=PsalmConfig(queries="table")),
    _variant(
        "ablation-reference-token",
        "Names and sentences by their last token instead of the mean of all.",
        config=PsalmConfig(condition="last"),
    ),
    _variant(
        "ablation-coupled-classes",
        "A classifier of COCO's classes, learned with the masks, in place of names; made our way.",
        config=PsalmConfig(classes=names("coco-panoptic133")),
    ),
    _variant("ablation-one-proposal", "A single query.", config=PsalmConfig(masks=MaskConfig(queries=1))),
    _variant("ablation-panoptic-only", "Panoptic maps alone.", sources=(PANOPTIC,)),
    _variant("ablation-referring-only", "Referring sentences alone.", sources=(REFERRING,)),
    _variant("ablation-interactive-only", "Points, scribbles, boxes and masks alone.", sources=(INTERACTIVE,)),
)
RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in _ALL}

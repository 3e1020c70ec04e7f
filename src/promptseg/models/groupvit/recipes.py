"""GroupViT's published training runs and the paper's ablations (paper, sections 4.1 and 4.2; published configurations).

A recipe names only what differs from the one that it changes. The paper's ablations look at one stage, trained on CC12M; their networks are
its own, all else is as in the published runs, whose files the authors did not publish for these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...contracts import ParameterGroup, Recipe
from ...errors import ConfigError
from ...nn.clip_config import ClipTextConfig
from ...training.schedules import Cosine, Warmup
from .augment import CaptionAugmentation
from .config import GroupVitConfig, GroupVitImageConfig
from .tagging import TaggerName
from .words import WordType

BATCH, EPOCHS, WARMUP_EPOCHS = 4096, 30, 2
GCC3M, GCC12M, YFCC14M, REDCAP12M = 2_891_445, 11_156_203, 14_615_499, 11_866_987  # photos with captions


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionOptions:
    """What only this family's training knows.

    ``config``: the network; its ``multi_label`` is how many prompts are made of a caption. ``word_type`` and ``tagger``: of what, see
    `words.candidates` and `tagging.tagger`. ``multi_label_weight``: of that loss. ``held_out``: photos whose name's check sum (crc32)
    leaves 1 when divided by this are kept for validation, which finds captions by photos and photos by captions; None: none.
    """

    config: GroupVitConfig = field(default_factory=GroupVitConfig)
    augmentation: CaptionAugmentation = field(default_factory=CaptionAugmentation)
    word_type: WordType = "noun"
    tagger: TaggerName = "auto"
    multi_label_weight: float = 1.0
    held_out: int | None = None

    def __post_init__(self) -> None:
        if self.held_out is not None and self.held_out < 2:
            raise ConfigError(f"held_out is at least 2, which keeps half of the photos for validation, or null; not {self.held_out}.")
        if self.multi_label_weight < 0:
            raise ConfigError(f"multi_label_weight is at least 0, not {self.multi_label_weight}.")


def schedule(warmup: int, start: float = 0.0025, minimum: float = 4e-5) -> Warmup:
    """A straight rise over ``warmup`` steps from the share ``start`` of the rate, standing in place of the beginning of a cosine.

    The cosine counts from step 0, so the rate drops where the rise ends. The published loop sets the rate of step t after step t: there
    the first two steps have the rate of step 0.
    """
    return Warmup(steps=warmup, start=start, main=Cosine(minimum=minimum), join="replace")


def decays(name: str, dimensions: int) -> bool:
    """Whether weight decay acts on a parameter: not on vectors and biases, but on the temperatures, which have no dimension."""
    return dimensions != 1 and not name.endswith(".bias")


# the same rule by our names: biases, and the weights of norms, those in sequences too
NOT_DECAYED = ParameterGroup(
    pattern="*.bias|*norm*.weight|*.group_projector.0.weight|*.group_projector.0.0.weight|*.group_projector.1.weight|*.reduction.0.weight"
    "|*_projector.hidden.[147].weight",
    weight_decay=0.0,
)


def _recipe(name: str, card: str, data: str, photos: int, config: GroupVitConfig) -> Recipe:
    per_epoch = photos // BATCH
    return Recipe(
        name=name, card=card, data=f"data/{data}", output=f"runs/{name}", steps=EPOCHS * per_epoch, batch_size=BATCH, lr=1.6e-3,
        schedule=schedule(WARMUP_EPOCHS * per_epoch), groups=(NOT_DECAYED,), weight_decay=0.05, clip=5.0, ema=None, precision="float16",
        workers=6, options=CaptionOptions(config=config),
    )  # fmt: skip


def gcc_yfcc() -> Recipe:
    """The published weights: CC3M, CC12M and YFCC14M, three prompts per caption [group_vit_gcc_yfcc_30e]."""
    return _recipe("groupvit/gcc-yfcc", "groupvit-gcc-yfcc", "gcc-yfcc", GCC3M + GCC12M + YFCC14M, GroupVitConfig())


def gcc_redcap() -> Recipe:
    """The other published weights: RedCaps12M in place of YFCC, captions alone [group_vit_gcc_redcap_30e]."""
    photos = GCC3M + GCC12M + REDCAP12M
    return _recipe("groupvit/gcc-redcap", "groupvit-gcc-redcap", "gcc-redcap", photos, GroupVitConfig(multi_label=0))


# --- ablations ----------------------------------------------------------------------------------------------------------------------------


def one_stage(*, hard: bool = True, tokens: int = 64, groups: int = 8) -> GroupVitImageConfig:
    """Twelve blocks with one grouping in their middle (paper, section 4.1)."""
    return GroupVitImageConfig(factors=(1, 1), depths=(6, 6), heads=(6, 6), group_tokens=(tokens, 0), output_groups=(groups,), hard=hard)


def _ablation(name: str, about: str, image: GroupVitImageConfig, multi_label: int = 3) -> Callable[[], Recipe]:
    """A network on CC12M; ``about`` it, a line for `promptseg train list`."""

    def make() -> Recipe:
        config = GroupVitConfig(image=image, multi_label=multi_label)
        return _recipe(f"groupvit/ablation-{name}", "groupvit-gcc-yfcc", "gcc12m", GCC12M, config)

    make.__doc__ = about
    return make


ABLATIONS: tuple[Callable[[], Recipe], ...] = (
    # table 1: hard or soft assignment, with and without the loss on prompts
    _ablation("hard", "One stage, hard assignment, captions alone.", one_stage(), multi_label=0),
    _ablation("soft", "One stage, soft assignment, captions alone.", one_stage(hard=False), multi_label=0),
    _ablation("hard-multilabel", "One stage, hard assignment, three prompts per caption.", one_stage()),
    _ablation("soft-multilabel", "One stage, soft assignment, three prompts per caption.", one_stage(hard=False)),
    # table 2: how many group tokens and how many segments; 64 and 8 is hard-multilabel
    *(
        _ablation(f"tokens{count}", f"hard-multilabel with {count} group tokens instead of 64.", one_stage(tokens=count))
        for count in (16, 32)
    ),
    *(_ablation(f"outputs{count}", f"hard-multilabel with {count} segments instead of 8.", one_stage(groups=count)) for count in (4, 16)),
    # table 3: two stages; one is hard-multilabel
    _ablation("two-stages", "hard-multilabel with the published two stages.", GroupVitImageConfig()),
)

# --- small --------------------------------------------------------------------------------------------------------------------------------


def flickr8k() -> Recipe:
    """A few hundred photographs with five captions each, for two cores and ten minutes; every fifth is held out."""
    image = GroupVitImageConfig(size=96, width=128, depths=(2, 2, 1), heads=(4, 4, 4), group_tokens=(16, 8, 0), output_groups=(16, 8))
    text = ClipTextConfig(width=128, layers=2, heads=2, embed=128, context=77)
    config = GroupVitConfig(image=image, text=text, embed=128, preprocess=replace(GroupVitConfig().preprocess, size=96))
    return Recipe(
        name="groupvit/flickr8k", card="groupvit-gcc-yfcc", data="data/flickr8k", output="runs/groupvit/flickr8k", steps=480, batch_size=96,
        lr=1e-3, schedule=Warmup(steps=40, start=0.01, main=Cosine(minimum=1e-5)), groups=(NOT_DECAYED,), weight_decay=0.05, clip=5.0,
        ema=None, workers=1, validate_every=60,
        options=CaptionOptions(
            config=config, held_out=5, tagger="pattern", augmentation=CaptionAugmentation(operations=0, scale=(0.3, 1.0))
        ),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in (gcc_yfcc, gcc_redcap, *ABLATIONS, flickr8k)}

"""CAT-Seg's published runs and the ablations of its paper, each naming only what differs.

All train on COCO-Stuff with 171 classes: 80,000 steps of 4 photos, AdamW at 2e-4, CLIP at a hundredth of it. Published files exist for
`base` and `large`; the ablations change what the paper says. It does not say how many prompt tokens there were: 50 in each of the 12
blocks is our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from ...contracts import ParameterGroup, Recipe
from ...errors import ConfigError
from ...training.schedules import Cosine
from .cards import vitb_384, vitl_336
from .config import CatSegConfig

Mode: TypeAlias = Literal["frozen", "prompt", "attention", "query-value", "full"]

# Names of CLIP's parameters that learn in each mode. "query-value" is what the published files call "attention".
LEARNING: dict[str, tuple[str, ...]] = {
    "frozen": (),
    "prompt": ("image_prompts",),
    "attention": ("image.blocks.*.attn.*", "text.blocks.*.attn.*"),
    "query-value": ("image.blocks.*.attn.qkv.weight", "text.blocks.*.attn.qkv.weight"),
    "full": ("image.blocks.*", "text.blocks.*"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatSegTraining:
    """What only this family's training knows.

    ``config``: the network, with the ``pooling`` of training. ``clip``: CLIP's own file; None: random towers. ``mode``: which of its
    weights learn. ``validation``: photos of the validation split that are looked at, spread evenly over it.
    """

    config: CatSegConfig
    clip: str | None = None
    mode: Mode = "query-value"
    crop: int = 384  # shorter side of the resized photos, and of the squares that are cut out of them; pixels
    validation: int = 500

    def __post_init__(self) -> None:
        if self.mode not in LEARNING:
            raise ConfigError(f"mode is one of {', '.join(LEARNING)}, not {self.mode!r}.")
        if min(self.validation, self.crop) < 1:
            raise ConfigError(f"validation and crop are at least 1, not {self.validation} and {self.crop}.")


def groups(mode: Mode, factor: float = 0.01) -> tuple[ParameterGroup, ...]:
    """Groups of the official runs: CLIP at ``factor`` of the rate [CLIP_MULTIPLIER], norms of the rest without weight decay."""
    norms = ParameterGroup(pattern="aggregator.*norm*", weight_decay=0.0)
    return (ParameterGroup(pattern="|".join(LEARNING[mode]), lr=factor), norms) if LEARNING[mode] else (norms,)


def base() -> Recipe:
    """CLIP ViT-B/16 [configs/vitb_384.yaml]."""
    return Recipe(
        name="catseg/base", card="catseg-base", data="data/coco-stuff", output="runs/catseg/base", steps=80_000, batch_size=4, lr=2e-4,
        schedule=Cosine(), groups=groups("query-value"), weight_decay=1e-4, clip=0.01, ema=None, workers=8, validate_every=5000,
        options=CatSegTraining(config=replace(vitb_384(), pooling=2), clip="ViT-B-16.pt"),
    )  # fmt: skip


def large() -> Recipe:
    """CLIP ViT-L/14@336px [configs/vitl_336.yaml]."""
    options = CatSegTraining(config=replace(vitl_336(), pooling=2), clip="ViT-L-14-336px.pt")
    return replace(base(), name="catseg/large", card="catseg-large", output="runs/catseg/large", options=options)


def _variant(name: str, about: str, mode: Mode = "query-value", **config: Any) -> Callable[[], Recipe]:
    """The base run with another network or mode of fine-tuning; ``about`` it, a line for `promptseg train list`."""

    def make() -> Recipe:
        run = base()
        options = replace(run.options, config=replace(run.options.config, **config), mode=mode)
        return replace(run, name=f"catseg/{name}", output=f"runs/catseg/{name}", groups=groups(mode), options=options)

    make.__doc__ = about
    return make


_ALL: tuple[Callable[[], Recipe], ...] = (
    base,
    large,
    _variant("ablation-no-spatial", "Without spatial aggregation.", spatial=False),
    _variant("ablation-no-class", "Without class aggregation.", classes=False),
    _variant("ablation-no-aggregation", "Without both: the bare cost volume, upsampled.", spatial=False, classes=False),
    _variant("ablation-no-guidance", "The aggregation is not guided by the embeddings.", image_guidance=0, text_guidance=0),
    _variant("ablation-no-decoder-guidance", "The decoder is not fed by CLIP's intermediate blocks.", decoder_guidance=(0, 0)),
    _variant(
        "ablation-no-decoder",
        "Without the decoder: one convolution, at the grid of CLIP's patches; what replaces it is ours.",
        decoder=(),
        decoder_guidance=(0, 0),
    ),
    _variant("ablation-full-class-attention", "Softmax attention over the classes.", attention="full"),
    _variant("ablation-frozen", "CLIP is frozen.", "frozen"),
    _variant("ablation-prompt", "50 prompt tokens in each block of CLIP learn; their number is ours.", "prompt", visual_prompts=(12, 50)),
    _variant("ablation-attention", "All of CLIP's attention learns.", "attention"),
    _variant("ablation-full", "All of CLIP's blocks learn.", "full"),
)
RECIPES: dict[str, Callable[[], Recipe]] = {make().name: make for make in _ALL}

"""All that builds GroupViT and its ablations; stored as ``config.json`` beside the weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...contracts import Options, Preprocess
from ...errors import ConfigError
from ...nn.clip_config import ClipTextConfig

HIDDEN = 4096  # width of the projectors' hidden layers (GroupViT code)
CROP, STRIDE = 448, 224  # windows of the published evaluation, pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVitImageConfig:
    """The image encoder (paper, section 3.1; their names in brackets). One entry per stage, the last of which does not group.

    Raises:
        ConfigError: values that build no network.
    """

    size: int = 224  # side of the photos in training, pixels [img_size]
    patch: int = 16
    width: int = 384  # what the factors multiply [embed_dim]
    factors: tuple[int, ...] = (1, 1, 1)  # a stage's width is ``width`` times its factor [embed_factors]
    depths: tuple[int, ...] = (6, 3, 3)
    heads: tuple[int, ...] = (6, 6, 6)
    group_tokens: tuple[int, ...] = (64, 8, 0)  # learned tokens that join the stage [num_group_tokens]
    output_groups: tuple[int, ...] = (64, 8)  # segments that leave it, one entry less than stages [num_output_groups]
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    patch_norm: bool = True
    hard: bool = True  # every token to one segment (straight-through, Gumbel noise in training); False: shares [hard_assignment]
    positions: Literal["simple", "fourier"] = "simple"  # learned, or fixed sines and cosines [pos_embed_type]
    drop_path: float = 0.1  # share of blocks skipped in training, rising from 0 to this [drop_path_rate]

    def __post_init__(self) -> None:
        for name in ("factors", "depths", "heads", "group_tokens", "output_groups"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come out of config.json
        stages = len(self.depths)
        if stages < 2 or {len(self.factors), len(self.heads), len(self.group_tokens)} != {stages} or len(self.output_groups) != stages - 1:
            raise ConfigError(
                "factors, depths, heads and group_tokens have one entry per stage, at least two, and output_groups one less; "
                f"not {self.factors}, {self.depths}, {self.heads}, {self.group_tokens} and {self.output_groups}."
            )
        if min((*self.factors, *self.depths, *self.heads, *self.output_groups, *self.group_tokens[:-1])) < 1 or self.group_tokens[-1]:
            raise ConfigError("Every stage but the last groups, with at least one group token and one output group; the last has none.")
        if any(width % heads for width, heads in zip(self.widths, self.heads, strict=True)):
            raise ConfigError(f"The widths {self.widths} of the stages must be multiples of their heads {self.heads}.")
        if self.size % self.patch:
            raise ConfigError(f"size ({self.size}) must be a multiple of patch ({self.patch}).")
        if self.positions not in ("simple", "fourier") or (self.positions == "fourier" and self.width % 4):
            raise ConfigError("positions is 'simple', or 'fourier', for which width must be a multiple of 4.")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path is a share, from 0 to below 1, not {self.drop_path}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Of every stage."""
        return tuple(self.width * factor for factor in self.factors)

    @property
    def grid(self) -> int:
        """Side of the position table, in patches."""
        return self.size // self.patch

    @property
    def stages(self) -> int:
        """How many."""
        return len(self.depths)


def _text() -> ClipTextConfig:
    return ClipTextConfig(width=256, layers=12, heads=4, embed=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVitConfig:
    """Both encoders and what joins them.

    Raises:
        ConfigError: values that build no network.
    """

    image: GroupVitImageConfig = field(default_factory=GroupVitImageConfig)
    text: ClipTextConfig = field(default_factory=_text)
    embed: int = 256  # dimensions of the space that both are projected to [output_dim]
    projector_layers: int = (
        2  # 0: none, then ``embed`` counts for nothing; above 1 there are hidden layers of 4096 with batch norm [proj_num_layers]
    )
    multi_label: int = 3  # prompts made of a caption's nouns in training; 0: none, and no temperature of their own
    share_temperature: bool = False  # one temperature for both losses
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=448, fit="native", rounded=True))

    def __post_init__(self) -> None:
        if self.text.embed != self.text.width:
            raise ConfigError("The text tower of GroupViT has no projection of its own: text.embed is text.width.")
        if self.projector_layers < 0 or self.multi_label < 0:
            raise ConfigError("projector_layers and multi_label are at least 0.")

    @property
    def own_temperature(self) -> bool:
        """Whether the multi-label loss has a temperature of its own."""
        return self.multi_label > 0 and not self.share_temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVitOptions(Options):
    """How GroupViT looks at a photo and names what it sees (paper, section 4.2; published evaluation code).

    ``size``: pixels of the photo's shorter side, as far as the longer stays within 2048. ``mode``: "whole" looks once; "slide" moves a
    window of ``crop`` pixels by ``stride`` pixels, at most ``crop``, and averages, as for all published figures. None: as published (448,
    slide, 448, 224). ``fit`` "native" keeps the aspect, "stretch" makes a square of it; windows in photo pixels (``tile``) are not for this
    family.

    Raises:
        ConfigError: values that are not allowed, windows that leave pixels out, or windows for one look.
    """

    mode: Literal["whole", "slide"] | None = None
    crop: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if self.mode not in (None, "whole", "slide"):
            raise ConfigError(f"mode is 'whole' or 'slide', not {self.mode!r}.")
        if (self.crop is not None and self.crop < 16) or (self.stride is not None and self.stride < 1):
            raise ConfigError(f"crop is at least 16 and stride at least 1 pixel, not {self.crop} and {self.stride}.")
        if self.mode == "whole" and (self.crop is not None or self.stride is not None):
            raise ConfigError("mode='whole' looks once, without windows: leave crop and stride out, or take mode='slide'.")
        crop, stride = self.windows
        if stride > crop:
            raise ConfigError(f"Windows of {crop} pixels every {stride} pixels leave some out: give a crop and a stride of at most that.")

    @property
    def windows(self) -> tuple[int, int]:
        """Crop and stride as they are used."""
        return self.crop or CROP, self.stride or STRIDE

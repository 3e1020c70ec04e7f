"""All that builds CAT-Seg and its ablations, and how a user may ask it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ...contracts import Options, Preprocess
from ...data.vocabularies import templates
from ...errors import ConfigError
from ...nn.clip_config import ClipTextConfig, ClipVisionConfig

(TEMPLATE,) = templates("scene")  # the only wording of the published models
CLIP_MEAN = (122.7709383 / 255, 116.7460125 / 255, 104.09373615 / 255)
CLIP_STD = (68.5005327 / 255, 66.6321579 / 255, 70.3231630 / 255)


def _preprocess() -> Preprocess:
    """Photos are first resized as detectron2's test loader does; see `views`."""
    return Preprocess(size=640, fit="native", antialias=True, mean=CLIP_MEAN, std=CLIP_STD)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatSegConfig:
    """The network of the CAT-Seg paper and the variants of its published code (names of its configuration files in brackets).

    Raises:
        ConfigError: values that build no network.
    """

    image: ClipVisionConfig = field(default_factory=lambda: ClipVisionConfig(width=768, layers=12, heads=12, patch=16, grid=14, embed=512))
    text: ClipTextConfig = field(default_factory=lambda: ClipTextConfig(width=512, layers=12, heads=8, embed=512))
    preprocess: Preprocess = field(default_factory=_preprocess)
    side: int = 384  # of the square that CLIP is shown, pixels
    taps: tuple[int, int] = (3, 7)  # image-tower blocks, 0-based, that guide the decoder: the earlier the coarser stage
    hidden: int = 128  # width of the cost embedding [hidden_dims]
    layers: int = 2  # pairs of spatial and class aggregation [num_layers]
    heads: int = 4
    window: int = 12  # side of the attention windows, in cells [window_sizes]
    text_guidance: int = 128  # width of the projected text embeddings that guide class aggregation; 0: no guidance
    image_guidance: int = 128  # the same for image embeddings and spatial aggregation [appearance_guidance_proj_dim]
    decoder: tuple[int, ...] = (64, 32)  # widths of the two upsampling stages [decoder_dims]; (): no decoder, logits at CLIP's own grid
    tapped: tuple[int, int] = (256, 128)  # widths to which the taps are upsampled [decoder_guidance_dims]
    decoder_guidance: tuple[int, int] = (32, 16)  # and then projected [decoder_guidance_proj_dims]; 0: not made, no guidance
    attention: Literal["linear", "full"] = "linear"  # over classes
    prompts: int = 1  # wordings of which each is a channel of the cost volume [prompt_channel]
    pad_classes: int = 256  # fewer classes are filled up with learned ones [pad_len]; 0: never
    pooling: int = 1  # side of the cells over which class aggregation averages; 2 in training [pooling_size]
    spatial: bool = True  # ablation: without spatial aggregation
    classes: bool = True  # ablation: without class aggregation
    visual_prompts: tuple[int, int] = (0, 0)  # blocks that see learned prompt tokens, and how many [prompt_depth, prompt_length]

    def __post_init__(self) -> None:
        for name in ("taps", "decoder", "tapped", "decoder_guidance", "visual_prompts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come out of config.json
        if self.image.embed != self.text.embed:
            raise ConfigError(f"Both towers must embed into one space: {self.image.embed} and {self.text.embed} dimensions were given.")
        if self.side % self.image.patch:
            raise ConfigError(f"side is a multiple of the patch ({self.image.patch}), not {self.side}.")
        if not 0 <= self.taps[0] < self.taps[1] < self.image.layers - 1:
            raise ConfigError(f"taps are two rising image-tower blocks, 0 to {self.image.layers - 2}, not {self.taps}.")
        if self.hidden % self.heads:
            raise ConfigError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads}).")
        if self.attention not in ("linear", "full"):
            raise ConfigError(f"attention is 'linear' or 'full', not {self.attention!r}.")
        if min(self.layers, self.prompts, self.pooling, self.window) < 1 or self.pad_classes < 0:
            raise ConfigError("layers, prompts, pooling and window are at least 1, pad_classes at least 0.")
        if len(self.decoder) not in (0, 2) or (not self.decoder and any(self.decoder_guidance)):
            raise ConfigError(f"decoder holds the widths of two stages, or none and decoder_guidance (0, 0), not {self.decoder}.")
        if any(width % 16 for width in self.decoder) or self.decoder_guidance[0] >= self.hidden:
            raise ConfigError(f"decoder holds multiples of 16, the width of its normalised groups, not {self.decoder}.")

    @property
    def grid(self) -> int:
        """Side of the cost volume, in cells."""
        return self.side // self.image.patch

    @property
    def output(self) -> int:
        """Side of the logits: every stage of the decoder doubles the grid."""
        return self.grid << len(self.decoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatSegOptions(Options):
    """How CAT-Seg is asked.

    ``mode``: "slide", four overlapping windows and the whole photo, as all published figures; "whole", one look, five times as fast.
    ``max_classes``: only so many classes, those whose cost is largest anywhere in the view, are aggregated; the others count as absent.
    Approximate, and off (None) unless asked for. ``truncate``: the published code's rule, the 256 of largest cost, in its place.
    """

    mode: Literal["slide", "whole"] = "slide"
    max_classes: int | None = None
    truncate: bool = False

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if self.mode not in ("slide", "whole"):
            raise ConfigError(f"mode is 'slide' or 'whole', not {self.mode!r}.")
        if self.max_classes is not None and self.max_classes < 1:
            raise ConfigError(f"max_classes is at least 1, or None for all, not {self.max_classes}.")
        if self.fit is not None or self.size is not None:
            raise ConfigError("CAT-Seg always sees squares of one size; leave fit and size out, and choose with mode or tile.")

    def decoding(self) -> dict[str, Any]:
        """Keyword arguments of `Model.decode`."""
        return {"max_classes": self.max_classes, "truncate": self.truncate}

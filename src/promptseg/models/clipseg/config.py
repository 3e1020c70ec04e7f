"""All that builds CLIPSeg and the two baselines of its paper; stored as ``config.json`` beside the weights. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...contracts import Preprocess
from ...errors import ConfigError
from ...nn.clip_config import ClipTextConfig, ClipVisionConfig


def _vit_b16() -> ClipVisionConfig:
    return ClipVisionConfig(width=768, layers=12, heads=12, patch=16, grid=14, embed=512)


def _text() -> ClipTextConfig:
    return ClipTextConfig(width=512, layers=12, heads=8, embed=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class VitConfig:
    """Sizes of timm's vision transformer; every image is stretched to ``size`` x ``size`` pixels, ``embed`` is the width of its head."""

    width: int
    layers: int
    heads: int
    patch: int
    size: int
    embed: int

    def __post_init__(self) -> None:
        if self.width % self.heads or self.size % self.patch:
            raise ConfigError(f"width must be a multiple of heads and size one of patch, not {self}.")


VIT_B16_384 = VitConfig(width=768, layers=12, heads=12, patch=16, size=384, embed=512)  # timm's vit_base_patch16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSegConfig:
    """The network of the CLIPSeg paper and every variant of its published code (constructor of `CLIPDensePredT`, their names in brackets).

    With a `VitConfig` as ``image`` it is ViTSeg, the baseline whose image tower has only seen ImageNet (`VITDensePredT`).

    Raises:
        ConfigError: values that build no network.
    """

    image: ClipVisionConfig | VitConfig = field(default_factory=_vit_b16)
    text: ClipTextConfig = field(default_factory=_text)
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=352, multiple=16))  # ImageNet mean and std, also into CLIP
    taps: tuple[int, ...] = (3, 6, 9)  # image-tower blocks that the decoder reads, 0-based [extract_layers]; paper and training: (3, 7, 9)
    reduce_dim: int = 64  # decoder width
    heads: int = 4  # of the decoder's attention [n_heads]
    hidden: int = 2048  # of the decoder's feed-forward layers
    dropout: float = 0.1  # in the decoder's blocks while it is trained
    cond_layer: int = 0  # decoder block before which FiLM acts
    extra_blocks: int = 0  # further decoder blocks, each with a skip around it
    reverse_taps: bool = False  # shallowest tap first instead of deepest first [rev_activations]
    reduce_cond: int | None = None  # width to which a frozen random projection brings the condition before FiLM
    fix_shift: bool = False  # a frozen vector added to text conditions
    head_kernel: int | None = None  # kernel and stride of the mask head; None: the patch size [trans_conv]
    refined: bool = False  # three-layer mask head [complex_trans_conv]
    n_tokens: int | None = None  # patches per side: the patch kernel is resized to fit, the logits to the input
    upsample: bool = False  # in the published constructor, where it always fails
    technique: str = "crop_blur_highlight352"  # how an exemplar is shown when it does not say; see `prompts.TECHNIQUES`

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))  # lists come out of config.json
        if self.upsample:
            raise ConfigError(
                "upsample puts a convolution of reduce_dim channels behind a head of one channel: it never worked. Leave it out."
            )
        if not self.taps or sorted(set(self.taps)) != sorted(self.taps) or not 0 < min(self.taps) <= max(self.taps) < self.image.layers:
            raise ConfigError(f"taps are distinct image-tower blocks, 1 to {self.image.layers - 1}, not {self.taps}.")
        if not 0 <= self.cond_layer < len(self.taps):
            raise ConfigError(f"cond_layer is one of the {len(self.taps)} decoder blocks, counted from 0, not {self.cond_layer}.")
        if self.reduce_dim % self.heads:
            raise ConfigError(f"reduce_dim ({self.reduce_dim}) must be a multiple of heads ({self.heads}).")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is the share of values left out in training, from 0 to below 1, not {self.dropout}.")
        if self.kernel < (4 if self.refined else 1):
            raise ConfigError(f"head_kernel is at least 1, and 4 for the refined head, which quarters it; not {self.kernel}.")
        if self.n_tokens is not None and isinstance(self.image, VitConfig):
            raise ConfigError("n_tokens resizes CLIP's patches; ViTSeg's image tower has patches of one size. Leave it out.")
        _check_one_space(self.image, self.text)

    @property
    def kernel(self) -> int:
        """Side, in logits, of one token of the mask head."""
        return self.image.patch if self.head_kernel is None else self.head_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipDeconvConfig:
    """CLIP-Deconv, the baseline without a transformer: one activation, FiLM, two linear layers, mask head (`CLIPDenseBaseline`).

    Raises:
        ConfigError: values that build no network.
    """

    image: ClipVisionConfig = field(default_factory=_vit_b16)
    text: ClipTextConfig = field(default_factory=_text)
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=352, multiple=16))
    tap: int = 9  # image-tower block that is read, 0-based [extract_layer]
    reduce_dim: int = 64  # decoder width; the published runs' (its constructor's is 128)
    hidden: int = 64  # width between the two linear layers [reduce2_dim]
    reduce_cond: int | None = None  # as in `ClipSegConfig`
    n_tokens: int | None = None  # the patch kernel is resized to so many patches per side; logits are not resized, as published
    technique: str = "crop_blur_highlight352"  # as in `ClipSegConfig`

    def __post_init__(self) -> None:
        if not 0 <= self.tap < self.image.layers:
            raise ConfigError(f"tap is an image-tower block, 0 to {self.image.layers - 1}, not {self.tap}.")
        _check_one_space(self.image, self.text)

    @property
    def taps(self) -> tuple[int, ...]:
        """The one block that is read."""
        return (self.tap,)


def _check_one_space(image: ClipVisionConfig | VitConfig, text: ClipTextConfig) -> None:
    if image.embed != text.embed:
        raise ConfigError(f"Both towers must embed into one space: {image.embed} and {text.embed} dimensions were given.")

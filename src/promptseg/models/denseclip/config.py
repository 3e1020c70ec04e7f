"""All that builds DenseCLIP, its baselines and its variants, for segmentation and for detection. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypeVar

from ...contracts import Options, Preprocess
from ...errors import ConfigError
from ...nn.clip_config import AttentionPoolConfig, ClipResNetConfig, ClipTextConfig, ClipVisionConfig
from ...nn.efficientnet_config import VARIANTS, tap_widths

Kind = TypeVar("Kind", bound=Options)

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's own


# --- image encoders ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetBackbone:
    """CLIP's residual network; without ``pool`` it embeds nothing (the baselines)."""

    layers: tuple[int, int, int, int]
    width: int = 64
    pool: AttentionPoolConfig | None = None
    kind: Literal["resnet"] = "resnet"

    @property
    def network(self) -> ClipResNetConfig:
        """What `nn.clip_resnet.ClipResNet` takes."""
        return ClipResNetConfig(layers=self.layers, width=self.width, pool=self.pool)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four levels."""
        return self.network.channels

    @property
    def embed(self) -> int | None:
        """Dimensions of the embeddings; None: it gives none."""
        return None if self.pool is None else self.pool.embed


@dataclass(frozen=True, slots=True, kw_only=True)
class VitBackbone:
    """CLIP's vision transformer with the layers that make four levels of the activations after ``taps`` (blocks, 0-based).

    ``embed`` None: it embeds nothing (the baseline). ``drop_path``: share of training images whose last block is skipped; it grows
    linearly with the depth.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: Literal[8, 16] = 16
    grid: int = 40
    taps: tuple[int, ...] = (3, 5, 7, 11)
    embed: int | None = 512
    drop_path: float = 0.0
    kind: Literal["vit"] = "vit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))  # lists come out of config.json
        if self.patch not in (8, 16):
            raise ConfigError(f"patch is 8 or 16, not {self.patch!r}.")
        if sorted(set(self.taps)) != list(self.taps) or not 0 <= self.taps[0] <= self.taps[-1] < self.layers:
            raise ConfigError(f"taps are rising blocks, 0 to {self.layers - 1}, not {self.taps}.")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path is a share from 0 up to, not including, 1; not {self.drop_path}.")

    @property
    def network(self) -> ClipVisionConfig:
        """Sizes of the transformer."""
        embed = self.embed or self.width
        return ClipVisionConfig(width=self.width, layers=self.layers, heads=self.heads, patch=self.patch, grid=self.grid, embed=embed)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the levels."""
        return (self.width,) * len(self.taps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNetBackbone:
    """transformers' ResNet or Swin: ``widths`` of the four maps; ``layer`` is ResNet's, ``heads`` and ``window`` are Swin's.

    ``pool``: CLIP's attention pool on the last map; without one it embeds nothing (the baselines).
    """

    architecture: Literal["resnet", "swin"] = "resnet"
    widths: tuple[int, int, int, int] = (256, 512, 1024, 2048)
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    layer: Literal["bottleneck", "basic"] = "bottleneck"
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7
    pool: AttentionPoolConfig | None = None
    kind: Literal["imagenet"] = "imagenet"

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.architecture not in ("resnet", "swin"):
            raise ConfigError(f"architecture is 'resnet' or 'swin', not {self.architecture!r}.")
        if self.layer not in ("bottleneck", "basic"):
            raise ConfigError(f"layer is 'bottleneck' or 'basic', not {self.layer!r}.")
        if any(after != 2 * before for before, after in zip(self.widths, self.widths[1:], strict=False)):
            raise ConfigError(f"Each of the four widths is twice the one before, unlike {self.widths}.")
        if self.pool is not None and self.widths[-1] % self.pool.heads:
            raise ConfigError(f"The last width ({self.widths[-1]}) must be a multiple of the pool's heads ({self.pool.heads}).")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four levels."""
        return self.widths

    @property
    def embed(self) -> int | None:
        """Dimensions of the embeddings; None: it gives none."""
        return None if self.pool is None else self.pool.embed


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteBackbone:
    """EfficientNet-Lite, the tower of `pocket`: for machines without an accelerator.

    ``embed``: dimensions to which a projection, not an attention pool, brings its last map; None: it embeds nothing.
    """

    variant: Literal["lite0", "lite2"] = "lite2"
    embed: int | None = 256
    kind: Literal["lite"] = "lite"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError(f"variant is one of {', '.join(VARIANTS)}, not {self.variant!r}.")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four levels."""
        return tap_widths(self.variant)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainVitBackbone:
    """A vision transformer that CLIP did not train (ViT-S of DeiT, DINO and MoCo): one map of its last patches, no embedding.

    A 1x1 convolution classifies them; there is no pyramid, and of the head only the windows count. ``grid``: side of the square of learned
    positions, in patches; 14 for the usual 224 pixels.
    """

    width: int = 384
    layers: int = 12
    heads: int = 6
    patch: int = 16
    grid: int = 14
    kind: Literal["plain_vit"] = "plain_vit"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"The backbone's width ({self.width}) must be a multiple of its heads ({self.heads}).")

    @property
    def embed(self) -> int | None:
        """Dimensions of the embeddings: there are none."""
        return None

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the one level."""
        return (self.width,)


# --- language ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Sizes of the context decoder."""

    width: int = 256
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"The context decoder's width ({self.width}) must be a multiple of its heads ({self.heads}).")


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """How class names guide the network (DenseCLIP, section 3).

    ``tokens``: ids per class name, start and end included. ``contexts``: learned vectors in front of every name. ``prompting``: "post",
    the context decoder corrects the names' embeddings; "pre", it makes of the image the vectors in front of the names, so that the text
    tower reads every name anew for every image (paper, section 3.2; not in the published code); "none", only learned vectors. ``tau``:
    temperature of the score map. ``level``: of the maps, 0-based, that gets the score map; ``divided``: by ``tau``.
    """

    text: ClipTextConfig
    tokens: int = 5
    contexts: int = 8
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    prompting: Literal["post", "pre", "none"] = "post"
    tau: float = 0.07
    level: int = 3
    divided: bool = False

    def __post_init__(self) -> None:
        if self.text.context != self.tokens + self.contexts:
            raise ConfigError(f"text.context is tokens + contexts, {self.tokens} + {self.contexts}, not {self.text.context}.")
        if self.prompting not in ("post", "pre", "none"):
            raise ConfigError(f"prompting is 'post', 'pre' or 'none', not {self.prompting!r}.")
        if self.tau <= 0:
            raise ConfigError(f"tau is a temperature above 0, not {self.tau}.")


# --- heads ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticHead:
    """Semantic FPN's head (Kirillov et al., CVPR 2019), and the windows in which a photo is shown at test.

    ``crop``: side of the square windows; ``stride``: between them; ``limits``: of the resized photo's longer and shorter side; all pixels.
    """

    channels: int = 256
    dropout: float = 0.1
    crop: int = 512
    stride: int = 341
    limits: tuple[int, int] = (2048, 512)
    kind: Literal["semantic"] = "semantic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", tuple(self.limits))
        if not 0 < self.stride <= self.crop:
            raise ConfigError(f"stride is from 1 to crop ({self.crop}), not {self.stride}.")
        if min(self.limits) < 1:
            raise ConfigError(f"limits are two lengths in pixels, not {self.limits}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetinaHead:
    """RetinaNet's head (Lin et al., ICCV 2017)."""

    channels: int = 256
    convs: int = 4
    kind: Literal["retinanet"] = "retinanet"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskHead:
    """Mask R-CNN's proposals, box head and mask head (He et al., ICCV 2017)."""

    rpn_channels: int = 256
    fc_channels: int = 1024
    mask_convs: int = 4
    mask_channels: int = 256
    kind: Literal["mask_rcnn"] = "mask_rcnn"


@dataclass(frozen=True, slots=True, kw_only=True)
class PyramidConfig:
    """The feature pyramid: ``start`` is the first level read, ``outputs`` the levels given, ``extra`` how those beyond are made."""

    channels: int = 256
    start: int = 0
    outputs: int = 4
    extra: Literal["convs_on_input", "max_pool"] | None = None


def _preprocess() -> Preprocess:
    """OpenCV's resize on 8-bit values; the family's own views say to which size."""
    return Preprocess(size=512, fit="native", rounded=True, mean=MEAN, std=STD)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseClipConfig:
    """One network: an image encoder, class names, a pyramid and a head. Without ``language`` it is the tables' baseline.

    ``classes``: what the head was trained on, in its order; a checkpoint is tied to it.

    Raises:
        ConfigError: values that build no network.
    """

    classes: tuple[str, ...]
    backbone: ResNetBackbone | VitBackbone | ImageNetBackbone | LiteBackbone | PlainVitBackbone
    language: LanguageConfig | None = None
    neck: PyramidConfig = field(default_factory=PyramidConfig)
    head: SemanticHead | RetinaHead | MaskHead = field(default_factory=SemanticHead)
    preprocess: Preprocess = field(default_factory=_preprocess)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes:
            raise ConfigError("classes are at least one name.")
        if self.language is None:
            return
        if self.backbone.embed != self.language.text.embed:
            raise ConfigError(f"Image and text must embed into one space: {self.backbone.embed} and {self.language.text.embed} dimensions.")
        if not 0 <= self.language.level < len(self.backbone.channels):
            raise ConfigError(f"level is one of the {len(self.backbone.channels)} maps, counted from 0, not {self.language.level}.")

    @property
    def score_maps(self) -> bool:
        """Whether the network compares every place with every name."""
        return self.language is not None

    @property
    def neck_inputs(self) -> tuple[int, ...]:
        """Channels of the levels that the pyramid reads, the score map's included."""
        widths = list(self.backbone.channels)
        if self.language is not None:
            widths[self.language.level] += len(self.classes)
        return tuple(widths[self.neck.start :])


def own(options: Options, kind: type[Kind]) -> Kind:
    """The options of a network that is asked with this ``kind`` of them; plain ones become it.

    Raises:
        ConfigError: they are another network's and would have no effect, or plain ones say what this kind cannot.
    """
    if isinstance(options, kind):
        return options
    if type(options) is not Options:
        raise ConfigError(f"{type(options).__name__} has no effect on this model; give it {kind.__name__}, or Options.")
    return kind(**{field.name: getattr(options, field.name) for field in fields(Options)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseClipOptions(Options):
    """How DenseCLIP's segmenters are asked: ``mode`` "slide", overlapping windows, as all published figures; "whole", one look.

    ``scales``: the photo is looked at once at each of these multiples of the usual size, and with ``flip`` once more mirrored; a class's
    share is the mean of all looks. The published figures of several scales: 0.5, 0.75, 1, 1.25, 1.5, 1.75, with flip.
    """

    mode: Literal["slide", "whole"] = "slide"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if self.mode not in ("slide", "whole"):
            raise ConfigError(f"mode is 'slide' or 'whole', not {self.mode!r}.")
        wrong = not isinstance(self.scales, Sequence) or not self.scales
        if wrong or not all(isinstance(scale, int | float) and 0.1 <= scale <= 10 for scale in self.scales):
            raise ConfigError(f"scales are a list of numbers from 0.1 to 10, at least one, not {self.scales!r}.")
        object.__setattr__(self, "scales", tuple(self.scales))
        if (list(self.scales) != [1] or self.flip) and (self.fit, self.size, self.tile) != (None, None, None):
            raise ConfigError("scales and flip are of the photo as it is usually shown: leave fit, size and tile out.")

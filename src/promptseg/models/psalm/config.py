"""Everything that builds a PSALM network, and how its answers may be asked for. Names in square brackets are the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...contracts import Options, Preprocess, probability
from ...errors import ConfigError

PREPROCESS = Preprocess(
    size=1024,
    fit="letterbox",
    antialias=True,
    rounded=True,
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinConfig:
    """The image encoder, a Swin transformer of four stages (Swin-B).

    Raises:
        ConfigError: values that build no network.
    """

    width: int = 128  # of the first stage; every further one doubles it [embed_dim]
    depths: tuple[int, ...] = (2, 2, 18, 2)  # blocks per stage
    heads: tuple[int, ...] = (4, 8, 16, 32)  # [num_heads]
    window: int = 12  # side of an attention window, in tokens [window_size]
    mlp_ratio: float = 4.0
    drop_path: float = 0.3  # share of blocks skipped in training, rising from 0 to this [drop_path_rate]

    def __post_init__(self) -> None:
        for name in ("depths", "heads"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists come out of config.json
        if len(self.depths) != 4 or len(self.heads) != 4 or min((*self.depths, *self.heads, self.window)) < 1:
            raise ConfigError(f"Swin has four stages of at least one block and one head each, not {self.depths} and {self.heads}.")
        if any(width % heads for width, heads in zip(self.widths, self.heads, strict=True)):
            raise ConfigError(f"The widths {self.widths} of the stages must be multiples of their heads {self.heads}.")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path is a share, from 0 to below 1, not {self.drop_path}.")

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Of the four stages."""
        return (self.width, 2 * self.width, 4 * self.width, 8 * self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """The language model, Phi-1.5.

    Raises:
        ConfigError: values that build no network.
    """

    vocabulary: int = 50297  # 50295 tokens of Phi, [PAD] and [SEG] [vocab_size]
    width: int = 2048  # [hidden_size]
    hidden: int = 8192  # [intermediate_size]
    layers: int = 24
    heads: int = 32
    rotary_share: float = 0.5  # of each head's dimensions that are rotated by position [partial_rotary_factor]
    rotary_base: float = 10000.0  # [rope_theta]
    context: int = 2048  # tokens of a prompt before pictures and names are put in; what is longer is cut [model_max_length]

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads or self.rotated % 2:
            raise ConfigError(f"The width {self.width} must be a multiple of {self.heads} heads whose rotated share is even.")

    @property
    def rotated(self) -> int:
        """Dimensions of a head that are rotated."""
        return int(self.width // max(1, self.heads) * self.rotary_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskConfig:
    """The mask generator: pixel decoder and transformer decoder of Mask2Former.

    Raises:
        ConfigError: values that build no network.
    """

    width: int = 256  # [CONVS_DIM, MASK_DIM, HIDDEN_DIM]
    queries: int = 100  # mask tokens [NUM_OBJECT_QUERIES]
    encoder_layers: int = 6  # deformable attention [TRANSFORMER_ENC_LAYERS]
    encoder_hidden: int = 1024
    layers: int = 9  # of the decoder [DEC_LAYERS - 1]
    heads: int = 8  # of the decoder [NHEADS]; the deformable attention has as many [NHEADS]
    hidden: int = 2048  # [DIM_FEEDFORWARD]
    points: int = 4  # that a query looks at per head and level
    groups: int = 32  # of every group norm

    def __post_init__(self) -> None:
        if min(self.queries, self.encoder_layers, self.layers, self.heads, self.points) < 1:
            raise ConfigError("queries, layers, heads and points of the mask generator are at least 1.")
        if self.width % self.heads or self.width % self.groups or self.width % 4:
            raise ConfigError(f"width ({self.width}) must be a multiple of 4, of heads ({self.heads}) and of groups ({self.groups}).")


@dataclass(frozen=True, slots=True, kw_only=True)
class PsalmConfig:
    """The whole network. The last three settings are the paper's ablations.

    ``queries`` "language": mask tokens go through the language model and become the decoder's queries, as published; "table": the queries
    are the decoder's own, learned for all photos and questions alike. ``condition`` "mean": a name or sentence is the mean of the states
    of all its tokens, as published; "last": the state of the [SEG] that closes it. ``classes``: none, as published, if a query's class is
    whatever name fits it; else the names of a classifier that is learned with the masks, as in Mask2Former, and knows no others. How the
    paper's coupled variant was made is not published; this is ours.

    Raises:
        ConfigError: values that build no network.
    """

    vision: SwinConfig = field(default_factory=SwinConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    projector: int = 2048  # width of the convolutions between encoder and language model
    region_points: int = 256  # at which a region is sampled
    preprocess: Preprocess = PREPROCESS
    queries: Literal["language", "table"] = "language"
    condition: Literal["mean", "last"] = "mean"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError("classes of the learned classifier are all different.")
        if self.queries not in ("language", "table") or self.condition not in ("mean", "last"):
            raise ConfigError(
                f"queries are 'language' or 'table', condition 'mean' or 'last', not {self.queries!r} and {self.condition!r}."
            )
        if self.preprocess.size % 64:
            raise ConfigError(f"The side of PSALM's input is a multiple of 64, not {self.preprocess.size}.")
        if self.region_points < 1:
            raise ConfigError("region_points is at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PsalmOptions(Options):
    """How PSALM is asked; ``size``: side of its square input, a multiple of 64, None: 1024. There are no tiles and no other fit.

    ``object_threshold``: class probability from which a query is an object of a panoptic map; ``overlap_threshold``: share of its own
    mask that an object must keep there; ``union_threshold``: score from which a mask belongs to what an expression means. The defaults are
    the published code's. ``enlarged``: False sums the masks of a label map on the network's square and enlarges the sums (published where
    label maps alone are asked), True enlarges every mask to the photo first (published beside panoptic maps; 4 bytes per mask and pixel).

    Raises:
        ConfigError: a threshold is no probability.
    """

    object_threshold: float = 0.8
    overlap_threshold: float = 0.8
    union_threshold: float = 0.6
    enlarged: bool = False

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        for name in ("object_threshold", "overlap_threshold", "union_threshold"):
            object.__setattr__(self, name, probability(name, getattr(self, name)))

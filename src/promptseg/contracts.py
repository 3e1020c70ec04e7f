"""What a family of models declares, and what passes between its network and the rest of the package. Imports no torch.

A family is one folder under `models/` that offers ``Model`` (the network), its frozen configuration dataclass, ``CARDS``, ``key rules`` and
``RECIPES``. Everything outside that folder works with the types of this page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from .errors import ConfigError, PromptError
from .prompts import Text, describe
from .training.bounds import check_bounds
from .training.schedules import Cosine, Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from .prompts import Prompt

Task: TypeAlias = Literal["masks", "semantic", "panoptic", "instances", "refer", "groups", "track"]
PromptKind: TypeAlias = Literal["text", "exemplar", "blend", "points", "box", "scribble", "mask", "classes"]
Fit: TypeAlias = Literal["stretch", "letterbox", "native"]
Size: TypeAlias = tuple[int, int]  # (H, W) in pixels

MAX_PIXELS = 100_000_000  # of a photo that is decoded unless a user says otherwise: 300 MB


def probability(what: str, value: Any) -> float:
    """``value`` as a float, checked; ``what`` is its name in the message.

    Raises:
        ConfigError: it is no number from 0 to 1.
    """
    number = float(value) if isinstance(value, Real) else math.nan
    if not 0 <= number <= 1:  # NaN is neither
        raise ConfigError(f"{what} is a probability, 0 to 1, not {value!r}.")
    return number


# --- how a photo becomes network input --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """From an upright uint8 RGB photo to network input: resize, scale to 0..1, normalise per channel.

    ``fit`` is the default of `Options.fit`; ``antialias`` False is torch's plain bilinear sampling (CLIPSeg's quick start), with
    ``rounded`` to 8-bit values before they are normalised (OpenCV, GroupViT).
    """

    size: int
    fit: Fit = "stretch"
    antialias: bool = False
    rounded: bool = False
    multiple: int = 1  # network input sides are multiples of this (the patch size or the largest stride)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a photo is shown to the model; families may extend it. None means: as the card says.

    ``fit``: "stretch" resizes the whole photo to a size x size square; "letterbox" keeps the aspect and pads right and bottom with the
    mean colour; "native" keeps the aspect without padding, the longer side becoming ``size``. ``tile``: side in photo pixels of
    overlapping square windows, each shown at ``size``; None shows the whole photo at once. ``overlap``: share of a window, 0..0.9.

    In semantic maps: ``templates``: wordings of class names, each with a ``{}``, whose embeddings are averaged; None: the model's own.
    ``synonyms``: a class of several names is as probable as the most probable of them ("max"), or is asked once, for the mean of their
    conditions ("mean").
    """

    fit: Fit | None = None
    size: int | None = None
    tile: int | None = None
    overlap: float = 0.25
    templates: tuple[str, ...] | None = None
    synonyms: Literal["max", "mean"] = "max"

    def __post_init__(self) -> None:
        if self.fit not in (None, "stretch", "letterbox", "native"):
            raise ConfigError(f"fit is 'stretch', 'letterbox' or 'native', not {self.fit!r}.")
        if self.size is not None and not 16 <= self.size <= 8192:
            raise ConfigError(f"size is the side of the network's input in pixels, 16 to 8192, not {self.size}.")
        if self.tile is not None and self.tile < 16:
            raise ConfigError(f"tile is the side of a window in photo pixels, at least 16, not {self.tile}.")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"overlap is the shared part of neighbouring windows, 0 to 0.9, not {self.overlap}.")
        if self.synonyms not in ("max", "mean"):
            raise ConfigError(f"synonyms is 'max' or 'mean', not {self.synonyms!r}.")
        object.__setattr__(self, "templates", None if self.templates is None else tuple(self.templates))

    def decoding(self) -> dict[str, Any]:
        """What a family's own options add to the arguments of its ``decode``."""
        return {}


@dataclass(frozen=True, slots=True)
class View:
    """One window of a photo as the network sees it.

    ``box``: (x0, y0, x1, y1), half-open integer photo pixels. ``content``: (h, w) to which the box is resized. ``shape``: (h, w) of the
    network input; it exceeds ``content`` only at the right and bottom, filled with the mean colour (letterbox). ``window``: (x0, y0, x1,
    y1) of the resized content, in its pixels, where only a part of it is shown; ``shape`` is then the window's. ``mirrored``: left and
    right change places once that is cut out (the family's ``prepare`` and ``merge`` see to it).
    """

    box: tuple[int, int, int, int]
    content: Size
    shape: Size
    window: tuple[int, int, int, int] | None = None
    mirrored: bool = False


# --- what a network returns -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DenseLogits:
    """One logit map per prompt: ``logits`` (B, N, h, w) float, raw (no sigmoid), at model resolution.

    ``presence`` (B, N) float logits: is it there at all; None for a model without such an output.
    """

    logits: Tensor
    presence: Tensor | None = None


@dataclass(frozen=True, slots=True)
class GroupLogits:
    """Segments that a network formed before it heard of any prompt, and how well each prompt names each of them.

    ``maps``: one (B, G_i, h, w) per stage, the share in which a place belongs to each segment, at the resolution of the network's tokens.
    ``logits`` (B, G, N): last-stage segments and prompts; ``whole`` (B, N): the whole view and prompts. ``segments`` (B, G, E): what the
    segments are, in the space of the prompts, at length 1. ``prompts``: N.
    """

    maps: tuple[Tensor, ...]
    logits: Tensor
    whole: Tensor
    segments: Tensor
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of single things, best first; of images with fewer than N the rest has the score 0.

    ``boxes`` (B, N, 4) float x0, y0, x1, y1, in pixels of the network's input, and once merged in those of the photo. ``scores`` (B, N)
    0..1. ``labels`` (B, N): index into the network's ``classes``. ``masks`` (B, N, m, m) logits inside the box; None: boxes are all.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """What is looked at to see whether the network computed numbers."""
        return self.scores


Prediction: TypeAlias = DenseLogits | GroupLogits | Detections  # queries join here with the first family that returns them


@dataclass(frozen=True, slots=True)
class PromptFeatures:
    """Encoded prompts, reusable over any number of photos: ``condition`` (N, D), one row per prompt, in prompt order."""

    prompts: tuple[Prompt, ...]
    condition: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def mix(self, *weights: Sequence[float]) -> PromptFeatures:
        """New conditions between (or beyond) these: each argument holds one weight per prompt and gives one row, their weighted sum.

        ``features.mix([0.3, 0.7])`` is the condition of ``Blend(text, exemplar, 0.3)``, for any prompts and any number of them.

        Raises:
            PromptError: an argument has another number of weights than there are prompts.
        """
        for row in weights:
            if len(row) != len(self):
                raise PromptError(f"mix takes one weight per prompt: {len(self)} prompts, {len(row)} weights.")
        names = (" + ".join(f"{weight:g} {describe(prompt)}" for weight, prompt in zip(row, self.prompts, strict=True)) for row in weights)
        mixed = self.condition.new_tensor(weights).view(len(weights), len(self)) @ self.condition
        return PromptFeatures(tuple(map(Text, names)), mixed)


class Network(Protocol):
    """The three questions every family answers (an `torch.nn.Module`); see DESIGN, "The one idea".

    ``encode_image`` (B, 3, h, w) normalised float -> the family's own feature object, whose first dimension is the image.
    ``encode_prompts`` prompts whose exemplars are already decoded: ``image`` uint8 (H, W, 3), ``mask`` bool (H, W) NumPy arrays.
    ``decode`` every prompt on every image: (B, N, h, w).
    ``views`` the windows in which a photo of ``size`` is shown; ``merge`` their predictions (each B = 1) -> one prediction whose logits
    cover the photo exactly (padding cut off). Both have shared defaults in `nn.views`.

    A family may also offer
    ``prepare(pixels, view)`` what becomes of a view's pixels (3, h, w) before they are encoded;
    ``to_scores(prediction, size)`` a photo's merged prediction as probabilities (H, W), class by class, where these are not the squashed
    and enlarged logits;
    ``prompt_weights`` the module that decides the conditions of texts, which are then kept on disk, too;
    ``classes`` the names that it was trained on, which are asked where nobody names any;
    ``score_map(pixels, names)`` -> (B, K, h, w), how well every place fits every name before the answer is made, of the photo shown in
    ``whole_view(size, options)``; its configuration says by ``score_maps`` whether it does.

    A family whose answers are no logit per pixel and prompt merges into an object of its own and offers ``to_masks(merged)`` -> DenseLogits
    and ``to_semantic(merged, synonyms, threshold)`` -> labels (H, W) int16, -1 for nothing, and scores (C,), 0..1: ``synonyms`` says how
    many prompts, one after another, each class has. One that forms segments before they are named (task "groups") offers
    ``group_counts``, how many every stage has, ``group_views(size)`` and ``to_groups(features, size)`` -> labels, scores and parents
    (`GroupMap`) of every stage. One whose photos and prompts share a space may offer ``classify(photo, prompts)``, a photo uint8 (H, W, 3)
    -> cosines (N,).

    A family whose network reads the question together with the photo answers from the features of one photo of ``size`` (H, W) itself,
    where its card names the task: ``to_prompted(features, size, prompts)`` -> DenseLogits that cover the photo, with presence;
    ``to_referred(features, size, expression, options)`` -> mask (H, W) and score; ``to_class_maps(features, size, synonyms, options)`` -> a
    map (H, W) per class, the largest of which wins a pixel; ``to_instances(features, size, synonyms)`` -> masks, class numbers and scores;
    ``to_panoptic(features, size, synonyms, is_thing, options)`` -> map of segments' numbers from 1 and the segments;
    ``to_memory(features, masks)`` and ``to_tracked(features, size, memory)`` -> masks (K, H, W) and scores in a further frame. Its
    ``things`` and ``stuff``, together ``classes``, are those that it was trained with.
    """

    def encode_image(self, pixel_values: Tensor) -> Any: ...
    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures: ...
    def decode(self, image: Any, prompts: PromptFeatures) -> Any: ...
    def views(self, size: Size, options: Options) -> tuple[View, ...]: ...
    def merge(self, predictions: Sequence[Any], views: Sequence[View], size: Size) -> Any: ...


# --- cards ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One way in which people have the weights: its files, in the order in which `from_official` takes their state dicts.

    An index file stands for the shards that it names. ``beside``: what else a model reads from that folder, such as a tokenizer; what the
    repository does not have of it is passed over.
    """

    layout: Literal["official", "hf"]
    files: tuple[str, ...]
    beside: tuple[str, ...] = ()
    hub: str | None = None  # repository on the Hugging Face Hub
    url: str | None = None  # where else, for the message that says which file to put where
    sha256: Mapping[str, str] = field(default_factory=dict)  # file -> checksum, where one is published


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One entry of the catalogue: all that is known of a model before its weights are read.

    ``threshold``: probability above which a pixel belongs to the mask. ``presence_threshold``: score from which a prompt counts as
    present. ``background``: what is nothing in a semantic map unless the user says otherwise (`Segmenter.semantic`): pixels whose best
    class is at most that probable, or those of a name; None labels every pixel. ``templates``: wordings, each with one ``{}``, in which
    `Segmenter.semantic` says the name of a class; none: as it is. ``parameters``: count of all weights. ``metrics``: published or measured
    figures, as fractions.
    """

    name: str
    family: str
    config: Any
    summary: str
    source: str
    code_license: str
    weights_license: str
    tasks: tuple[Task, ...]
    prompts: tuple[PromptKind, ...]
    parameters: int
    preprocess: Preprocess
    threshold: float = 0.5
    presence_threshold: float = 0.5
    background: float | str | None = None
    templates: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    embedded: bool = False  # the weights ship in the package

    @property
    def size_mb(self) -> float:
        """Weights in float32, in megabytes."""
        return self.parameters * 4 / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Published outputs of a model's real weights on one photo, with which `zoo.verify` compares the weights at hand.

    ``inputs``: what else the family's ``verification.observe`` needs, such as prompts. ``values``: name -> (nested) tuple of numbers.
    ``tolerance``: largest absolute difference.
    """

    source: str
    photo_url: str
    values: Mapping[str, Any]
    tolerance: float
    inputs: Mapping[str, Any] = field(default_factory=dict)


# --- foreign checkpoints ----------------------------------------------------------------------------------------------------------------
# Patterns: a place in braces with a one-letter name, ``{i}``, stands for an integer; with a longer one, ``{rest}``, for any characters. The
# same place on both sides of a rule is the same text. The first rule of a table that matches a name decides.


@dataclass(frozen=True, slots=True)
class Rename:
    """``theirs`` <-> ``ours``, tensor unchanged, or (2-d) transposed both ways.

    ``trailing``: where ours has two dimensions theirs has a third of 1 behind them (a convolution over single positions).
    """

    theirs: str
    ours: str
    transpose: bool = False
    trailing: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """Their several tensors <-> our one: ``theirs`` names the parts in order, ``ours`` joins them, equal parts, along dimension 0."""

    theirs: tuple[str, ...]
    ours: str


@dataclass(frozen=True, slots=True)
class Drop:
    """A tensor of theirs that is not needed, and why; files may have it or not. Copies name what they repeat."""

    theirs: str
    reason: str
    same_as: str | None = None  # their name of the tensor that this one repeats; `to_official` writes it back


@dataclass(frozen=True, slots=True)
class Absent:
    """A parameter of ours that this layout does not hold: the value that it then has everywhere, and why it may."""

    ours: str
    value: float
    reason: str


Rule: TypeAlias = Rename | Split | Drop | Absent


# --- recipes ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters whose names fit ``pattern`` (shell style, alternatives by "|": "tower.*|classifier.*")."""

    pattern: str
    lr: float = 1.0  # factor on the recipe's rate
    weight_decay: float | None = None  # None: the recipe's
    frozen: bool = False

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run, whole: a published one is a function in ``models/FAMILY/recipes.py``; a variant replaces what differs.

    ``options`` is the family's own frozen dataclass with everything that only this family knows (losses, augmentation).
    """

    name: str
    card: str
    data: str  # root folder
    output: str
    steps: int
    batch_size: int  # examples per update, over all processes and accumulated parts
    lr: float
    schedule: Schedule = field(default_factory=Cosine)
    groups: tuple[ParameterGroup, ...] = ()  # the first that fits a parameter's name; others have the recipe's rate
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    epsilon: float = 1e-8
    clip: float | None = 1.0  # of the gradient's norm over all parameters; None: not at all
    ema: float | None = 0.998  # decay of the averaged weights that are kept; None: the last weights are
    accumulate: int = 1  # parts in which a process takes its share of a batch
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the products; weights and optimiser stay float32
    checkpointing: tuple[str, ...] = ()  # parts of the network (name patterns) that recompute their activations
    compile: bool = False  # torch.compile of the step
    workers: int = 0  # processes that prepare examples
    save_every_s: float = 300.0  # seconds between checkpoints
    keep: int = 1  # newest checkpoints that stay
    validate_every: int | None = None  # steps
    best: str | None = None  # figure of the validation by which the best weights are kept in best/
    pictures_every: int | None = None  # steps
    trackers: tuple[Literal["tensorboard", "trackio"], ...] = ()
    seed: int = 0
    options: Any = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.best is not None and self.validate_every is None:
            raise ConfigError(f"best: {self.best!r} is a figure of the validation, and there is none; set validate_every, too.")

"""All that builds the embedded model; stored as ``config.json`` beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...contracts import Preprocess
from ...errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PocketConfig:
    """Sizes of the network. The image tower's own widths follow from ``variant`` (see `tower.py`).

    ``film`` and ``similarity`` switch the two ways in which a condition reaches the decoder; `docs/pocket.md` compares them. ``taught``: of
    every fine-tuning that gave the network a head of its own, the numbers of wordings that it was taught and of names that it leaves.
    """

    variant: str = "lite2"
    text_width: int = 256  # of the shared space of words and image regions
    pieces: int = 26623  # word pieces of the text tower
    piece_bytes: int = 206069  # their text, one per line
    classes: int = 1000  # of the image tower's own classifier (ImageNet)
    width: int = 128  # decoder channels at stride 16; half at stride 8, a quarter at stride 4
    heads: int = 8  # learned similarity maps
    blocks: int = 3  # at stride 16, per prompt
    second_look: float = 0.0  # size, in parts of the first, of a second look at the mirrored photo; 0: none
    film: bool = True
    similarity: bool = True
    taught: tuple[tuple[int, int], ...] = ()
    preprocess: Preprocess = field(
        default_factory=lambda: Preprocess(
            size=576, fit="native", antialias=True, multiple=32, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
        )  # (x - 127) / 128: what the tower was pretrained with
    )

    def __post_init__(self) -> None:
        if self.variant not in ("lite0", "lite2"):
            raise ConfigError(f"variant is 'lite0' or 'lite2', not {self.variant!r}.")
        if not (self.film or self.similarity):
            raise ConfigError("film and similarity cannot both be off: the prompt would not reach the decoder.")
        if any(wordings < 1 or others < 0 for wordings, others in self.taught):
            raise ConfigError(f"taught is pairs of numbers, of wordings (at least 1) and of names left, not {self.taught}.")
        if self.width % 4 or self.width % self.heads:
            raise ConfigError(f"width ({self.width}) must be a multiple of 4 and of heads ({self.heads}).")

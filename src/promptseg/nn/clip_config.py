"""Sizes of CLIP's towers. Imports no torch, so that the catalogue can be read without it."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipVisionConfig:
    """Sizes of a vision transformer; ``grid`` is the side of its square position table, in patches."""

    width: int
    layers: int
    heads: int
    patch: int
    grid: int
    embed: int

    def __post_init__(self) -> None:
        _check_sizes(self, self.width, self.heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPoolConfig:
    """Sizes of the pool that ends CLIP's residual networks; ``grid`` is the side of its square position table, in cells of stride 32.

    ``resize``: the table is resized to maps of another size; otherwise its top left corner is taken.
    """

    embed: int
    grid: int
    heads: int = 32
    resize: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResNetConfig:
    """Sizes of CLIP's residual network: blocks per stage, and ``width``, the channels that its stem gives."""

    layers: tuple[int, int, int, int]
    width: int = 64
    pool: AttentionPoolConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # lists come out of config.json
        if self.pool is not None:
            _check_sizes(self, self.channels[-1], self.pool.heads)

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Of the four stages' maps, at strides 4, 8, 16 and 32."""
        return 4 * self.width, 8 * self.width, 16 * self.width, 32 * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTextConfig:
    """Sizes of the text transformer; ``context`` is the longest phrase in tokens, start and end included."""

    width: int
    layers: int
    heads: int
    embed: int
    context: int = 77
    vocabulary: int = 49408

    def __post_init__(self) -> None:
        _check_sizes(self, self.width, self.heads)


def _check_sizes(config: object, width: int, heads: int) -> None:
    if width % heads:
        raise ConfigError(f"{type(config).__name__}: width ({width}) must be a multiple of heads ({heads}).")

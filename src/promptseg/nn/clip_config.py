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

"""Sizes of EfficientNet-Lite. Imports no torch."""

from __future__ import annotations

# (expansion, channels, repeats, stride, kernel) per stage; width and repeats are those of Lite0
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
# (width factor, depth factor) of the published variants
VARIANTS = {"lite0": (1.0, 1.0), "lite2": (1.1, 1.2)}
STEM, HEAD = 32, 1280
TAPS = (1, 2, 4, 6)  # stages whose last output is read: strides 4, 8, 16, 32


def round_width(channels: int, factor: float) -> int:
    """Channels times factor, rounded to a multiple of 8 and never down by more than a tenth (EfficientNet's rule)."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def stage_widths(variant: str) -> tuple[int, ...]:
    """Output channels of the seven stages."""
    return tuple(round_width(channels, VARIANTS[variant][0]) for _, channels, _, _, _ in STAGES)


def tap_widths(variant: str) -> tuple[int, ...]:
    """Channels of the maps that leave the tower, at strides 4, 8, 16 and 32."""
    widths = stage_widths(variant)
    return tuple(widths[stage] for stage in TAPS)

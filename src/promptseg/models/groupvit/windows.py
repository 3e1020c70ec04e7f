"""How GroupViT is shown a photo: its shorter side at 448 pixels, whole or in sliding windows (published evaluation code)."""

from __future__ import annotations

from ...contracts import Options, Preprocess, Size, View
from ...errors import ConfigError
from ...nn.slides import over, resized
from .config import GroupVitOptions

LONGEST = 2048  # pixels of the longer side
CROP, STRIDE = 448, 224


def views(size: Size, options: Options, preprocess: Preprocess) -> tuple[View, ...]:
    """The windows of a photo of ``size`` (H, W), row by row; all of them parts of one resized photo.

    Raises:
        ConfigError: tiles or letterboxes, which this family does not know.
    """
    if options.tile is not None or options.fit == "letterbox":
        raise ConfigError("GroupViT slides windows over the resized photo: options=GroupVitOptions(mode='slide', crop=448, stride=224).")
    side = options.size or preprocess.size
    content = (side, side) if options.fit == "stretch" else resized(size, side, LONGEST)
    chosen = options if isinstance(options, GroupVitOptions) else GroupVitOptions()
    if chosen.mode == "whole":
        return over(size, content)
    return over(size, content, chosen.crop or CROP, chosen.stride or STRIDE)

"""How GroupViT is shown a photo: its shorter side at 448 pixels, whole or in sliding windows (published evaluation code)."""

from __future__ import annotations

from ...contracts import Options, Preprocess, Size, View
from ...errors import ConfigError
from ...nn.slides import over, resized
from .config import GroupVitOptions

LONGEST = 2048  # pixels of the longer side


def views(size: Size, options: Options, preprocess: Preprocess, patch: int = 16) -> tuple[View, ...]:
    """The windows of a photo of ``size`` (H, W), row by row; all of them parts of one resized photo, no side of which is below ``patch``.

    Raises:
        ConfigError: tiles or letterboxes, which this family does not know.
    """
    if options.tile is not None or options.fit == "letterbox":
        raise ConfigError("GroupViT slides windows over the resized photo: options=GroupVitOptions(mode='slide', crop=448, stride=224).")
    side = options.size or preprocess.size
    height, width = (side, side) if options.fit == "stretch" else resized(size, side, LONGEST)
    content = max(height, patch), max(width, patch)  # else nothing would be seen of a photo that is very long
    chosen = options if isinstance(options, GroupVitOptions) else GroupVitOptions()
    if chosen.mode == "whole":
        return over(size, content)
    return over(size, content, *chosen.windows)

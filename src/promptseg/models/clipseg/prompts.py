"""Names of the ways in which CLIPSeg shows an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from ...errors import PromptError, nearest
from .visual import SINGLE_MODES, blend, img_preprocess

Drawing: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # normalised image (3, S, S), mask (S, S) -> what CLIP is shown (3, s, s)


@dataclass(frozen=True, slots=True)
class AttentionTechnique:
    """The image as it is, with attention logits multiplied by the mask in ``blocks`` (None: all); see `nn.attention.AttentionMask`."""

    kind: Literal["cls_token", "all"]
    blocks: tuple[int, ...] | None = None


Technique: TypeAlias = Drawing | AttentionTechnique


def _blended(mode: str) -> Drawing:
    return lambda image, mask: blend(image, mask, mode)[0]


def _drawn(**options: Any) -> Drawing:
    return lambda image, mask: img_preprocess(image, mask, image_size=image.shape[-1], **options)


# The blending modes of the data code and the variants of the paper's table 7 (appendix: their arguments).
TECHNIQUES: Mapping[str, Technique] = {
    **{mode: _blended(mode) for mode in SINGLE_MODES},
    "darken_50": _drawn(bg_fac=0.5),
    "darken_10": _drawn(bg_fac=0.1),
    "darken_0": _drawn(bg_fac=0),
    "blur": _drawn(blur=3),
    "blur_darken_10": _drawn(blur=3, bg_fac=0.1),
    "crop_large": _drawn(center_context=0.5),
    "crop_small": _drawn(center_context=0.1),
    "crop_large_blur": _drawn(center_context=0.5, blur=3),
    "crop_small_blur_darken_10": _drawn(center_context=0.1, blur=3, bg_fac=0.1),
    "grayscale": _drawn(grayscale=True),
    "red_on_grey": _drawn(colorize=True),
    "outline": _drawn(outline=True),
    "rect": _drawn(rect=True),
    "attention_cls": AttentionTechnique("cls_token"),
    "attention_all": AttentionTechnique("all"),
}


def technique(name: str, layers: int) -> Technique:
    """The technique of a name; ``attention_cls@11`` restricts attention in one block only, of ``layers``, counted from 0.

    Raises:
        PromptError: no such technique, or no such block.
    """
    base, at, block = name.partition("@")
    found = TECHNIQUES.get(base)
    if found is None or (at and not isinstance(found, AttentionTechnique)):
        known = ", ".join(TECHNIQUES)
        raise PromptError(
            f"{name!r} is no way to show an exemplar; allowed: {known}, and attention_cls@BLOCK or attention_all@BLOCK."
            f"{nearest(base, tuple(TECHNIQUES))}"
        )
    if not at or not isinstance(found, AttentionTechnique):
        return found
    if not block.isdecimal() or int(block) >= layers:
        raise PromptError(f"{name!r} names no block of the image tower, which has {layers}: use {base}@0 to {base}@{layers - 1}.")
    return AttentionTechnique(found.kind, (int(block),))

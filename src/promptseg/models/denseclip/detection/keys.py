"""How the heads of the published detectors map to ours."""

from __future__ import annotations

from ....contracts import Rename, Rule

_BOX, _MASK = "roi_head.bbox_head.", "roi_head.mask_head."

DETECTOR_HEADS: tuple[Rule, ...] = (
    *(Rename(f"bbox_head.{tower}.{{i}}.conv.{{rest}}", f"head.{tower}.{{i}}.{{rest}}") for tower in ("cls_convs", "reg_convs")),
    Rename("bbox_head.retina_{rest}", "head.retina_{rest}"),
    Rename("rpn_head.{rest}", "head.rpn.{rest}"),
    Rename(f"{_BOX}{{rest}}", "head.box.{rest}"),
    Rename(f"{_MASK}convs.{{i}}.conv.{{rest}}", "head.mask.convs.{i}.{rest}"),
    Rename(f"{_MASK}{{rest}}", "head.mask.{rest}"),
)

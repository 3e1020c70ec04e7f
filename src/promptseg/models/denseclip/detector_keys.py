"""How the tensors of the published detectors map to ours; the parts that they share with the segmenters are in `keys`."""

from __future__ import annotations

from ...contracts import Rename, Rule
from .keys import SHARED, backbone

_ROI = "roi_head."

DETECTORS: tuple[Rule, ...] = (
    *SHARED,
    *backbone("backbone."),
    Rename("rpn_head.{rest}", "head.rpn.{rest}"),
    Rename(f"{_ROI}bbox_head.{{rest}}", "head.box.{rest}"),
    Rename(f"{_ROI}mask_head.convs.{{i}}.conv.{{rest}}", "head.mask.convs.{i}.{rest}"),
    Rename(f"{_ROI}mask_head.{{rest}}", "head.mask.{rest}"),
    Rename("bbox_head.cls_convs.{i}.conv.{rest}", "head.cls_convs.{i}.{rest}"),
    Rename("bbox_head.reg_convs.{i}.conv.{rest}", "head.reg_convs.{i}.{rest}"),
    Rename("bbox_head.{rest}", "head.{rest}"),
)

"""DenseCLIP's detectors of the 80 classes of COCO, and the baselines of the tables, of which no weights are published."""

from __future__ import annotations

from collections.abc import Mapping

from ....contracts import Card, Preprocess, Published
from ....data.vocabularies import names
from ....nn.clip_config import AttentionPoolConfig
from ..cards import SOURCE, baseline, language
from ..config import MEAN, STD, DenseClipConfig, MaskHead, PyramidConfig, ResNetBackbone, RetinaHead

WORTH_A_LOOK = 0.3  # score from which a box counts as present; mmdetection draws those, too


def retinanet_r50() -> DenseClipConfig:
    """CLIP ResNet-50 [retinanet_denseclip_r50_fpn_1x_coco]."""
    return _detector((3, 4, 6, 3), 1024, RetinaHead(), PyramidConfig(start=1, outputs=5, extra="convs_on_input"))


def retinanet_r101() -> DenseClipConfig:
    """CLIP ResNet-101 [retinanet_denseclip_r101_fpn_1x_coco]."""
    return _detector((3, 4, 23, 3), 512, RetinaHead(), retinanet_r50().neck)


def maskrcnn_r50() -> DenseClipConfig:
    """CLIP ResNet-50 [mask_rcnn_denseclip_r50_fpn_1x_coco]."""
    return _detector((3, 4, 6, 3), 1024, MaskHead(), PyramidConfig(outputs=5, extra="max_pool"))


def maskrcnn_r101() -> DenseClipConfig:
    """CLIP ResNet-101 [mask_rcnn_denseclip_r101_fpn_1x_coco]."""
    return _detector((3, 4, 23, 3), 512, MaskHead(), maskrcnn_r50().neck)


def _detector(layers: tuple[int, int, int, int], embed: int, head: RetinaHead | MaskHead, neck: PyramidConfig) -> DenseClipConfig:
    return DenseClipConfig(
        classes=names("coco80"),
        backbone=ResNetBackbone(layers=layers, pool=AttentionPoolConfig(embed=embed, grid=42, resize=False)),
        language=language(embed, divided=True),
        neck=neck,
        head=head,
        preprocess=Preprocess(size=800, fit="native", rounded=True, mean=MEAN, std=STD),
    )


def _card(name: str, summary: str, config: DenseClipConfig, parameters: int, figures: tuple[float, ...], file: str | None) -> Card:
    metrics: Mapping[str, float] = dict(zip(("coco/box-AP", "coco/mask-AP"), figures, strict=False))
    where = f"the link of https://github.com/raoyongming/DenseCLIP#object-detection, saved as {file}"
    return Card(
        name=name,
        family="denseclip",
        config=config,
        summary=summary if file else f"{summary}; weights not published",
        source=SOURCE,
        code_license="MIT",
        weights_license="unstated",  # nothing is said of the weights beside the code's licence
        tasks=("instances",),
        prompts=("text",),
        parameters=parameters,
        preprocess=config.preprocess,
        presence_threshold=WORTH_A_LOOK,
        published=(Published(layout="official", files=(file,), url=where),) if file else (),
        metrics=metrics,  # table of the repository
    )


CARDS: tuple[Card, ...] = (
    _card(
        "denseclip-retinanet-r50", "boxes of COCO's 80 classes guided by their names, CLIP ResNet-50", retinanet_r50(), 124_106_068,
        (0.378,), "retinanet_denseclip_r50_fpn_1x_coco.pth",
    ),
    _card(
        "denseclip-retinanet-r101", "the same on CLIP ResNet-101", retinanet_r101(), 141_390_676,
        (0.411,), "retinanet_denseclip_r101_fpn_1x_coco.pth",
    ),
    _card(
        "denseclip-maskrcnn-r50", "boxes and masks of COCO's 80 classes guided by their names, CLIP ResNet-50", maskrcnn_r50(), 130_349_392,
        (0.402, 0.376), "mask_rcnn_denseclip_r50_fpn_1x_coco.pth",
    ),
    _card(
        "denseclip-maskrcnn-r101", "the same on CLIP ResNet-101", maskrcnn_r101(), 147_634_000,
        (0.426, 0.396), "mask_rcnn_denseclip_r101_fpn_1x_coco.pth",
    ),
    _card("denseclip-baseline-retinanet-r50", "RetinaNet on CLIP ResNet-50", baseline(retinanet_r50()), 37_987_924, (0.369,), None),
    _card("denseclip-baseline-retinanet-r101", "RetinaNet on CLIP ResNet-101", baseline(retinanet_r101()), 56_980_052, (0.405,), None),
    _card(
        "denseclip-baseline-maskrcnn-r50", "Mask R-CNN on CLIP ResNet-50", baseline(maskrcnn_r50()), 44_415_568, (0.393, 0.368), None
    ),
    _card(
        "denseclip-baseline-maskrcnn-r101", "Mask R-CNN on CLIP ResNet-101", baseline(maskrcnn_r101()), 63_407_696, (0.422, 0.389), None
    ),
)  # fmt: skip

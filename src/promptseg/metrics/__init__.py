"""Metrics as accumulators: `update` with one photo at a time, `merge` with other parts of the data, `compute` a small frozen result.

State is integers, fractions and records, so that merged parts give bit for bit what one pass gives; `state` and `from_state` carry it
through a file or to another process. What an absent class or an empty mask counts is a parameter, ``absent``, and part of every result.
NumPy only: masks and maps may be anything that `numpy.asarray` reads, torch tensors on the CPU included.
"""

from .accumulator import Accumulator, State, merged
from .arrays import AbsentRule, EmptyRule
from .boundary import BoundaryIoU, SemanticBoundaryIoU, band, boundary_iou
from .instances import BoxAP, Found, Labelled, MaskAP, MaskAPResult
from .iou import MaskIoU, MaskIoUResult, PairIoU, PairIoUResult, intersection_union, iou
from .panoptic import PanopticQuality, PanopticResult, Quality
from .presence import Presence, PresenceResult
from .ranks import TopK, TopKResult
from .referring import ReferringIoU, ReferringResult
from .semantic import SemanticIoU, SemanticResult, ZeroShotIoU, ZeroShotResult
from .sweep import CLIPSEG_THRESHOLDS, OperatingPoint, SweepResult, ThresholdSweep
from .video import Statistic, VideoJF, VideoResult, contour_accuracy

__all__ = [
    "CLIPSEG_THRESHOLDS",
    "AbsentRule",
    "Accumulator",
    "BoundaryIoU",
    "BoxAP",
    "EmptyRule",
    "Found",
    "Labelled",
    "MaskAP",
    "MaskAPResult",
    "MaskIoU",
    "MaskIoUResult",
    "OperatingPoint",
    "PairIoU",
    "PairIoUResult",
    "PanopticQuality",
    "PanopticResult",
    "Presence",
    "PresenceResult",
    "Quality",
    "ReferringIoU",
    "ReferringResult",
    "SemanticBoundaryIoU",
    "SemanticIoU",
    "SemanticResult",
    "State",
    "Statistic",
    "SweepResult",
    "ThresholdSweep",
    "TopK",
    "TopKResult",
    "VideoJF",
    "VideoResult",
    "ZeroShotIoU",
    "ZeroShotResult",
    "band",
    "boundary_iou",
    "contour_accuracy",
    "intersection_union",
    "iou",
    "merged",
]

"""Accumulators: `update`, `merge`, `compute`; their state is counts, sums or lists that join across processes."""

from .iou import BinaryIoU, MeanIoU, Presence

__all__ = ["BinaryIoU", "MeanIoU", "Presence"]

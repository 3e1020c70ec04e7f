"""The family's network: a segmenter or a detector, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .config import DenseClipConfig, SemanticHead
from .core import DenseClip
from .detection.network import Detector
from .network import Model as Segmenter


class Model:
    """``Model(config)`` is a `network.Model` or a `detection.network.Detector`."""

    def __new__(cls, config: DenseClipConfig) -> DenseClip:  # type: ignore[misc]  # never one of its own
        return _kind(config)(config)

    @classmethod
    def from_official(cls, config: DenseClipConfig, *state_dicts: Mapping[str, Tensor]) -> Segmenter | Detector:
        """The network with published weights, in evaluation mode.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return _kind(config).from_official(config, *state_dicts)


def _kind(config: DenseClipConfig) -> type[Segmenter] | type[Detector]:
    return Segmenter if isinstance(config.head, SemanticHead) else Detector

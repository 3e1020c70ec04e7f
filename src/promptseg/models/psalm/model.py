"""PSALM for whoever has photos and words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .config import PsalmConfig
from .network import Network, load


class Model(Network):
    """See `contracts.Network` for the protocol."""

    @classmethod
    def from_official(cls, config: PsalmConfig, *state_dicts: Mapping[str, Tensor]) -> Model:
        """The network with published weights, in evaluation mode; it takes the tensors themselves, without copying them.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        with torch.device("meta"):
            model = cls(config)
        load(model, *state_dicts)
        return model.eval()

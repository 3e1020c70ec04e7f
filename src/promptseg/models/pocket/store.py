"""How the weights of `pocket` are stored: matrices and kernels in half precision, the text table in 8 bits as it is in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

KEPT_FLOAT = ("running_mean", "running_var", "log_scale", "log_scale8", "log_sharpness")  # small, and their range matters


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict -> what the file holds."""
    return {name: value.half() if _halved(name, value) else value for name, value in state.items()}


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the file holds -> float32 state dict; the text tower's scale is half precision in memory, too."""
    return {name: value.float() if value.dtype == torch.float16 and name != "text.scale" else value for name, value in state.items()}


def _halved(name: str, value: Tensor) -> bool:
    return value.dtype == torch.float32 and not name.endswith(KEPT_FLOAT)

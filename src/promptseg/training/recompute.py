"""Gradient checkpointing: activations of chosen parts are computed again in the backward pass instead of kept."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError, nearest


def recompute(model: nn.Module, pattern: str) -> int:
    """Let every part whose name fits ``pattern`` ("image.blocks.*") forget its activations -> how many there are.

    Raises:
        ConfigError: no part has such a name.
    """
    fitting = [name for name, _ in model.named_modules() if name and fnmatchcase(name, pattern)]
    outermost = [name for name in fitting if not any(name.startswith(f"{other}.") for other in fitting)]
    if not outermost:
        known = tuple(name for name, _ in model.named_modules() if name)
        raise ConfigError(f"checkpointing: no part of the network is named {pattern!r}.{nearest(pattern, known)}")
    for name in outermost:
        part = model.get_submodule(name)
        part.forward = partial(checkpoint, part.forward, use_reentrant=False)
    return len(outermost)

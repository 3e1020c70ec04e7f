"""Which of CLIP's weights learn beside the aggregator (paper, section 3.4, and its ablation)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import get_args

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...nn.attention import Attention
from .network import Model
from .recipes import LEARNING, Mode


def tune(model: Model, mode: Mode) -> None:
    """Let the aggregator, the two transposed convolutions and, as ``mode`` says, parts of CLIP's blocks learn; freeze all else.

    In "query-value" the keys' third of each fused weight gets gradients of zero, so that AdamW leaves it as it is: at the official rates
    its weight decay, a factor of 1 - 2e-10, is 1 in float32.

    Raises:
        ConfigError: no such mode, or "prompt" for a network without prompt tokens.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"The modes of fine-tuning are {', '.join(get_args(Mode))}; not {mode!r}.")
    if mode == "prompt" and model.image_prompts is None:
        raise ConfigError("This network has no prompt tokens; give its configuration visual_prompts=(blocks, tokens).")
    for name, parameter in model.named_parameters():
        ours = name.startswith(("aggregator.", "upsample"))
        parameter.requires_grad_(ours or any(fnmatchcase(name, pattern) for pattern in LEARNING[mode]))
    if mode == "query-value":
        for module in model.modules():
            if isinstance(module, Attention):
                module.qkv.weight.register_hook(without_keys)  # type: ignore[no-untyped-call]


def without_keys(gradient: Tensor) -> Tensor:
    """The gradient (3 C, C) of a fused weight, zero for the keys."""
    third = len(gradient) // 3
    return torch.cat([gradient[:third], torch.zeros_like(gradient[:third]), gradient[2 * third :]])


def learning(model: nn.Module) -> int:
    """Numbers that learn, the keys of "query-value" not counted."""
    count = 0
    for name, parameter in model.named_parameters():
        keys = name.endswith("attn.qkv.weight") and not name.startswith("aggregator.") and bool(parameter._backward_hooks)
        count += parameter.numel() * (2 if keys else 3) // 3 if parameter.requires_grad else 0
    return count

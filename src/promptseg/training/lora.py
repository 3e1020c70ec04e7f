"""Low-rank adapters (Hu et al. 2021, "LoRA"), through the library of the extra ``lora``: put in before training, merged afterwards."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn

__all__ = ["adapt", "merged"]


def _peft() -> Any:
    try:
        return import_module("peft")
    except ImportError:
        raise ImportError("Low-rank adapters need their package: pip install 'promptseg[lora]'.") from None


def adapt(model: nn.Module, parts: Sequence[str], rank: int) -> None:
    """Give every named part, a linear layer or convolution, an adapter, in place; everything else is frozen.

    At first the adapters change nothing; they are scaled by two, as in the paper's experiments with language models.

    Raises:
        ImportError: the package is not installed.
    """
    peft = _peft()
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(parts)), model)


def merged(model: nn.Module) -> nn.Module:
    """A copy whose adapters are added to the weights; its parts and their names are those from before `adapt`."""
    _peft()
    layer = import_module("peft.tuners.lora").LoraLayer
    whole = copy.deepcopy(model)
    for name, part in [(name, part) for name, part in whole.named_modules() if isinstance(part, layer)]:
        part.merge()
        whole.set_submodule(name, part.get_base_layer())
    return whole.requires_grad_(True)

"""The moving average of the weights that a run keeps as its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a network's float32 state; its memory grows from a few steps to 1 / (1 - decay).

    Buffers such as batch statistics are averaged too. Frozen parameters are their own average, and what has another type stays as the last
    step left it (in half precision an average would not move). Under FSDP the shards are averaged where they lie.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
        moving = {name: value for name, value in model.state_dict().items() if name not in frozen and value.dtype == torch.float32}
        self.shadow = {name: value.detach().clone() for name, value in moving.items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        current = model.state_dict()
        torch._foreach_lerp_(list(self.shadow.values()), [current[name].detach() for name in self.shadow], 1 - decay)

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Overwrite the network's weights with the average."""
        for name, value in model.state_dict().items():
            if name in self.shadow:
                value.copy_(self.shadow[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The network with averaged weights inside the block, in evaluation mode; as it was before, afterwards."""
        kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
        modes = {module: module.training for module in model.modules()}
        self.put_into(model)
        model.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    value.copy_(kept[name])
            for module, mode in modes.items():
                module.training = mode

    def load(self, shadow: Mapping[str, Tensor], count: int) -> None:
        """Continue an average that was saved."""
        self.count = count
        with torch.no_grad():
            for name, value in self.shadow.items():
                value.copy_(shadow[name])

"""A device that is not the CPU, where there is none: tensors that compute like the CPU's, and refuse to meet those of the CPU.

It calls itself "meta"; unlike torch's own, its tensors have values, so that what depends on them runs, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")


class Elsewhere(Tensor):
    """Holds its values as ``here``, a tensor of the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(cls, here.size(), here.stride(), dtype=here.dtype, device=DEVICE)  # type: ignore[attr-defined]
        made.here = here
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        device = named.pop("device", DEVICE)
        for value in tree_flatten((args, named))[0]:
            if isinstance(value, Tensor) and not isinstance(value, Elsewhere) and value.dim():
                raise RuntimeError(f"{func}: a tensor of the CPU, {tuple(value.shape)}, among those of another device")
        found = func(*tree_map(here, args), **tree_map(here, named))
        return tree_map(elsewhere, found) if device == DEVICE else found


def here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value


def elsewhere(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, Tensor) and not isinstance(value, Elsewhere) else value


class _Crossing(TorchFunctionMode):
    """What is made there, and what is sent there, is there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        named = dict(kwargs or {})
        if named.get("device") == DEVICE:
            del named["device"]
            return elsewhere(func(*args, **named))
        if func is Tensor.to and not isinstance(args[0], Elsewhere) and len(args) == 2 and args[1] == DEVICE:
            return Elsewhere(args[0])
        if func is Tensor.tolist:
            return here(args[0]).tolist()
        return func(*args, **named)


def moved(model: nn.Module) -> None:
    """The network's parameters and buffers go there."""
    for part in model.modules():
        part._parameters = {
            name: value if value is None else nn.Parameter(Elsewhere(value.detach()), value.requires_grad)
            for name, value in part._parameters.items()
        }
        part._buffers = {name: elsewhere(value) for name, value in part._buffers.items()}


@contextmanager
def there() -> Iterator[None]:
    """Inside, the device can be used. Automatic precision is that of the CPU: torch has none for its own "meta"."""
    autocast = torch.autocast
    with pytest.MonkeyPatch.context() as patch, _Crossing():
        patch.setattr(torch, "autocast", lambda kind, **named: autocast("cpu" if kind == DEVICE.type else kind, **named))
        yield

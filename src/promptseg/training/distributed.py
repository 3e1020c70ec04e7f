"""The processes of a run: one on a laptop, or many under ``accelerate launch`` / ``torchrun`` (DDP, FSDP2).

The only file that knows Accelerate.
"""

from __future__ import annotations

import atexit
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..contracts import Recipe
from ..errors import ConfigError
from ..nn.processes import several

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from .run import Run

T = TypeVar("T")
_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class Processes:
    """This process among those of the run. All methods that exchange anything must be called by all of them.

    Raises:
        ImportError: Accelerate is not installed; the message names the extra.
        ConfigError: the precision is not available on this device.
    """

    def __init__(self, recipe: Recipe) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState
            from accelerate.utils import DistributedDataParallelKwargs
        except ImportError:
            raise ImportError("Training needs Accelerate: pip install 'promptseg[train]'.") from None
        AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # a batch need not reach every part of a network
        try:
            self._accelerator = Accelerator(
                mixed_precision=_PRECISIONS[recipe.precision],
                kwargs_handlers=[unused],
                cpu=not torch.accelerator.is_available(),  # unsaid, Accelerate leaves processes of torchrun on CPUs strangers to each other
            )
        except ValueError as error:
            raise ConfigError(f"precision {recipe.precision!r} cannot be used here ({error}): choose bfloat16 or float32.") from None
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.main, self.device = self._accelerator.is_main_process, self._accelerator.device
        self.sharded = self._accelerator.is_fsdp2
        if self.count > 1:
            atexit.register(_leave)

    # --- the step ---

    def wrap(self, step: nn.Module, optimizer: Optimizer, compile: bool) -> tuple[nn.Module, Optimizer]:
        """The step and its optimiser, on the device and ready for several processes."""
        if compile:
            step.compile()
        wrapped, prepared = self._accelerator.prepare(step, optimizer)
        return wrapped, prepared

    def to_device(self, batch: Any) -> Any:
        """Tensors of a batch, nested at will, on this process's device; anything else as it is."""
        return batch if self.device.type == "cpu" else moved(batch, self.device)

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """Gradients are not exchanged inside."""
        context: AbstractContextManager[Any] = self._accelerator.no_sync(wrapped)
        return context

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def clip(self, wrapped: nn.Module, norm: float) -> float:
        """Scale all gradients together to at most this norm -> the norm that they had, the same in every process."""
        return float(self.whole({"norm": self._accelerator.clip_grad_norm_(wrapped.parameters(), norm)})["norm"])

    @property
    def skips_overflow(self) -> bool:
        """Whether a scaler of float16 leaves out updates whose gradients are not finite, and lowers its scale."""
        return self._accelerator.scaler is not None and self._accelerator.scaler.is_enabled()

    # --- agreement ---

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the processes, of scalars that each names alike."""
        names = sorted(values)
        stacked = torch.stack([values[name].float().reshape(()) for name in names])
        reduced = self._accelerator.reduce(stacked, reduction="mean") if self.count > 1 else stacked
        found = dict(zip(names, reduced.tolist(), strict=True))
        return {name: found[name] for name in values}

    def any(self, mine: bool) -> bool:
        """Whether any process says so."""
        if self.count == 1:
            return mine
        flag = torch.tensor([float(mine)], device=self.device)
        return bool(self._accelerator.reduce(flag, reduction="sum").item() > 0)

    def gather(self, mine: Any) -> list[Any]:
        """What every process has, in the order of ranks."""
        return everybodys(mine)

    def wait(self) -> None:
        """Until all are here."""
        self._accelerator.wait_for_everyone()

    def memory_mb(self) -> float:
        """Most memory that this process has held: of the accelerator where there is one, else resident, in MB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    # --- state ---

    def state(self, wrapped: nn.Module, optimizer: Any) -> dict[str, Any]:
        """Weights and optimiser state, whole, on every process."""
        model = self._accelerator.unwrap_model(wrapped)
        scaler = self._accelerator.scaler
        extra = {} if scaler is None else {"scaler": scaler.state_dict()}
        if not self.sharded:
            return {"model": model.state_dict(), "optimizer": optimizer.optimizer.state_dict(), **extra}
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, rest = get_state_dict(model, optimizer.optimizer, options=options)
        return {"model": weights, "optimizer": rest, **extra}

    def load(self, wrapped: nn.Module, optimizer: Any, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave, be it of a sharded run, whose optimiser's state has names, or of another, where it has numbers."""
        model = self._accelerator.unwrap_model(wrapped)
        if self._accelerator.scaler is not None and "scaler" in state:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        if not self.sharded:
            model.load_state_dict(state["model"])
            optimizer.optimizer.load_state_dict(state["optimizer"])
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        set_state_dict(
            model, optimizer.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )  # fmt: skip

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Shards put together."""
        if not self.sharded:
            return dict(tensors)
        from torch.distributed.tensor import DTensor

        return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in tensors.items()}

    def unsharded(self, model: nn.Module) -> nn.Module:
        """The network with whole weights: itself, or under FSDP a copy built from its configuration."""
        if not self.sharded:
            return model
        whole = self.whole(model.state_dict())
        copy: nn.Module = type(model)(model.config)
        copy.load_state_dict({name: value.cpu() for name, value in whole.items()})
        return copy.eval()

    @contextmanager
    def gathered(self, run: Run) -> Iterator[None]:
        """Inside, the run's network is whole, so that validation may call any part of it: under FSDP a copy."""
        sharded = run.model
        run.model = self.unsharded(sharded).to(self.device)
        try:
            yield
        finally:
            run.model = sharded

    def like(self, tensors: Mapping[str, Tensor], shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors cut as ``shards`` are."""
        if not self.sharded:
            return dict(tensors)
        from torch.distributed.tensor import DTensor, distribute_tensor

        return {
            name: distribute_tensor(tensors[name].to(self.device), like.device_mesh, like.placements)
            if isinstance(like, DTensor)
            else tensors[name]
            for name, like in shards.items()
        }


def my_part(count: int) -> range:
    """Which of ``count`` items this process looks at where the processes divide them: every W-th."""
    if not several():
        return range(count)
    return range(torch.distributed.get_rank(), count, torch.distributed.get_world_size())


def everybodys(mine: T) -> list[T]:
    """What every process has, in the order of ranks; all of them must call this."""
    if not several():
        return [mine]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return found


def moved(value: Any, device: torch.device) -> Any:
    """The tensors of nested dictionaries, lists, tuples and dataclasses on a device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: moved(getattr(value, field.name), device) for field in fields(value)})
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    if isinstance(value, tuple):
        parts = (moved(item, device) for item in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _leave() -> None:
    """Before the interpreter ends: the group's threads would outlive it, and now and then abort a process whose work is done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

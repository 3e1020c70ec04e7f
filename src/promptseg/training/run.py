"""What a family gives the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..contracts import Recipe
from ..errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image


class Run(ABC):
    """A network, its examples by number, and the losses of a batch. The loop knows no loss by name and no data.

    ``model``: what is trained and saved; the recipe's patterns choose among its parameter names. Families add what else they can: memory
    between steps, a validation, pictures.
    """

    model: nn.Module

    @abstractmethod
    def example(self, number: int) -> Any:
        """The example of this number, a pure function of it (see `feed`)."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Any:
        """Consecutive examples as a batch: tensors, or containers of them, are moved to the device."""

    @abstractmethod
    def losses(self, batch: Any) -> Mapping[str, Tensor]:
        """Named scalars, already weighted: their sum is minimised. Means over the batch, so that equal parts average to the whole."""

    def describe(self, number: int) -> str:
        """Which sample an example is made of, for messages."""
        return f"number {number}"

    def state(self) -> dict[str, Any]:
        """What the run remembers between steps beside the weights: anything a checkpoint can hold."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027  # most runs remember nothing
        """Take back what `state` gave."""

    def finished(self, model: nn.Module) -> nn.Module:
        """What is saved as the result, made from ``model``, the network with averaged weights, which stays as it is."""
        return model

    def validate(self) -> Mapping[str, float]:
        """Figures of the network as it stands (averaged weights, evaluation mode); larger is better."""
        return {}

    def pictures(self) -> Image | None:
        """What the network says of a few photographs now."""
        return None


def check_offered(recipe: Recipe, run: Run) -> None:
    """Whether the run has what the recipe asks of it between steps.

    Raises:
        ConfigError: it asks for validation or pictures, and the run has none.
    """
    for setting, method, what in (("validate_every", "validate", "validation"), ("pictures_every", "pictures", "pictures")):
        if getattr(recipe, setting) is not None and getattr(type(run), method) is getattr(Run, method):
            raise ConfigError(f"{setting}: the training of {recipe.name!r} has no {what}; leave the setting out.")

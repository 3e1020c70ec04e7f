"""Trainings of which one goes on from the result of another: which come first, and what each leaves to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..contracts import Recipe
    from ..segmenter import Segmenter


def stages(recipe: Recipe) -> list[Recipe]:
    """The trainings that lead to a recipe's result, in order, the recipe last; without those that are done."""
    from ..zoo.checkpoints import WEIGHTS_FILE

    earlier: Recipe | None = getattr(package(recipe), "earlier", lambda recipe: None)(recipe)
    done = earlier is None or (Path(earlier.output) / WEIGHTS_FILE).is_file()
    return [recipe] if earlier is None or done else [*stages(earlier), recipe]


def begun(recipe: Recipe) -> bool:
    """Whether there is a run to go on with in the recipe's output."""
    from .checkpoints import found

    return bool(found(Path(recipe.output)))


def left_by(recipe: Recipe) -> Segmenter:
    """The network that a training has left in its output, on the CPU in float32.

    Raises:
        ConfigError: it is not there.
        WeightsError: it cannot be read.
    """
    from ..segmenter import load

    if not Path(recipe.output).exists():
        raise ConfigError(f"{recipe.output} is not there yet. `promptseg train {recipe.name} -o {recipe.output}` makes it.")
    return load(recipe.output, device="cpu", precision="float32")


def package(recipe: Recipe) -> Any:
    """The module of the recipe's family, see `models`."""
    from ..models import family
    from ..zoo import card

    return family(card(recipe.card).family)

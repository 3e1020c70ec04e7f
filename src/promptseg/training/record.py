"""The recipe that a run's folder holds: what it was trained with, and whether another recipe may go on with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..contracts import Recipe
from ..errors import ConfigError, DataError
from ..zoo.configs import to_plain
from . import checkpoints

RECIPE = "recipe.json"
MAY_DIFFER = ("output", "steps", "workers", "save_every_s", "keep", "validate_every", "pictures_every", "trackers")


def prepare(recipe: Recipe, resume: bool) -> None:
    """Make the output folder, and see whether the recipe may begin a run there, or go on with the one that it holds.

    Raises:
        ConfigError: the run was begun with another setting on which its weights depend, or has taken more steps already.
        DataError: the folder cannot be used, see `checkpoints.prepare`, or its recipe cannot be read.
    """
    folder = Path(recipe.output)
    checkpoints.prepare(folder, resume)
    if not (saved := checkpoints.found(folder)):
        return
    if (taken := checkpoints.step_of(saved[0])) > recipe.steps:
        raise ConfigError(f"steps: the run in {folder} has taken {taken} already; {recipe.steps} are fewer. Begin again in another folder.")
    if not (folder / RECIPE).exists():  # removed, so as to go on regardless
        return
    for name, then, now in _differences(_read(folder), _plain(recipe)):
        raise ConfigError(
            f"{name}: the run in {folder} was begun with {then!r}, not {now!r}. Resume it with its own settings, or begin again in another "
            f"folder. Only these may differ: {', '.join(MAY_DIFFER)}."
        )


def keep(recipe: Recipe) -> None:
    """Write the recipe, every setting of it, into the output folder.

    Raises:
        DataError: it cannot be written.
    """
    checkpoints.save_text(Path(recipe.output) / RECIPE, json.dumps(_plain(recipe), indent=1, ensure_ascii=False) + "\n")


def _plain(recipe: Recipe) -> Any:
    """As it comes back from the file."""
    return json.loads(json.dumps(to_plain(recipe), default=str))


def _read(folder: Path) -> Any:
    try:
        return json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / RECIPE}, the recipe of the run to resume, cannot be read: {error}.") from None


def _differences(then: Any, now: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that are not alike: where they stand, such as "options.size", and both values."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        if then != now:
            yield where, then, now
        return
    for key in dict.fromkeys((*now, *then)):
        if where or key not in MAY_DIFFER:
            yield from _differences(then.get(key), now.get(key), f"{where}.{key}" if where else key)

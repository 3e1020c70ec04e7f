"""Between which values the numbers of a recipe make sense."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import ConfigError

__all__ = ["check_bounds"]

_BOUNDS: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    ("at least 1", lambda value: value >= 1, ("steps", "batch_size", "accumulate", "keep", "validate_every", "pictures_every")),
    ("at least 0", lambda value: value >= 0, ("workers", "save_every_s")),
    ("at least 0 and finite", lambda value: 0 <= value < math.inf, ("lr", "weight_decay")),
    ("more than 0", lambda value: value > 0, ("epsilon", "clip")),
    ("from 0 up to, not including, 1", lambda value: 0 <= value < 1, ("ema", "betas")),
    ("from 0 up to, not including, 2 ** 63", lambda value: 0 <= value < 2**63, ("seed",)),
)


def check_bounds(settings: object) -> None:
    """Look at those attributes of a recipe, or of a group of parameters, that have bounds. A setting that is None is off.

    Raises:
        ConfigError: a number is out of its bounds; NaN is in none.
    """
    for wanted, fits, names in _BOUNDS:
        for name in names:
            value = getattr(settings, name, None)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(number is None or fits(number) for number in numbers):
                raise ConfigError(f"{name} is {wanted}, not {value!r}.")

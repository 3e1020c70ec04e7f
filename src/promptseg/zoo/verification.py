"""Are these the published weights? The model's outputs on one photo, beside the values that its authors or porters published."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..contracts import Reference
from ..devices import cache_folder
from ..errors import ConfigError, DataError
from ..models import FAMILIES
from .catalogue import cards
from .locations import load

if TYPE_CHECKING:
    from ..prompts import ImageInput

MAX_PHOTO: Final = 20 * 2**20  # bytes; the COCO photo has 170 kB


@dataclass(frozen=True, slots=True)
class Check:
    """One published value: ``difference`` is the largest absolute one, ``tolerance`` what is allowed."""

    what: str
    source: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # False for NaN


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome for one model; ``passed`` says that the weights are the published ones."""

    name: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify(name: str | PathLike[str], photo: ImageInput | None = None, *, card: str | None = None) -> Verification:
    """Compare weights with the published values of their model.

    Args:
        name, card: as in `load`.
        photo: the reference photo; None downloads it from its address once and keeps it.

    Raises:
        ConfigError: no values are published for this model.
        DataError: the photo cannot be downloaded; the message gives its address.
        UnknownModel, WeightsNotFound, WeightsError: see `load`.
    """
    from ..images import load as load_photo

    model, entry = load(name, card=card)
    references = references_of(entry.name)
    module = _module(entry.family)
    checks: list[Check] = []
    for reference in references:
        pixels = load_photo(photo if photo is not None else _fetch(reference.photo_url))
        checks += compare(reference, module.observe(model, reference, pixels))
    return Verification(entry.name, tuple(checks))


def references_of(name: str) -> Sequence[Reference]:
    """The published values of a card.

    Raises:
        ConfigError: there are none.
    """
    known = _known()
    if name not in known:
        raise ConfigError(f"No outputs of {name!r} are published to compare with. Models that have some: {', '.join(known)}.")
    return known[name]


def can_verify(name: str) -> bool:
    """Whether values of a card are published, so that `verify` has something to compare with."""
    return name in _known()


def _known() -> dict[str, Sequence[Reference]]:
    able = [entry for entry in cards() if _has_module(entry.family)]
    found = {entry.name: _module(entry.family).REFERENCES.get(entry.name, ()) for entry in able}
    return {name: references for name, references in found.items() if references}


def compare(reference: Reference, observed: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Checks of the published values against the nearest of several observations (ways in which the photo may have been prepared)."""
    attempts = [_checks(reference, values) for values in observed]
    return min(attempts, key=lambda checks: sum(not check.passed for check in checks))


def _checks(reference: Reference, values: Mapping[str, Any]) -> list[Check]:
    import torch

    checks = []
    for what, expected in reference.values.items():
        found, wanted = torch.as_tensor(values[what]).double(), torch.tensor(expected, dtype=torch.float64)
        checks.append(Check(what, reference.source, float((found - wanted).abs().max()), reference.tolerance))
    return checks


def _fetch(url: str) -> Path:
    """The reference photo, downloaded once."""
    from urllib.error import URLError
    from urllib.request import urlopen

    path = cache_folder() / "verification" / url.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise URLError("HF_HUB_OFFLINE is set")
        with urlopen(url, timeout=20) as response:
            data = response.read(MAX_PHOTO)
    except (URLError, OSError) as error:
        raise DataError(f"The reference photo {url} cannot be downloaded ({error}). Get it elsewhere and give it with --photo.") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return path


def _has_module(family: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(f"{FAMILIES[family]}.verification") is not None
    except ModuleNotFoundError:  # a family that is a single module
        return False


def _module(family: str) -> Any:
    return import_module(f"{FAMILIES[family]}.verification")

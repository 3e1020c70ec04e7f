"""How DenseCLIP's detectors may be asked. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ....contracts import Options
from ....errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionOptions(Options):
    """The photo is enlarged or shrunk until a side reaches its limit, ``long`` for the longer and ``short`` for the shorter one, in pixels.

    The published models have positions for 1344 x 1344 pixels at most.
    """

    long: int = 1333
    short: int = 800

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if not isinstance(self.long, int) or not isinstance(self.short, int) or not 32 <= self.short <= self.long <= 1344:
            wrong = f"{self.short!r} and {self.long!r}"
            raise ConfigError(f"short and long are sides in whole pixels, 32 to 1344, the shorter one first; not {wrong}.")
        if (self.fit, self.size, self.tile) != (None, None, None):
            raise ConfigError("Detectors see the whole photo in its own aspect: leave fit, size and tile out, choose with short and long.")
        if self.templates is not None or self.synonyms != "max":
            raise ConfigError("Detectors read the bare names of their classes, each by itself: leave templates and synonyms out.")

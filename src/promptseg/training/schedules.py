"""Learning-rate schedules: pure functions of the step. Imports no torch.

    schedule.rate(base, step, steps)   the rate at update ``step`` (from 0) of a run of ``steps``, for a group whose rate is ``base``
    schedule.factor(step, steps)       the same for base 1: what to multiply rates with, where the schedule has no ``minimum``

A ``minimum`` is a rate and not a share, as in torch: groups of different base end at the same rate, and one of base 0 rises to it. Past
its end a schedule stays where it ended. In files a schedule is a table with its ``kind``: ``{kind: cosine, minimum: 1.0e-4}``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..errors import ConfigError


class _Rule(ABC):
    __slots__ = ()

    @abstractmethod
    def rate(self, base: float, step: int, steps: int) -> float:
        """The rate at ``step``, 0-based, of a run of ``steps`` for a group whose rate is ``base``."""

    def factor(self, step: int, steps: int) -> float:
        """`rate` for base 1."""
        return self.rate(1.0, step, steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(_Rule):
    """The same rate throughout."""

    kind: Literal["constant"] = "constant"

    def rate(self, base: float, step: int, steps: int) -> float:
        """``base``."""
        return base


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine(_Rule):
    """Half a cosine from the base to ``minimum``, as torch's `CosineAnnealingLR` (CLIPSeg, CAT-Seg, GroupViT, PSALM).

    ``period``: steps from top to bottom [T_max]; None: the whole run.
    """

    minimum: float = 0.0
    period: int | None = None
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        _check(self.minimum >= 0, "minimum is the rate at the end, at least 0", self.minimum)
        _check(self.period is None or self.period > 0, "period is a number of steps, at least 1, or null for the whole run", self.period)

    def rate(self, base: float, step: int, steps: int) -> float:
        """minimum + (base - minimum) (1 + cos(pi step / period)) / 2."""
        share = _progress(step, self.period or steps)
        return self.minimum + (base - self.minimum) * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Poly(_Rule):
    """A power of what is left of the run, down to ``minimum`` (mmcv's rule, DenseCLIP); power 1 is a straight line."""

    power: float = 0.9
    minimum: float = 0.0
    kind: Literal["poly"] = "poly"

    def __post_init__(self) -> None:
        _check(self.power > 0, "power is above 0", self.power)
        _check(self.minimum >= 0, "minimum is the rate at the end, at least 0", self.minimum)

    def rate(self, base: float, step: int, steps: int) -> float:
        """minimum + (base - minimum) (1 - step / steps) ^ power."""
        return self.minimum + (base - self.minimum) * math.pow(1 - _progress(step, steps), self.power)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStep(_Rule):
    """Times ``gamma`` at each of the steps ``milestones`` (DenseCLIP's detectors: the first steps of epochs 8 and 11 of 12)."""

    milestones: tuple[int, ...]
    gamma: float = 0.1
    kind: Literal["multistep"] = "multistep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        rising = list(self.milestones) == sorted(set(self.milestones)) and min(self.milestones, default=1) > 0
        _check(rising, "milestones are steps above 0 in rising order", self.milestones)
        _check(0 < self.gamma <= 1, "gamma is above 0 and at most 1", self.gamma)

    def rate(self, base: float, step: int, steps: int) -> float:
        """base gamma ^ (number of milestones at or before step)."""
        return base * self.gamma ** bisect_right(self.milestones, step)


Main: TypeAlias = Constant | Cosine | Poly | MultiStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup(_Rule):
    """A straight rise from ``start``, a share of the base, at step 0 to the base at step ``steps``; ``main`` comes in as ``join`` says:

    "then"      main begins ``hold`` steps after the rise ends and has the steps that are left (transformers, PSALM)
    "replace"   main runs from step 0; the rise stands in its place at first, and may end above it (timm, GroupViT)
    "multiply"  main runs from step 0; the rise is a factor on it (mmcv, DenseCLIP)
    """

    steps: int
    start: float = 0.0
    hold: int = 0
    main: Main = field(default_factory=Cosine)
    join: Literal["then", "replace", "multiply"] = "then"
    kind: Literal["warmup"] = "warmup"

    def __post_init__(self) -> None:
        _check(self.steps >= 0, "steps is the length of the rise, at least 0", self.steps)
        _check(self.hold == 0 or (self.hold > 0 and self.join == "then"), "hold is a number of steps, with join 'then' only", self.hold)
        _check(0 <= self.start <= 1, "start is a share of the rate, 0 to 1", self.start)
        _check(self.join in ("then", "replace", "multiply"), "join is 'then', 'replace' or 'multiply'", self.join)

    def rate(self, base: float, step: int, steps: int) -> float:
        """See the class."""
        if step >= self.steps:
            passed = self.steps + self.hold if self.join == "then" else 0
            return self.main.rate(base, max(0, step - passed), steps - passed)
        rise = self.start + (1 - self.start) * step / self.steps
        return rise * (self.main.rate(base, step, steps) if self.join == "multiply" else base)


Schedule: TypeAlias = Constant | Cosine | Poly | MultiStep | Warmup


def _progress(step: int, steps: int) -> float:
    return min(1.0, step / max(1, steps))


def _check(fits: bool, rule: str, given: object) -> None:
    if not fits:
        raise ConfigError(f"schedule: {rule}, not {given!r}.")

"""The rules of GroupViT's published training runs (paper, section 4.1; published configurations)."""

from __future__ import annotations

from ...training.schedules import Cosine, Warmup


def schedule(warmup: int, start: float = 0.0025, minimum: float = 4e-5) -> Warmup:
    """A straight rise over ``warmup`` steps from the share ``start`` of the rate, standing in place of the beginning of a cosine.

    The cosine counts from step 0, so the rate drops where the rise ends. The published loop sets the rate of step t after step t: there
    the first two steps have the rate of step 0.
    """
    return Warmup(steps=warmup, start=start, main=Cosine(minimum=minimum), join="replace")


def decays(name: str, dimensions: int) -> bool:
    """Whether weight decay acts on a parameter: not on vectors and biases, but on the temperatures, which have no dimension."""
    return dimensions != 1 and not name.endswith(".bias")

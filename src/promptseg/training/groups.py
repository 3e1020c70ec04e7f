"""Which parameters learn, and at which rate: name patterns of a recipe -> optimiser groups."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from ..contracts import ParameterGroup, Recipe
from ..errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share a rate: ``pattern`` "" holds those that no pattern names."""

    pattern: str
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float

    @property
    def count(self) -> int:
        """Numbers in all its parameters."""
        return sum(parameter.numel() for parameter in self.parameters)


def arrange(model: nn.Module, recipe: Recipe) -> list[Group]:
    """Freeze what the recipe freezes and sort the rest; the first pattern that fits a name wins. What the family froze stays frozen.

    Raises:
        ConfigError: a pattern fits no parameter, or nothing is left to train.
    """
    names: dict[ParameterGroup | None, list[str]] = {}
    used: set[ParameterGroup] = set()
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        rule = next((rule for rule in recipe.groups if any(fnmatchcase(name, pattern) for pattern in rule.pattern.split("|"))), None)
        if rule is not None:
            used.add(rule)
            parameter.requires_grad_(parameter.requires_grad and not rule.frozen)
        if parameter.requires_grad:
            names.setdefault(rule, []).append(name)
    _check_used(recipe.groups, used, tuple(parameters))
    groups = [
        Group(
            rule.pattern if rule else "",
            tuple(found),
            tuple(parameters[name] for name in found),
            recipe.lr * (rule.lr if rule else 1.0),
            recipe.weight_decay if rule is None or rule.weight_decay is None else rule.weight_decay,
        )
        for rule, found in names.items()
    ]
    if not groups:
        raise ConfigError("The recipe's groups freeze every parameter: there is nothing to train.")
    return groups


def _check_used(rules: Sequence[ParameterGroup], used: Set[ParameterGroup], known: tuple[str, ...]) -> None:
    for rule in rules:
        if rule not in used:
            raise ConfigError(f"No parameter is left for the pattern {rule.pattern!r} of groups.{nearest(rule.pattern, known)}")

"""Foreign checkpoints to our parameter names and back, by two-way tables of rules; every tensor is accounted for.

A *layout* is one way in which people have a model's weights: a name and a sequence of `contracts.Rule`. The first rule whose pattern
matches a name decides. The strictness is the point: a tensor that no rule names, a parameter that nothing fills, a shape that differs and
a value that is not finite are all errors that list the tensors by their published names.

    ours = from_official(rules, state_dict, shapes_of(model))       theirs = to_official(rules, model.state_dict())
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from ..contracts import Absent, Drop, Rename, Rule, Split
from ..errors import WeightsError

StateDict: TypeAlias = Mapping[str, Tensor]
Shapes: TypeAlias = Mapping[str, Sequence[int]]
Network = TypeVar("Network", bound=nn.Module)


def load_official(model: nn.Module, layouts: Mapping[str, Sequence[Rule]], *state_dicts: StateDict) -> None:
    """Fill ``model`` from the files of any published layout, in any order; the layout is recognised by its names.

    Raises:
        WeightsError: the files do not hold exactly the tensors that the model needs.
    """
    theirs = join(*state_dicts)
    expected = shapes_of(model)
    rules = layouts[detect(layouts, theirs, expected)]
    model.load_state_dict(from_official(rules, theirs, expected))


def built(make: Callable[[], Network], layouts: Mapping[str, Sequence[Rule]], *state_dicts: StateDict) -> Network:
    """The network that ``make`` builds, with published weights, in evaluation mode on the CPU.

    Raises:
        WeightsError: as `load_official`.
    """
    with torch.device("meta"):  # no random numbers are drawn for weights that are about to be replaced
        model = make()
    model.to_empty(device="cpu")
    load_official(model, layouts, *state_dicts)
    return model.eval()


def load(model: nn.Module, state_dict: StateDict) -> None:
    """Fill ``model`` from tensors under our own names, as strictly as `load_official`.

    Raises:
        WeightsError: as `from_official`.
    """
    model.load_state_dict(from_official((Rename("{name}", "{name}"),), state_dict, shapes_of(model)))


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Parameter and buffer names of a network with their shapes: what a checkpoint must fill."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def join(*state_dicts: StateDict) -> dict[str, Tensor]:
    """The tensors of several files as one state dict.

    Raises:
        WeightsError: two files hold the same name with different tensors.
    """
    result: dict[str, Tensor] = {}
    for state_dict in state_dicts:
        clash = [name for name in state_dict if name in result and not _same(result[name], state_dict[name])]
        if clash:
            raise WeightsError(f"Two of the files hold different tensors under the same name: {_list(clash)}. Give each part once.")
        result.update(state_dict)
    return result


def detect(layouts: Mapping[str, Sequence[Rule]], theirs: Iterable[str], ours: Iterable[str]) -> str:
    """Name of the layout that leaves the fewest tensors unexplained and the fewest parameters unfilled."""
    names, wanted = tuple(theirs), tuple(ours)

    def misfit(layout: str) -> int:
        rules = layouts[layout]
        needed = [part for name in wanted for part in _official_names(rules, name)]
        return sum(_find(rules, name) is None for name in names) + len(set(needed) - set(names))

    return min(layouts, key=misfit)


def from_official(rules: Sequence[Rule], state_dict: StateDict, expected: Shapes) -> dict[str, Tensor]:
    """Their tensors under our names; dtypes stay as they are.

    Args:
        rules: the layout's table.
        state_dict: their names and tensors, of all files together (`join`).
        expected: our names and shapes (`shapes_of`).

    Raises:
        WeightsError: with ``missing``, ``unexpected`` and ``misshaped`` in their names, or for values that are not finite.
    """
    absent = {name: _value(rules, name, shape) for name, shape in expected.items() if isinstance(_rule_for(rules, name), Absent)}
    expected = {name: shape for name, shape in expected.items() if name not in absent}
    sources = {name: _official_names(rules, name) for name in expected}
    needed = {part for parts in sources.values() for part in parts}
    missing = [f"{name} (our name; this layout has none)" for name, parts in sources.items() if not parts]
    missing += [part for parts in sources.values() for part in parts if part not in state_dict]
    unexpected = [name for name in state_dict if name not in needed and not isinstance(_find(rules, name), Drop)]
    misshaped = [text for name, shape in expected.items() for text in _misshaped(rules, name, shape, sources[name], state_dict)]
    _refuse(missing, unexpected, misshaped)
    result = {name: _assemble(_rule_for(rules, name), [state_dict[part] for part in parts]) for name, parts in sources.items()} | absent
    _check_finite(rules, result)
    _check_copies(rules, state_dict)
    return result


def to_official(rules: Sequence[Rule], ours: StateDict, *, partial: bool = False) -> dict[str, Tensor]:
    """Our tensors under their names: the reverse of `from_official`, including copies that they store twice (sharing memory).

    Tensors that a `Drop` rule names without saying what they repeat cannot come back. ``partial``: leave out what the rules do not name.

    Raises:
        WeightsError: a tensor of ours has no rule in this layout, or two have the same name (a network whose configuration was never
            published).
    """
    result: dict[str, Tensor] = {}
    homeless = [name for name in ours if not _official_names(rules, name) and not isinstance(_rule_for(rules, name), Absent)]
    if homeless and not partial:
        raise WeightsError(f"This layout has no names for {_list(homeless)}. Save in our own folder format instead.", unexpected=homeless)
    for name, tensor in ours.items():
        if parts := _official_names(rules, name):
            if taken := [part for part in parts if part in result]:
                raise WeightsError(f"This layout has one place, {_list(taken)}, for two tensors. Save in our own folder format instead.")
            result.update(zip(parts, _take_apart(_rule_for(rules, name), tensor, len(parts)), strict=True))
    for drop in rules:
        if isinstance(drop, Drop) and drop.same_as is not None:
            copies = {_translate(drop.same_as, drop.theirs, name): name for name in result}
            result.update({copy: result[name] for copy, name in copies.items() if copy is not None})
    return result


# --- patterns ---------------------------------------------------------------------------------------------------------------------------


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    """``blocks.{i}.norm{j}.{rest}``: one-letter places stand for an integer, longer ones for anything."""
    parts = re.split(r"\{(\w+)\}", pattern)
    places = [f"(?P<{place}>{'[0-9]' if len(place) == 1 else '.'}+)" for place in parts[1::2]]
    literals = [re.escape(literal) for literal in parts[::2]]
    return re.compile("".join(text for pair in zip(literals, [*places, ""], strict=True) for text in pair))


def _translate(source: str, target: str, name: str) -> str | None:
    """``name`` carried from pattern to pattern, or None where it does not match."""
    match = _regex(source).fullmatch(name)
    return target.format_map(match.groupdict()) if match else None


def _find(rules: Sequence[Rule], official: str) -> Rule | None:
    """The first rule that speaks of a tensor of theirs."""
    for rule in rules:
        patterns = () if isinstance(rule, Absent) else rule.theirs if isinstance(rule, Split) else (rule.theirs,)
        if any(_regex(pattern).fullmatch(official) for pattern in patterns):
            return rule
    return None


def _rule_for(rules: Sequence[Rule], ours: str) -> Rename | Split | Absent | None:
    """The first rule that fills a parameter of ours."""
    for rule in rules:
        if not isinstance(rule, Drop) and _regex(rule.ours).fullmatch(ours):
            return rule
    return None


def _official_names(rules: Sequence[Rule], ours: str) -> tuple[str, ...]:
    """Their names of the tensors that make up one of ours; empty where no rule does."""
    rule = _rule_for(rules, ours)
    if rule is None or isinstance(rule, Absent):
        return ()
    patterns = rule.theirs if isinstance(rule, Split) else (rule.theirs,)
    return tuple(name for pattern in patterns if (name := _translate(rule.ours, pattern, ours)) is not None)


# --- tensors ----------------------------------------------------------------------------------------------------------------------------


def _value(rules: Sequence[Rule], ours: str, shape: Sequence[int]) -> Tensor:
    """The tensor of a parameter that a layout does not hold."""
    rule = _rule_for(rules, ours)
    assert isinstance(rule, Absent)
    return torch.full(tuple(shape), rule.value)


def _assemble(rule: Rename | Split | Absent | None, parts: Sequence[Tensor]) -> Tensor:
    tensor = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    if isinstance(rule, Rename) and rule.trailing and tensor.ndim == 3:
        return tensor[..., 0]
    return tensor.T.contiguous() if isinstance(rule, Rename) and rule.transpose else tensor


def _take_apart(rule: Rename | Split | Absent | None, tensor: Tensor, count: int) -> list[Tensor]:
    if isinstance(rule, Rename) and rule.trailing and tensor.ndim == 2:
        return [tensor[..., None]]
    if isinstance(rule, Rename):
        return [tensor.T.contiguous() if rule.transpose else tensor]
    return [part.clone() for part in tensor.chunk(count)]  # cloned: parts of one memory cannot be written to safetensors


def _misshaped(rules: Sequence[Rule], name: str, shape: Sequence[int], parts: Sequence[str], theirs: StateDict) -> list[str]:
    rule, shape = _rule_for(rules, name), tuple(shape)
    if isinstance(rule, Rename) and rule.transpose:
        shape = shape[::-1]
    elif isinstance(rule, Rename) and rule.trailing and len(shape) == 2:
        shape = (*shape, 1)
    elif len(parts) > 1:
        shape = (shape[0] // len(parts), *shape[1:])
    found = {part: tuple(theirs[part].shape) for part in parts if part in theirs}
    return [f"{part} {actual} instead of {shape}" for part, actual in found.items() if actual != shape]


def _refuse(missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str]) -> None:
    kinds = {"missing": missing, "not part of this model": unexpected, "of another shape": misshaped}
    found = [f"{len(names)} {kind}: {_list(names)}" for kind, names in kinds.items() if names]
    if found:
        message = f"The weights do not fit this model: {'; '.join(found)}. Check that the files are complete and of the named model."
        raise WeightsError(message, missing=missing, unexpected=unexpected, misshaped=misshaped)


def _check_finite(rules: Sequence[Rule], ours: StateDict) -> None:
    bad = [name for name, tensor in ours.items() if not _finite(tensor)]
    if bad:
        names = [part for name in bad for part in _official_names(rules, name)]
        other = ", or load it in another precision than float16" if any(ours[name].dtype == torch.float16 for name in bad) else ""
        raise WeightsError(f"Weights that are not finite numbers (NaN or infinity) in {_list(names)}. Get the file again{other}.")


def _check_copies(rules: Sequence[Rule], theirs: StateDict) -> None:
    """Their copies should repeat what we read. Where they do not, what we read decides, as the last writer does in their code."""
    differing = []
    for name in theirs:
        rule = _find(rules, name)
        original = _translate(rule.theirs, rule.same_as, name) if isinstance(rule, Drop) and rule.same_as else None
        if original is not None and original in theirs and not _same(theirs[name], theirs[original]):
            differing.append(name)
    if differing:
        warnings.warn(f"{len(differing)} tensors should repeat others but differ, and are not used: {_list(differing)}.", stacklevel=4)


def _finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))  # NaN is both; no copy of the tensor is made


def _same(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return (a.data_ptr(), a.stride()) == (b.data_ptr(), b.stride()) or torch.equal(a, b)


def _list(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"

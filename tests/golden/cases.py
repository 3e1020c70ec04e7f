"""A reference case: its arguments, inputs, weights and expected results, read from ``NAME.json`` and ``NAME.safetensors``."""

from __future__ import annotations

import ast
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import fill
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor

HERE = Path(__file__).resolve().parent
COLLECTION = HERE.parents[1].parent / "shared" / "golden"  # the whole collection, where there is one beside the repository

Results: TypeAlias = Mapping[str, Any]  # what a runner computed, by the names of the family's list of kinds


class NotYetError(Exception):
    """A variant of a known kind whose network is not part of the package yet."""


@dataclass(frozen=True)
class Check:
    """One comparison: ``error`` 0 is exact, 1 is the whole tolerance, beyond it the case fails."""

    name: str
    error: float
    largest: float  # largest absolute difference, in the tensor's own unit
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= 1


class Case:
    """One file of the collection; nothing is read before it is needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.family: str = self.data["family"]
        self.kind: str = self.data["kind"]

    @cached_property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Every stored tensor, decoded."""
        if not self.data["tensors"]:
            return {}
        stored = load_file(self.path.with_suffix(".safetensors"))
        return {name: _decode(stored[name], facts) for name, facts in self.data["tensors"].items()}

    @cached_property
    def args(self) -> Any:
        """The arguments with every rule carried out: images uint8 (H, W, 3), tensors of the case as torch tensors."""
        return self._resolve(self.data["args"])

    @cached_property
    def wanted(self) -> frozenset[str]:
        """Names of the results and values that are compared."""
        return frozenset(_key(facts) for facts in self._outputs().values()) | frozenset(self.data.get("values", {}))

    def state_dict(self) -> dict[str, Tensor]:
        """The published checkpoint that the case was computed with."""
        rule = self.data["weights"]
        if rule["fill"] == "state_dict":
            entries = [(name, tuple(shape)) for name, shape, dtype in self.data["state_dict"] if "float" in dtype]
            state = {name: _filled(name, shape) for name, shape in entries}
        else:
            state = dict(_filled_inventory(self._find(rule["fill"])))
        for name, factor in rule.get("scale", {}).items():
            state[name] = state[name] * factor
        for name, value in rule.get("set", {}).items():
            value = self._resolve(value)
            state[name] = value.to(state[name].dtype) if isinstance(value, Tensor) else torch.full_like(state[name], value)
        return state

    def compare(self, results: Results) -> list[Check]:
        """Each expected tensor and value against its own tolerance, in the order of the file."""
        checks = [compare(name, self.tensors[name], _part(results, facts), facts["tol"]) for name, facts in self._outputs().items()]
        for name, expected in self.data.get("values", {}).items():
            checks.append(compare_value(name, expected["value"], results.get(name, _MISSING), expected.get("tol")))
        return checks

    def _outputs(self) -> dict[str, Any]:
        return {name: facts for name, facts in self.data["tensors"].items() if facts["role"] != "in"}

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        for rule, carry_out in self._rules.items():
            if rule in node and node.keys() <= {rule, "key"} and not (rule == "table" and not str(node[rule]).endswith(".json")):
                return carry_out(node)
        return {key: self._resolve(value) for key, value in node.items()}

    @property
    def _rules(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "fill.image": lambda node: fill.image(*node["fill.image"]),
            "fill.weight": lambda node: _scaled_weight(*node["fill.weight"]),
            "fill.gumbel": lambda node: _gumbel(*node["fill.gumbel"]),
            "normal": lambda node: _normal(*node["normal"]),
            "tensor": lambda node: torch.from_numpy(self.tensors[node["tensor"]]),
            "table": lambda node: _table(self._find(node["table"]), node.get("key")),
        }

    def _find(self, name: str) -> Path:
        """A table or inventory: beside the case, in the collection, or among the cases of the repository."""
        places = [self.path.parent, COLLECTION / self.family, HERE / self.family]
        for place in places:
            if (place / name).is_file():
                return place / name
        raise FileNotFoundError(f"{self.path}: {name} is in none of {', '.join(map(str, places))}.")


def _decode(stored: NDArray[Any], facts: Mapping[str, Any]) -> NDArray[Any]:
    if facts.get("encoding") != "zlib":
        return stored
    return np.frombuffer(zlib.decompress(stored.tobytes()), dtype=facts["decoded_dtype"]).reshape(facts["decoded_shape"]).copy()


def _filled(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(fill.weight(name, shape))


@lru_cache(maxsize=1)
def _filled_inventory(path: Path) -> dict[str, Tensor]:
    entries = _entries(json.loads(path.read_text(encoding="utf-8")))
    owned = [entry for entry in entries if "alias_of" not in entry and entry.get("filled", True) and "float" in entry["dtype"]]
    return {entry["name"]: _filled(entry["name"], tuple(entry["shape"])) for entry in owned}


def _entries(inventory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tensors of an inventory; families call the list one or the other."""
    found: list[dict[str, Any]] = inventory.get("tensors") or inventory["entries"]
    return found


def _table(path: Path, key: str | None) -> Any:
    found = json.loads(path.read_text(encoding="utf-8"))
    for part in key.split(".") if key else ():
        found = found[part]
    return found


def _scaled_weight(name: str, shape: list[int], factor: float) -> Tensor:
    return _filled(name, tuple(shape)) * torch.tensor(factor, dtype=torch.float32)


def _normal(name: str, shape: list[int]) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32))


def _gumbel(name: str, shape: list[int]) -> Tensor:
    uniform = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode()))).uniform(1e-6, 1 - 1e-6, shape)
    return torch.from_numpy((-np.log(-np.log(uniform))).astype(np.float32))


# --- comparing --------------------------------------------------------------------------------------------------------------------------

_MISSING = object()


def _key(facts: Mapping[str, Any]) -> str:
    """The result's name; gradients and parameters after the steps, which are of others of the same name, are ``grad/X``, ``after/X``."""
    name: str = facts["of"]
    return name if facts["role"] == "out" else f"{facts['role']}/{name}"


def _part(results: Results, facts: Mapping[str, Any]) -> Any:
    """The stored part of a result."""
    value = results.get(_key(facts), _MISSING)
    if value is _MISSING:
        return value
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array[index_of(facts["slice"])] if facts.get("slice") else array


def index_of(text: str) -> Any:
    """``[:, 0, ::4]`` as an index."""
    expression = ast.parse(f"x{text}", mode="eval").body
    assert isinstance(expression, ast.Subscript)
    return _literal(expression.slice)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    if isinstance(node, ast.Slice):
        return slice(*(None if part is None else ast.literal_eval(part) for part in (node.lower, node.upper, node.step)))
    return ast.literal_eval(node)


def compare(name: str, reference: NDArray[Any], result: Any, tolerance: Mapping[str, Any]) -> Check:
    if result is _MISSING:
        return Check(name, math.inf, math.inf, "the runner has no such result")
    if result.shape != reference.shape:
        return Check(name, math.inf, math.inf, f"shape {result.shape} instead of {reference.shape}")
    a, b = np.asarray(result, np.float64), np.asarray(reference, np.float64)
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    largest = float(difference.max(initial=0))
    return Check(name, _excess(difference, b, tolerance), largest)


def _excess(difference: NDArray[np.float64], reference: NDArray[np.float64], tolerance: Mapping[str, Any]) -> float:
    """The error as a multiple of what is allowed; whatever is not a number is beyond it."""
    if "equal" in tolerance:
        return 0.0 if not difference.any() else math.inf
    if "min_equal" in tolerance:
        wrong, allowed = float(np.mean(difference != 0)) if difference.size else 0.0, 1 - tolerance["min_equal"]
        return _ratio(wrong, allowed)
    if "fro" in tolerance:
        return _ratio(float(np.linalg.norm(difference)), tolerance["fro"] * float(np.linalg.norm(reference)))
    size = np.abs(np.where(np.isfinite(reference), reference, 0))
    absolute = tolerance.get("atol", 0) + tolerance.get("atol_of_max", 0) * float(size.max(initial=0))
    allowed = tolerance.get("rtol", 0) * size + absolute
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(difference == 0, 0, difference / allowed)
    return math.inf if np.isnan(ratios).any() else float(ratios.max(initial=0))


def _ratio(error: float, allowed: float) -> float:
    if math.isnan(error):
        return math.inf
    return error / allowed if allowed else (0.0 if error == 0 else math.inf)


def compare_value(name: str, expected: Any, result: Any, tolerance: Mapping[str, Any] | None) -> Check:
    if result is _MISSING:
        return Check(name, math.inf, math.inf, "the runner has no such value")
    numeric = tolerance is not None and "equal" not in tolerance and expected is not None and result is not None
    if numeric:
        assert tolerance is not None
        return compare(name, np.asarray(expected, np.float64), np.asarray(result, np.float64), tolerance)
    same = result == expected
    return Check(
        name, 0.0 if same else math.inf, 0.0 if same else math.inf, "" if same else f"{_short(result)} instead of {_short(expected)}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

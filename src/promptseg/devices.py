"""Which device and which number format a model runs in, and the one measurement that "auto" rests on.

Torch is imported inside the functions, so that the command line can read this module's names without it.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# Three digits are given up for answers at least twice as fast. Softmax and normalisation gain little, so products must gain more: with
# matrix units they gain 5 and more; with AVX-512 alone 2.1 (up to 2.9 as measured on a busy machine), and whole answers 1.6 to 1.9
FAST_ENOUGH = 3.0
_SHAPE = (484, 768, 3072)  # (tokens, width, hidden) of one CLIP ViT-B/16 layer at 352 pixels: the product that dominates
_ROUNDS = 5

__all__ = ["PRECISIONS", "Precision", "bfloat16_gain", "cache_folder", "choose_device", "choose_precision"]


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """ "auto" is the first of CUDA, Apple's Metal and the CPU that is there; anything else must exist.

    Raises:
        ConfigError: torch does not know the name, or this machine has no such device.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"{device!r} is no device. Use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(chosen.type, 0)
    if (chosen.index or 0) >= count:
        raise ConfigError(f"The device {str(chosen)!r} is not on this machine. Use 'cpu', or 'auto' for the best that is there.")
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations; results are float32 whatever it is.

    "auto" is bfloat16 where its products are measured to be at least `FAST_ENOUGH` times as fast, else float32.

    Raises:
        ConfigError: no such precision.
    """
    import torch

    if precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise ConfigError(f"{precision!r} is no precision; allowed: {allowed}.{nearest(str(precision), PRECISIONS)}")
    if precision == "auto":
        return torch.bfloat16 if bfloat16_gain(device) >= FAST_ENOUGH else torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def bfloat16_gain(device: torch.device) -> float:
    """How many times as fast bfloat16 matrix products are as float32 ones; measured once per machine and torch, then remembered."""
    path = cache_folder() / "bfloat16.json"
    known = _read(path)
    key = _machine(device)
    if key not in known:
        known[key] = round(_measure(device), 2)
        _write(path, known)
    return float(known[key])


def cache_folder() -> Path:
    """Where promptseg remembers things: ``$PROMPTSEG_CACHE``, else ``promptseg`` in the user's cache folder. Not created here."""
    if own := os.environ.get("PROMPTSEG_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "promptseg"


def _machine(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{torch.backends.cpu.get_cpu_capability()} x{torch.get_num_threads()}"
    return " | ".join((platform.node(), device.type, name, torch.__version__))


def _measure(device: torch.device) -> float:
    """Quickest of a few rounds each, in turn, so that other work on the machine disturbs both alike."""
    import torch

    tokens, width, hidden = _SHAPE
    a, b = torch.ones(tokens, width, device=device), torch.ones(width, hidden, device=device)
    low_a, low_b = a.bfloat16(), b.bfloat16()
    _timed(a, b), _timed(low_a, low_b)  # the first product pays for set-up
    rounds = [(_timed(a, b), _timed(low_a, low_b)) for _ in range(_ROUNDS)]
    return min(float32 for float32, _ in rounds) / min(bfloat16 for _, bfloat16 in rounds)


def _timed(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    (a @ b)[0, 0].item()  # reading one value waits for the device
    return time.perf_counter() - start


def _read(path: Path) -> dict[str, Any]:
    """What was remembered; nothing when the file is missing, unreadable or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, int | float)} if isinstance(known, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    """Remember if possible: a read-only home only means measuring again next time (some milliseconds)."""
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
        draft.replace(path)
    except OSError:
        return

"""``promptseg doctor``: what a bug report should say, and what a slow or lonely machine explains."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import typer

PACKAGES = ("torch", "numpy", "pillow", "safetensors", "huggingface-hub", "tokenizers", "ftfy")
HUB = ("huggingface.co", 443)

__all__ = ["doctor"]


def doctor() -> None:
    """Show versions, the device and precision that will be used, where things are kept, and whether the model hub can be reached."""
    for head, text in _findings():
        typer.echo(f"{head:<16}{text}")


def _findings() -> Iterator[tuple[str, str]]:
    import torch

    from .. import __version__, zoo
    from ..devices import FAST_ENOUGH, bfloat16_gain, cache_folder, choose_device, choose_precision

    yield "promptseg", __version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        yield package, _version(package)
    device = choose_device("auto")
    yield "device", f"{device}" + (f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "")
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"
    gain = bfloat16_gain(device)
    dtype = str(choose_precision("auto", device)).removeprefix("torch.")
    yield "precision", f"{dtype} (bfloat16 products are {gain:g} times as fast as float32 ones; used from {FAST_ENOUGH:g})"
    folder = cache_folder()
    yield "cache", f"{folder}{'' if _writable(folder) else ' (cannot be written: what is measured or downloaded is not kept)'}"
    yield "network", _network()
    yield "models here", ", ".join(card.name for card in zoo.cards() if zoo.here(card.name)) or "none"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _writable(folder: os.PathLike[str]) -> bool:
    """Whether the folder, or the nearest one above it that exists, can be written."""
    path = os.path.abspath(folder)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK)


def _network() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "offline: HF_HUB_OFFLINE is set"
    if not _reachable():
        return f"offline: {HUB[0]} cannot be reached; built-in and converted models work"
    return f"{HUB[0]} can be reached"


def _reachable() -> bool:
    try:
        with socket.create_connection(HUB, timeout=3):
            return True
    except OSError:
        return False

"""One way in for all weight files: whatever the format, a flat mapping from names to tensors comes out, and no file runs code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import UnsafeFile, WeightsError, WeightsNotFound
from .inert import Placeholder, TensorView

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .archives import Archive

WRAPPERS: Final = ("state_dict", "model", "model_state_dict", "module", "weights")  # under which training programs file their state dict
SINGLE_FILES: Final = ("model.safetensors", "pytorch_model.bin")  # Hugging Face folders
INDEX_FILES: Final = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
MAX_ATTRIBUTES: Final = 100_000  # of all modules of a TorchScript archive; CLIP's largest have some ten thousand
MAX_NAME: Final = 1000  # characters
MAX_TIED: Final = 8  # times the size of its file that a checkpoint may take; tied tensors have several names
CLASS: Final = re.compile(r"^class (\w+)\(Module\):\n((?:  __\w+__ = \[[^\]\n]*\]\n)+)", re.MULTILINE)


def read_weights(path: Path | str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint: safetensors, `torch.save` of any age, TorchScript, a sharded index, or a folder with one of them.

    The format is told from the content. Tensors are views of the mapped file where the format allows it. Wrappers of training programs
    (``{"state_dict": ...}``) and the ``module.`` prefix of data-parallel training are removed. ``dtype``: what floating-point tensors are
    converted to one by one, so that memory holds the stored values of one tensor at a time; None: all stay as they are stored.

    Raises:
        WeightsNotFound: no such file.
        UnsafeFile: a pickle that asks for code to be run, or an index that points outside its folder.
        WeightsError: damaged, or no checkpoint; every message names the file.
    """
    path = Path(path)
    try:
        return _read(_inside(path), dtype)
    except WeightsError as error:
        error.args = (f"{path}: {error}",)
        raise
    except OSError as error:
        file = error.filename or path
        raise WeightsNotFound(f"{file} cannot be read: {error.strerror or error}. Check the name and that the file may be read.") from None


def _inside(path: Path) -> Path:
    """The file that holds a folder's weights; a file is itself."""
    if not path.is_dir():
        return path
    for name in (*SINGLE_FILES, *INDEX_FILES):
        if (path / name).is_file():
            return path / name
    raise WeightsNotFound(f"The folder {path} holds none of {', '.join((*SINGLE_FILES, *INDEX_FILES))}. Name the weight files themselves.")


def _read(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":  # eight bytes of length, then the header
        return _read_safetensors(path, dtype)
    return _read_shards(path, dtype) if start[:1] == b"{" else _read_archive(path, dtype)


def _read_archive(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    from .archives import open_archive

    archive = open_archive(path)
    scripted = isinstance(archive.root, Placeholder) and archive.root.of.startswith("__torch__.")
    result: dict[str, Tensor] = {}
    left = MAX_TIED * max(path.stat().st_size, 1_000_000)
    for name, view in _module_tensors(archive) if scripted else _named_tensors(archive):
        stored = archive.tensor(view)
        result[name] = _converted(stored, dtype)
        if result[name] is not stored:
            archive.forget()
            left -= stored.nbytes
            if left < 0:
                raise WeightsError("It names the same values over and over, beyond what any network ties. Get it again, from its authors.")
    return result


def _read_safetensors(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        result: dict[str, Tensor] = load_file(path)  # views of the mapped file, of which nothing was read yet
        for name, stored in result.items():
            if dtype not in (None, stored.dtype) and stored.is_floating_point():
                with safe_open(path, framework="pt") as file:  # anew: what was read of a mapped file is memory until it is closed
                    result[name] = _converted(file.get_tensor(name), dtype)
        return result
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
        raise WeightsError(f"The safetensors file is damaged ({str(error)[:100]}). Get it again.") from None


def _converted(stored: Tensor, dtype: torch.dtype | None) -> Tensor:
    return stored.to(dtype) if dtype is not None and stored.is_floating_point() else stored


def shard_places(index: Path) -> dict[str, str]:
    """The Hugging Face index of a checkpoint in several files, ``{"weight_map": {name: file}}`` -> each tensor's file, beside the index.

    Raises:
        UnsafeFile: it points elsewhere.
        WeightsError: it is no index.
    """
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = set(places.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError("This JSON file is no index of weight files (it has no 'weight_map' of names to files).") from None
    for name in files:
        plain = isinstance(name, str) and name == Path(name).name and name.endswith((".safetensors", ".bin"))
        if not plain or "\\" in name or "\0" in name:
            raise UnsafeFile(f"The index points to {str(name)[:100]!r}; shards lie beside their index. Nothing was loaded.")
    return places


def _read_shards(index: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    places = shard_places(index)
    result: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        read = _read_safetensors if name.endswith(".safetensors") else _read_archive
        result.update(read(index.parent / name, dtype))
    lost = [name for name in places if name not in result]
    if lost:
        raise WeightsError(f"The shards lack {len(lost)} tensors that their index names, such as {lost[0]}. Get them again.", missing=lost)
    return result


# --- state dicts inside other objects ---------------------------------------------------------------------------------------------------


def _named_tensors(archive: Archive) -> Iterator[tuple[str, TensorView]]:
    """The state dict's entries, without the prefix of data-parallel training."""
    found = _state_dict(archive.root)
    strange = [str(name)[:60] for name, value in found.items() if not isinstance(name, str) or not isinstance(value, TensorView)]
    if strange:
        raise WeightsError(
            f"The state dict holds {len(strange)} entries that are no tensors: {', '.join(strange[:6])}.", unexpected=strange
        )
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return ((name.removeprefix(prefix), view) for name, view in found.items())


def _state_dict(root: Any) -> Mapping[Any, Any]:
    """The mapping that holds tensors: the object itself or what a training program wrapped around it."""
    if isinstance(root, Mapping):
        if any(isinstance(value, TensorView) for value in root.values()):
            return root
        for name in WRAPPERS:
            inner = root.get(name)
            if isinstance(inner, Mapping) and any(isinstance(value, TensorView) for value in inner.values()):
                return inner
    what = f"a pickled {root.of[:80]}" if isinstance(root, Placeholder) else f"a {type(root).__name__} without named tensors"
    raise WeightsError(f"The file holds no state dict but {what}. Save `model.state_dict()` and name that file.")


def _module_tensors(archive: Archive) -> Iterator[tuple[str, TensorView]]:
    """Parameters and buffers of a TorchScript module by their dotted names: what its ``state_dict()`` would say."""
    registered = _registered(archive.sources)
    pending: list[tuple[str, Any]] = [("", archive.root)]
    seen = 0
    while pending:
        prefix, module = pending.pop()
        if not isinstance(module, Placeholder) or not isinstance(module.state, Mapping):
            continue
        ours = registered.get(module.of)
        seen += len(module.state)
        if seen > MAX_ATTRIBUTES:
            raise WeightsError("The TorchScript archive repeats its modules over and over. Get it again.")
        for name, value in module.state.items():
            if not isinstance(name, str) or len(prefix) + len(name) > MAX_NAME:
                raise WeightsError(
                    "The TorchScript archive's modules lie in each other without end, or their names do not end. Get it again."
                )
            if isinstance(value, TensorView) and (ours is None or name in ours):
                yield f"{prefix}{name}", value
            elif isinstance(value, Placeholder):
                pending.append((f"{prefix}{name}.", value))


def _registered(sources: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Every class's names of parameters and buffers, which its source lists; other tensors (masks, constants) are not in a state dict."""
    return {
        f"{file.removesuffix('.py').replace('/', '.')}.{found[1]}": frozenset(re.findall(r'"([^"]+)"', found[2]))
        for file, text in sources.items()
        for found in CLASS.finditer(text)
    }

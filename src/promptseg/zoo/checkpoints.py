"""Networks from weights and back: published layouts in both directions, and our own folder (config.json + model.safetensors)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from shutil import copymode
from typing import TYPE_CHECKING, Any, Final, Literal

from ..contracts import Card, Rule
from ..errors import ConfigError, WeightsError, WeightsNotFound
from ..models import FAMILIES, family
from .catalogue import card as find_card
from .configs import from_plain, to_plain
from .reading import read_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORMAT: Final = "promptseg"
CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"


def from_official(card_name: str, *state_dicts: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> nn.Module:
    """The network of a card with published weights, in evaluation mode.

    Args:
        card_name: which model the weights are of.
        state_dicts: one or several files' tensors in any published layout, in any order; the layout is told from the names.
        dtype: see `zoo.load`.

    Raises:
        UnknownModel: no such card.
        WeightsError: a tensor is missing, unknown, of another shape or not finite; all are listed by their published names.
    """
    entry = find_card(card_name)
    model: nn.Module = family(entry.family).Model.from_official(entry.config, *state_dicts, **_format(entry.family, dtype))
    return model


def _format(name: str, dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    """``dtype=`` for the files and the network of a family too large for two copies; others are float32, and converted when they run."""
    import torch

    return {"dtype": dtype or torch.float32} if hasattr(family(name).Model, "from_own") else {}


def to_official(model: nn.Module, layout: Literal["official", "hf"] | str = "official") -> dict[str, Tensor]:
    """The weights of a network under published names: the reverse of `from_official`, bit-exact for what no `Drop` rule names.

    Families may have further layouts and parts of them, such as CLIPSeg's "decoder" and "clip", the two files that people have.

    Raises:
        ConfigError: the family has no such layout.
        WeightsError: the network is a variant that was never published in this layout.
    """
    from ..nn.conversion import to_official as convert

    package = family(_family_of(model))
    parts: Mapping[str, Sequence[Rule]] = getattr(package, "PARTS", {})
    layouts: Mapping[str, Sequence[Rule]] = {**getattr(package, "LAYOUTS", {}), **parts}
    if layout not in layouts:
        raise ConfigError(f"{_family_of(model)} has no layout {layout!r}; it has {', '.join(layouts) or 'none'}.")
    return convert(layouts[layout], model.state_dict(), partial=layout in parts)


def save_folder(model: nn.Module, folder: str | PathLike[str], card: str, *, trained: str | None = None) -> Path:
    """Write a network in our format, which is the Hugging Face Hub's: ``config.json`` and ``model.safetensors``.

    ``trained``: by which run, where the weights are not the card's but of a training of one's own. The weights file appears last and whole:
    an interrupted call leaves no folder that looks complete, unless it is what was there before.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"format": FORMAT, "version": 1, "family": _family_of(model), "card": card, "config": to_plain(model.config)}
    about |= {"trained": trained, "parameters": sum(part.numel() for part in model.parameters())} if trained else {}
    unfinished = folder / f"{WEIGHTS_FILE}.unfinished"
    packed = getattr(family(about["family"]), "pack", dict)(model.state_dict())
    save_file({name: tensor.detach().contiguous() for name, tensor in packed.items()}, unfinished, {"format": "pt"})
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)  # memory that is mapped from it, perhaps this network's own, stays
    (folder / CONFIG_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if save_beside := getattr(model, "save_beside", None):
        save_beside(folder)
    with suppress(OSError):  # a file system without modes
        copymode(folder / CONFIG_FILE, unfinished)  # the library's own is for the owner's eyes only
    unfinished.replace(folder / WEIGHTS_FILE)
    return folder


def card_of(folder: str | PathLike[str]) -> Card:
    """The card of a folder that `save_folder` wrote, with the folder's configuration and preprocessing; its weights are not read.

    Of weights that were trained here the card's summary, licences, number of parameters, files and figures say nothing: the folder's own
    stand for the first three, and the others are left out.

    Raises:
        WeightsNotFound, ConfigError: as `load_folder`.
    """
    folder = Path(folder)
    about = _about(folder)
    entry = find_card(str(about["card"]))
    config = from_plain(type(entry.config), about["config"], f"{folder / CONFIG_FILE}: config")
    shown = getattr(config, "preprocess", entry.preprocess)  # a backbone may have been trained on other colours than the card's
    entry = replace(entry, config=config, preprocess=shown)
    if trained := about.get("trained"):
        entry = replace(
            entry,
            summary=f"trained here ({trained})",
            code_license="Apache-2.0 (promptseg's own)",
            weights_license=f"trained here ({trained}): the terms of its data, and of the weights that it started from",
            parameters=about.get("parameters", 0),  # 0: the folder is of a version that did not count
            published=(),
            metrics={},
        )
    return entry


def load_folder(folder: str | PathLike[str], dtype: torch.dtype | None = None) -> tuple[nn.Module, Card]:
    """A network that `save_folder` wrote and its card, see `card_of`. ``dtype``: see `zoo.load`.

    Raises:
        WeightsNotFound: a file is missing.
        ConfigError: ``config.json`` is not ours or has unknown keys.
        WeightsError: the weights do not fit the configuration.
    """
    from ..nn.conversion import load

    folder = Path(folder)
    entry = card_of(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise WeightsNotFound(f"The folder {folder} has no {WEIGHTS_FILE}; convert or pull the model again.")
    package, wanted = family(entry.family), _format(entry.family, dtype)
    tensors = getattr(package, "unpack", dict)(read_weights(folder / WEIGHTS_FILE, **wanted))
    model: nn.Module
    if hasattr(package.Model, "from_own"):
        model = package.Model.from_own(entry.config, tensors, **wanted)
    else:
        model = package.Model(entry.config)
        load(model, tensors)
    return _accompanied(model, folder).eval(), entry


def is_folder(path: Path) -> bool:
    """Whether `save_folder` wrote here."""
    try:
        return bool(_about(path))
    except (ConfigError, WeightsNotFound):
        return False


def convert(files: Sequence[str | PathLike[str]], card: str, output: str | PathLike[str]) -> Path:
    """Turn published files at hand into a folder of ours, strictly.

    Args:
        files: all files of one layout: CLIPSeg's decoder file and CLIP's own, or a Hugging Face file or folder.
        card: name of the model that the files are of.

    Raises:
        UnknownModel, WeightsNotFound, UnsafeFile, WeightsError: see `from_official` and `read_weights`.
    """
    return save_folder(load_files(files, card), output, card)


def load_files(files: Sequence[str | PathLike[str]], card: str, dtype: torch.dtype | None = None) -> nn.Module:
    """The network of a card from published files. A decoder file finds its companions in its own folder. ``dtype``: see `zoo.load`.

    Raises:
        UnknownModel, WeightsNotFound, UnsafeFile, WeightsError: see `from_official` and `read_weights`.
        WeightsError: a file is called as one whose SHA-256 is known, and has another.
    """
    entry = find_card(card)
    if not files:
        raise WeightsNotFound("No weight file was named.")
    paths = [Path(file) for file in files]
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    _check_sums(entry, paths)

    def read(files: Sequence[Path]) -> nn.Module:
        wanted = _format(entry.family, dtype)
        return from_official(card, *(read_weights(file, **wanted) for file in files), dtype=dtype)

    try:
        return _accompanied(read(paths), folder)
    except WeightsError as error:
        companions = _companions(entry, paths)
        if error.missing and not companions and entry.published:
            sets = "; or ".join(" and ".join(published.files) for published in entry.published)
            error.args = (f"{error} {card} is published as {sets}.",)
        if not error.missing or not companions:
            raise
        _check_sums(entry, [path for path in companions if path not in paths])
        return read(companions)


def sha256(path: Path) -> str:
    """A file's checksum, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_sums(entry: Card, paths: Sequence[Path]) -> None:
    """Compare files of known names with what was published under them; they are the user's and stay.

    Raises:
        WeightsError: one differs.
    """
    known = {name: (checksum, published) for published in entry.published for name, checksum in published.sha256.items()}
    for path in paths:
        checksum, published = known.get(path.name, ("", None))
        if published and path.is_file() and (found := sha256(path)) != checksum:
            raise WeightsError(
                f"{path} is not the published {path.name}: its SHA-256 is {found} instead of {checksum}. Get it again ({published.url}), "
                "or give it another name where it is meant to be another."
            )


def _accompanied(model: nn.Module, folder: Path) -> nn.Module:
    """The network with what else it takes from the folder of its weights, such as a tokenizer."""
    if accompany := getattr(model, "accompany", None):
        accompany(folder)
    return model


def _companions(entry: Card, paths: Sequence[Path]) -> list[Path]:
    """The complete set of published files that lie beside the one that was named; empty where there is no such set."""
    for published in entry.published:
        beside = [paths[0].parent / name for name in published.files]
        if paths[0] in beside and len(beside) > len(paths) and all(path.is_file() for path in beside):
            return beside
    return []


def _about(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsNotFound(f"The folder {folder} has no {CONFIG_FILE}; it is not one that promptseg wrote.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}). Convert or pull the model again.") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT or not {"card", "config"} <= about.keys():
        raise ConfigError(f"{path} is not promptseg's. For published files: promptseg convert FILE... --as NAME -o FOLDER.")
    return about


def _family_of(model: nn.Module) -> str:
    module = f"{type(model).__module__}."
    for name, home in FAMILIES.items():
        if module.startswith(f"{home}."):
            return name
    raise ConfigError(f"{type(model).__name__} belongs to none of the families {', '.join(FAMILIES)}.")

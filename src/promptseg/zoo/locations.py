"""Where weights lie on this machine, and loading by name. Looking up places imports no torch.

The places, in this order: the package itself (embedded models); ``CACHE/models/NAME``, as our folder or as published files that somebody
put there; the Hugging Face cache, into which `pull` (and transformers) download. CACHE is `devices.cache_folder`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .. import models
from ..contracts import Card, Published
from ..devices import cache_folder
from ..errors import ConfigError, UnknownModel, WeightsError, WeightsNotFound
from .catalogue import card as find_card
from .catalogue import cards, known
from .checkpoints import WEIGHTS_FILE, is_folder, load_files, load_folder
from .reading import INDEX_FILES, shard_places

if TYPE_CHECKING:
    import torch
    from torch import nn


def load(name: str | PathLike[str], *, card: str | None = None, dtype: torch.dtype | None = None) -> tuple[nn.Module, Card]:
    """The network of a card, of a folder of ours, or of a published file or Hugging Face folder, which needs its card's name.

    ``dtype``: what it is going to run in, None: float32. A network too large for two copies in memory (PSALM) has it from the start; others
    are float32, and converted by whoever runs them.

    Raises:
        UnknownModel: neither a card nor a path.
        WeightsNotFound: the card's weights are not on this machine; the message says how to get them.
        ConfigError: a bare weight file without ``card``, or a folder of another card.
        UnsafeFile, WeightsError: the file cannot be used.
    """
    text = os.fspath(name)
    if card in (None, text) and (entry := known(text)) is not None:
        return _load_known(entry, dtype)
    path = Path(text)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise WeightsNotFound(
                f"There is no file or folder {text!r}. Check the path; `promptseg models` lists the models known by name."
            )
        raise UnknownModel(text, [entry.name for entry in cards()])
    if is_folder(path):
        model, entry = load_folder(path, dtype)
        if card is not None and card != entry.name:
            raise ConfigError(f"The folder {path} holds {entry.name!r}, not {card!r}. Leave the card's name out.")
        return model, entry
    if card is None:
        names = ", ".join(entry.name for entry in cards() if entry.published)
        raise ConfigError(f"{path} holds bare weights; say of which model they are: card='NAME', one of {names}.")
    return load_files([path], card, dtype), find_card(card)


def weights(name: str) -> tuple[Path, ...]:
    """The files, or the one folder, that hold a card's weights on this machine.

    Raises:
        UnknownModel: no such card.
        WeightsNotFound: they are not here; the message says what to do, with and without a network.
    """
    entry = find_card(name)
    for place in _places(entry):
        if all(path.exists() for path in place):
            return place
    raise WeightsNotFound(how_to_get(entry))


def here(name: str) -> bool:
    """Whether `load` would find a card's weights.

    Raises:
        UnknownModel: no such card.
    """
    try:
        return bool(weights(name))
    except WeightsNotFound:
        return False


def size_on_disk(name: str) -> int | None:
    """Bytes of the weight files of a card that are on this machine; None where they are not.

    Raises:
        UnknownModel: no such card.
    """
    if not here(name):
        return None
    return sum((path / WEIGHTS_FILE if path.is_dir() else path).stat().st_size for path in weights(name))


def own_folder(name: str) -> Path:
    """Where a card's weights may be put by hand, and where ``promptseg convert`` puts them when it is not told otherwise."""
    return cache_folder() / "models" / name


def how_to_get(entry: Card) -> str:
    """A sentence for somebody who wants a card's weights, with or without a network."""
    ways = [_by_hand(published) for published in entry.published]
    if not ways:
        return f"The weights of {entry.name!r} are not published; train them and give the folder instead of the name."
    missing, by_hand = f"The weights of {entry.name!r} are not on this machine", f"put into {own_folder(entry.name)} {'; or '.join(ways)}."
    if not any(published.hub for published in entry.published):
        return f"{missing}, and no download is known that needs no browser. By hand (about {entry.size_mb:.0f} MB): {by_hand}"
    return f"{missing}. `promptseg pull {entry.name}` downloads them (about {entry.size_mb:.0f} MB). By hand: {by_hand}"


def in_hub_cache(published: Published) -> tuple[Path, ...] | None:
    """A published model's files in the Hugging Face cache, if all are there, the shards of an index included."""
    from huggingface_hub import try_to_load_from_cache

    if published.hub is None:
        return None
    found = [try_to_load_from_cache(published.hub, name) for name in published.files]
    files = tuple(Path(path) for path in found if isinstance(path, str))
    return files if len(files) == len(found) and all(map(_whole, files)) else None


def _whole(file: Path) -> bool:
    """Whether the shards of a file that is an index are beside it; a download may have stopped between two of them."""
    if file.name not in INDEX_FILES:
        return True
    try:
        return all((file.parent / shard).exists() for shard in set(shard_places(file).values()))
    except (OSError, WeightsError):
        return False


def _places(entry: Card) -> list[tuple[Path, ...]]:
    """Where a card's weights may be, best first."""
    places: list[tuple[Path, ...]] = []
    if entry.embedded:
        home = Path(str(models.family(entry.family).__file__)).parent
        places.append((home / "weights",))
    folder = own_folder(entry.name)
    if is_folder(folder) and (folder / WEIGHTS_FILE).is_file():
        places.append((folder,))
    places += [tuple(folder / name for name in published.files) for published in entry.published]
    places += [found for published in entry.published if (found := in_hub_cache(published))]
    return places


def _load_known(entry: Card, dtype: torch.dtype | None) -> tuple[nn.Module, Card]:
    place = weights(entry.name)
    if len(place) == 1 and place[0].is_dir():
        model, stored = load_folder(place[0], dtype)
        return model, replace(entry, config=stored.config)
    return load_files(place, entry.name, dtype), entry


def _by_hand(published: Published) -> str:
    source = f"https://huggingface.co/{published.hub}" if published.url is None else published.url
    return f"{' and '.join(published.files)} ({source})"

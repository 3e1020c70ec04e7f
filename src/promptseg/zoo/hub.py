"""Downloads from the Hugging Face Hub, through its own client: resumable, with progress bars, into the cache that transformers shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..contracts import Published
from ..errors import WeightsError, WeightsNotFound
from .catalogue import card as find_card
from .checkpoints import sha256
from .locations import here, how_to_get, weights
from .reading import INDEX_FILES, shard_places

CONNECT_S = 3.0  # for each address of the Hub; a reply may take longer
UNREACHABLE = {"ConnectError", "ConnectTimeout", "ConnectionError"}  # what httpx and requests, of which the client uses one, call it


def pull(name: str, *, force: bool = False) -> tuple[Path, ...]:
    """Bring a card's weights to this machine and say where they are.

    What is already here is not fetched again unless ``force``. An interrupted download goes on where it stopped. Every file whose SHA-256
    is known (from the card, or from the Hub, which names large files by it) is checked.

    Raises:
        UnknownModel: no such card.
        WeightsNotFound: offline, or the Hub does not have it; the message says which file to put where.
        WeightsError: a download's checksum is wrong; the file was removed.
    """
    entry = find_card(name)
    if entry.embedded or (here(name) and not force):
        return weights(name)
    reasons = []
    for published in entry.published:
        if published.hub is not None:
            try:
                return _fetch_all(published, force)
            except WeightsNotFound as error:
                reasons.append(str(error))
                if isinstance(error, _UnreachableError):
                    break  # the next file would be no nearer
    reason = f"Could not download: {'; '.join(dict.fromkeys(reasons))} " if reasons else ""
    raise WeightsNotFound(f"{reason}{how_to_get(entry)}")


class _UnreachableError(WeightsNotFound):
    """There is no way to the Hub at all."""


class _MissingError(WeightsNotFound):
    """The repository is there, and the file is not in it."""


def _fetch_all(published: Published, force: bool) -> tuple[Path, ...]:
    """All files of one way; the paths of those that the card names.

    Shards come last, so that weights which look complete never lack what lies beside them.
    """
    files = tuple(_fetch(published, file, force) for file in published.files)
    for file in published.beside:
        with suppress(_MissingError):
            _fetch(published, file, force)
    for index in files:
        if index.name in INDEX_FILES:
            for shard in sorted(set(shard_places(index).values())):
                _fetch(published, shard, force)
    return files


def _fetch(published: Published, file: str, force: bool) -> Path:
    """One file of a repository, checked.

    Raises:
        WeightsNotFound: it cannot be had; the message says why.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    assert published.hub is not None
    transport: type[Exception] = HfHubHTTPError.__bases__[0]  # the base error of the HTTP library that the client uses, whichever it is
    _knock(published.hub, file)
    try:
        path = Path(hf_hub_download(published.hub, file, force_download=force))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise _UnreachableError("there is no network, or HF_HUB_OFFLINE is set.") from None
    except EntryNotFoundError:
        raise _MissingError(f"{published.hub} has no {file}.") from None
    except (transport, HfHubHTTPError, HFValidationError, OSError) as error:
        raise WeightsNotFound(f"{published.hub}/{file}: {_first_line(error)}") from None
    check(path, published.sha256)
    return path


def _knock(repository: str, file: str) -> None:
    """Ask for a file's head once: the client's own functions try for half a minute where there is no network.

    Any reply is a reply, and one that is late is left to the download, too, which is more patient.

    Raises:
        WeightsNotFound: no connection could be made, or none is wanted.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import get_session

    try:
        get_session().head(hf_hub_url(repository, file), timeout=CONNECT_S)
    except OfflineModeIsEnabled:
        raise _UnreachableError("HF_HUB_OFFLINE is set.") from None
    except Exception as error:
        if not UNREACHABLE.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            raise _UnreachableError(f"the Hub cannot be reached ({_first_line(error)}).") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def check(path: Path, known: Mapping[str, str]) -> None:
    """Compare a file with its SHA-256, where one is known, and remove it when it differs.

    Raises:
        WeightsError: it differs.
    """
    stored = path.resolve()  # in the Hub's cache a file is a link to a blob, and large blobs are named by their SHA-256
    expected = known.get(path.name) or (stored.name if re.fullmatch("[0-9a-f]{64}", stored.name) else None)
    if expected is None:
        return
    if (found := sha256(stored)) != expected:
        stored.unlink()
        raise WeightsError(
            f"{path.name} has the SHA-256 {found} instead of {expected}: the download is damaged and was removed. Pull again."
        )

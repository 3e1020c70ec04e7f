"""Telling photos from prompts on a command line. Imports no torch."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError, PromptError

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pnm"))

__all__ = ["SUFFIXES", "Sorted", "sort_arguments"]


@dataclass(frozen=True, slots=True)
class Sorted:
    """What stood on the command line: ``photos`` (files, each once, in order; some may turn out to be missing) and ``prompts``."""

    photos: tuple[Path, ...]
    prompts: tuple[str, ...]


def sort_arguments(arguments: Sequence[str], prompts: Iterable[str] = (), *, need_prompt: bool = True) -> Sorted:
    """Files, folders (with all that lies below them) and globs are photos, anything else is a prompt; ``prompts`` are prompts whatever
    they look like. A name that ends like a photo or a folder but does not exist counts as one, so that a typing mistake is told as one.

    Raises:
        ImageError: no photo is left, a folder is not there, or a folder or glob holds none.
        PromptError: no prompt is left although one is needed.
    """
    photos: dict[Path, None] = {}
    phrases: list[str] = []
    for argument in arguments:
        found = _photos(argument)
        photos.update(dict.fromkeys(found or ()))
        if found is None:
            phrases.append(argument)
    phrases += prompts
    if not photos:
        raise ImageError("No photo was given. Name a file, a folder or a glob: promptseg segment photo.jpg 'a dog'.")
    if need_prompt and not phrases:
        raise PromptError("No prompt was given. Say what to look for: promptseg segment photo.jpg 'a dog' 'the grass'.")
    return Sorted(tuple(photos), tuple(phrases))


def _photos(argument: str) -> list[Path] | None:
    """The photos that an argument names; None when it is a prompt."""
    if not argument.strip():
        raise PromptError("An argument is empty. Say what to look for, such as 'a dog', or write . for this folder.")
    path = _path(argument)
    if argument.endswith(("/", "\\")) and not path.is_dir():
        raise ImageError(f"There is no folder {argument}. Check the path; a prompt does not end in a slash.")
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _is_photo(file) and file.is_file())
    elif path.exists() or (_is_photo(path) and not glob.has_magic(argument)):
        return [path]
    else:
        found = sorted(Path(name) for name in glob.glob(argument, recursive=True) if _is_photo(Path(name)))
        if not found and not _is_photo(path):
            return None  # "where is the dog?" has a glob's question mark, but fits no file
    if not found:
        raise ImageError(f"{argument} holds no photo. Files that end in {', '.join(sorted(SUFFIXES))} are taken.")
    return found


def _path(argument: str) -> Path:
    """The path, also when it is written as on Windows while this system is another."""
    path, other = Path(argument), Path(argument.replace("\\", "/"))
    return other if other.exists() and not path.exists() else path


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES

"""Telling photos from prompts on a command line. Imports no torch."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

from ..errors import ImageError, PromptError
from .outputs import recorded

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pnm"))
OTHERS = frozenset(  # pictures that are found, too, so that each is told as one that cannot be read
    (".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
)

__all__ = ["SUFFIXES", "Sorted", "sort_arguments"]


@dataclass(frozen=True, slots=True)
class Sorted:
    """What stood on the command line: ``photos`` (files, each once, in order; some may turn out to be missing) and ``prompts``."""

    photos: tuple[Path, ...]
    prompts: tuple[str, ...]


def sort_arguments(
    arguments: Sequence[str], prompts: Iterable[str] = (), *, output: Path | None = None, need_prompt: bool = True, option: str = ""
) -> Sorted:
    """Files, folders (with all that lies below them) and globs are photos, anything else is a prompt; ``prompts`` are prompts whatever
    they look like. A name that ends like a photo or a folder but does not exist counts as one, so that a typing mistake is told as one.

    What a run has written is no photo, unless it is named: a folder or glob gives nothing that lies below ``output``, the folder of this
    run's results, unless it is in there itself, and nothing that the record of an earlier run lists. ``option``: what a prompt is written
    behind that is also the name of a file or folder, for messages.

    Raises:
        ImageError: no photo is left, a folder is not there, or a folder or glob holds none.
        PromptError: no prompt is left although one is needed.
    """
    photos: dict[Path, None] = {}
    phrases: list[str] = []
    doubtful = [argument for argument in arguments if option and _may_be_meant_as_prompt(argument)]
    way_out = f" A prompt that is also the name of a file or folder is given as {option} {doubtful[0]!r}." if doubtful else ""
    for argument in arguments:
        try:
            found = _photos(argument, output)
        except ImageError as error:
            raise ImageError(f"{error}{way_out if argument in doubtful else ''}") from None
        photos.update(dict.fromkeys(found or ()))
        if found is None:
            phrases.append(argument)
    phrases += prompts
    if not photos:
        raise ImageError("No photo was given. Name a file, a folder or a glob: promptseg segment photo.jpg 'a dog'.")
    if need_prompt and not phrases:
        raise PromptError(f"No prompt was given. Say what to look for: promptseg segment photo.jpg 'a dog' 'the grass'.{way_out}")
    return Sorted(tuple(photos), tuple(phrases))


def _photos(argument: str, output: Path | None) -> list[Path] | None:
    """The photos that an argument names; None when it is a prompt."""
    if not argument.strip():
        raise PromptError("An argument is empty. Say what to look for, such as 'a dog', or write . for this folder.")
    path = _path(argument)
    if argument.endswith(("/", "\\")) and not path.is_dir():
        raise ImageError(f"There is no folder {argument}. Check the path; a prompt does not end in a slash.")
    if path.is_dir():
        found = _without_results((file for file in path.rglob("*") if _is_photo(file) and file.is_file()), path, output)
    elif path.exists() or (_is_photo(path) and not glob.has_magic(argument)):
        return [path]
    else:
        start = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        found = _without_results((Path(name) for name in glob.glob(argument, recursive=True) if _is_photo(Path(name))), start, output)
        if not found and not _is_photo(path):
            return None  # "where is the dog?" has a glob's question mark, but fits no file
    if not found:
        raise ImageError(
            f"{argument} holds no photo. Files that end in {', '.join(sorted(SUFFIXES))} are taken, results of a run only by name."
        )
    return found


def _without_results(files: Iterable[Path], start: Path, output: Path | None) -> list[Path]:
    """The files found from ``start`` on, in order, but for those that a run wrote."""
    results = output and output.resolve()
    if results and start.resolve().is_relative_to(results):
        results = None  # photos and results share a folder: only the records tell them apart
    written = cache(recorded)

    def ours(file: Path) -> bool:
        if results and file.parent.resolve().is_relative_to(results):
            return True
        return any(file.relative_to(folder).as_posix() in written(folder) for folder in (file.parent, file.parent.parent))

    return sorted(file for file in files if not ours(file))


def _may_be_meant_as_prompt(argument: str) -> bool:
    """A bare word that names a folder, or a file that is no photo by its name."""
    path = Path(argument)
    return bool(argument.strip(". ")) and path.name == argument and not _is_photo(path) and path.exists()


def _path(argument: str) -> Path:
    """The path, also when it is written as on Windows while this system is another."""
    path, other = Path(argument), Path(argument.replace("\\", "/"))
    return other if other.exists() and not path.exists() else path


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES | OTHERS

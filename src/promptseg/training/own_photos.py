"""One's own labelled photos as fine-tuning takes them: checked, named as they are asked for, divided into trained and held-out ones."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.checks import inspect
from ..data.own import annotated, folders_of, own
from ..data.own_checks import label_findings
from ..data.own_names import Asked, is_nothing, joined, meant
from ..data.photosets import AnnotatedPhoto
from ..errors import DataError

__all__ = ["Parts", "asked_for", "checked", "checksum", "divided"]

HELD_OUT = 4  # one photo in so many
VALIDATION = ("val", "valid", "validation")  # folders of photos that their owner holds out
TEST = "test"  # the folder of those that are for measuring afterwards


@dataclass(frozen=True, slots=True)
class Parts:
    """``train`` and ``held_out`` photos; ``names``: what is asked, each shown by one photo to train on at least."""

    train: tuple[AnnotatedPhoto, ...]
    held_out: tuple[AnnotatedPhoto, ...]
    names: tuple[str, ...]


def checked(path: Path, log: Callable[[str], None]) -> list[AnnotatedPhoto]:
    """The photos of ``path``, in any form that `data.own` reads, after every label was looked at. Notes go to ``log``.

    Those in a folder test are left out.

    Raises:
        DataError: something is wrong with the labels; the message names all of it with examples.
    """
    photos = own(path)
    findings = [*inspect(photos).findings, *label_findings(path)]
    for finding in findings:
        if not finding.wrong:
            log(f"note: {finding}")
    wrong = [str(finding) for finding in findings if finding.wrong]
    if wrong:
        raise DataError(
            f"The labels of {path} are not fit for training: {' | '.join(wrong)}. `promptseg data check own {path}` shows more."
        )
    rest = [photo for photo in photos if TEST not in folders_of(photo.path, path)]
    if left_out := len(photos) - len(rest):
        log(f"note: photos in a folder {TEST}, which are left out, for you to measure on afterwards: {left_out}")
    return annotated(rest)


def asked_for(photos: Sequence[AnnotatedPhoto], classes: Asked | Sequence[str] | None) -> list[AnnotatedPhoto]:
    """The photos under the names that are asked, see `data.own_names.meant`. Classes that are not asked for count as nothing.

    Raises:
        ConfigError: a class is none of the data's.
    """
    known = sorted({name for photo in photos for name in (*photo.present, *photo.absent)})
    asked = meant(classes, known)
    return [_renamed(photo, asked) for photo in photos]


def _renamed(photo: AnnotatedPhoto, asked: Asked) -> AnnotatedPhoto:
    def masks() -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        found, unknown = photo.masks()
        return joined(found, asked), unknown

    present = tuple(words for words, names in asked.items() if {*names} & {*photo.present})
    absent = tuple(words for words, names in asked.items() if {*names} <= {*photo.absent})
    return replace(photo, present=present, absent=absent, read_masks=masks)


def divided(photos: Sequence[AnnotatedPhoto], path: Path) -> Parts:
    """The photos of ``path``, a quarter held out, always the same: those in a folder val, where there is one, else by checksum of names.

    No class loses its last photo to the held-out ones, and as many classes as possible are seen in them.

    Raises:
        DataError: there are too few photos, or none that shows anything.
    """
    given = [photo for photo in photos if {*folders_of(photo.path, path)} & {*VALIDATION}]
    held_out = given if 0 < len(given) < len(photos) else _drawn(photos)
    held = set(held_out)
    train = [photo for photo in photos if photo not in held]
    names = tuple(dict.fromkeys(name for photo in train for name in photo.present if not is_nothing(name)))
    if not (train and held_out and names):
        raise DataError(
            f"{len(photos)} labelled photos that show {len(names)} classes: fine-tuning needs two photos at least, one to train on and one "
            "to hold out, and something labelled on the first. Label more."
        )
    return Parts(tuple(train), tuple(held_out), tuple(sorted(names)))


def checksum(photos: Sequence[AnnotatedPhoto]) -> int:
    """Of the photos' names and sizes, and of all that is said of them."""
    code = 0
    for photo in photos:
        masks, unknown = photo.masks()
        said = (photo.id, photo.path.stat().st_size, unknown.shape, photo.present, photo.absent, *masks)
        code = zlib.crc32(repr(said).encode(), code)
        for mask in (*masks.values(), unknown):
            code = zlib.crc32(np.packbits(mask).tobytes(), code)
    return code


def _drawn(photos: Sequence[AnnotatedPhoto]) -> list[AnnotatedPhoto]:
    order = sorted(photos, key=lambda photo: (zlib.crc32(photo.id.encode()), photo.id))
    wanted = max(1, round(len(photos) / HELD_OUT))
    left = Counter(name for photo in photos for name in photo.present)
    held: dict[AnnotatedPhoto, None] = {}  # in this order
    seen: set[str] = set()
    for need_new in (True, False):  # first what shows a class that no held-out photo shows yet
        for photo in order:
            spare = all(left[name] > 1 for name in photo.present)
            if len(held) < wanted and photo not in held and spare and (not need_new or {*photo.present} - seen):
                held[photo] = None
                seen |= {*photo.present}
                left -= Counter(photo.present)
    return list(held)

"""One's own labelled photos as fine-tuning takes them: checked, named as they are asked for, divided into trained and held-out ones."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ..data.checks import inspect
from ..data.own import NOTHING, annotated, own
from ..data.own_checks import label_findings
from ..data.photosets import AnnotatedPhoto
from ..errors import ConfigError, DataError, nearest

__all__ = ["Parts", "asked_for", "checked", "divided"]

HELD_OUT = 4  # one photo in so many
VALIDATION = ("val", "valid", "validation")  # folders of photos that their owner holds out

Asked = Mapping[str, Sequence[str]]  # what is asked -> the classes of the data that it means, joined


@dataclass(frozen=True, slots=True)
class Parts:
    """``train`` and ``held_out`` photos; ``names``: what is asked, each shown by one photo to train on at least."""

    train: tuple[AnnotatedPhoto, ...]
    held_out: tuple[AnnotatedPhoto, ...]
    names: tuple[str, ...]


def checked(path: Path, log: Callable[[str], None]) -> list[AnnotatedPhoto]:
    """The photos of ``path``, in any form that `data.own` reads, after every label was looked at. Notes go to ``log``.

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
    return annotated(photos)


def asked_for(photos: Sequence[AnnotatedPhoto], classes: Asked | Sequence[str] | None) -> list[AnnotatedPhoto]:
    """The photos under the names that are asked: all classes as the data names them, some of them, or some in other words and joined.

    Underscores and hyphens of the data's names are read as blanks. Classes that are not asked for count as nothing.

    Raises:
        ConfigError: a class is none of the data's.
    """
    known = sorted({name for photo in photos for name in (*photo.present, *photo.absent)})
    asked = classes if isinstance(classes, Mapping) else _by_words(known if classes is None else classes)
    for name in (name for names in asked.values() for name in names):
        if name not in known:
            raise ConfigError(f"The data has no class {name!r}.{nearest(name, known)} It has: {', '.join(known)}.")
    return [_renamed(photo, asked) for photo in photos]


def _by_words(names: Sequence[str]) -> Asked:
    """Each name under its own words; names that differ only in how they are joined mean the same."""
    asked: dict[str, tuple[str, ...]] = {}
    for name in names:
        words = " ".join(name.replace("_", " ").replace("-", " ").split()) or name
        asked[words] = (*asked.get(words, ()), name)
    return asked


def _renamed(photo: AnnotatedPhoto, asked: Asked) -> AnnotatedPhoto:
    shown = {words: tuple(name for name in names if name in photo.present) for words, names in asked.items()}
    present = tuple(words for words, names in shown.items() if names)
    absent = tuple(words for words, names in asked.items() if all(name in photo.absent for name in names))
    return replace(photo, present=present, absent=absent, read_masks=partial(_joined, photo, shown))


def _joined(photo: AnnotatedPhoto, shown: Asked) -> tuple[dict[str, np.ndarray], np.ndarray]:
    masks, unknown = photo.masks()
    return {words: np.logical_or.reduce([masks[name] for name in names]) for words, names in shown.items() if names}, unknown


def divided(photos: Sequence[AnnotatedPhoto]) -> Parts:
    """A quarter of the photos held out, always the same ones: those in a folder val, where there is one, else by checksum of their names.

    No class loses its last photo to the held-out ones, and as many classes as possible are seen in them.

    Raises:
        DataError: there are too few photos, or none that shows anything.
    """
    given = [photo for photo in photos if {*PurePosixPath(photo.id).parts[:-1]} & {*VALIDATION}]
    held_out = given if 0 < len(given) < len(photos) else _drawn(photos)
    train = [photo for photo in photos if photo not in held_out]
    names = tuple(dict.fromkeys(name for photo in train for name in photo.present if name not in NOTHING))
    if not (train and held_out and names):
        raise DataError(
            f"{len(photos)} labelled photos that show {len(names)} classes: fine-tuning needs two photos at least, one to train on and one "
            "to hold out, and something labelled on the first. Label more."
        )
    return Parts(tuple(train), tuple(held_out), tuple(sorted(names)))


def _drawn(photos: Sequence[AnnotatedPhoto]) -> list[AnnotatedPhoto]:
    order = sorted(photos, key=lambda photo: (zlib.crc32(photo.id.encode()), photo.id))
    wanted = max(1, round(len(photos) / HELD_OUT))
    left = Counter(name for photo in photos for name in photo.present)
    held: list[AnnotatedPhoto] = []
    seen: set[str] = set()
    for need_new in (True, False):  # first what shows a class that no held-out photo shows yet
        for photo in order:
            spare = all(left[name] > 1 for name in photo.present)
            if len(held) < wanted and photo not in held and spare and (not need_new or {*photo.present} - seen):
                held.append(photo)
                seen |= {*photo.present}
                left -= Counter(photo.present)
    return held

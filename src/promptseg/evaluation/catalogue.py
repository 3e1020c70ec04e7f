"""Every protocol by its name, and reading its options from text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from ..errors import ConfigError, nearest
from .clicks import CocoInteractive
from .detection import CocoDetection
from .expressions import GRefCoco, RefCoco, RefCocoSentences
from .generalisation import Generalisation
from .groupings import VocGroupings
from .imagenet import ImageNet
from .label_maps import CocoObjectMaps, ContextMaps, VocMaps
from .mess import Mess
from .one_shot import Coco20i, Pascal5i, Pascal5iText
from .open_vocabulary import Ade150, Ade847, Context59, Context459, Voc20, Voc20b
from .own import Own
from .panoptic import AdePanoptic, CocoPanoptic
from .pocket import Pocket
from .protocol import Protocol
from .referring import Ablation, Referring, ReferringVisual
from .videos import Davis2017
from .zero_shot import PascalZeroShot

__all__ = ["PROTOCOLS", "options", "protocol"]

KINDS: tuple[type[Protocol], ...] = (
    Own,
    Pocket,
    Referring,
    ReferringVisual,
    Ablation,
    PascalZeroShot,
    Pascal5i,
    Pascal5iText,
    Coco20i,
    Generalisation,
    VocMaps,
    ContextMaps,
    CocoObjectMaps,
    VocGroupings,
    ImageNet,
    Ade847,
    Context459,
    Ade150,
    Context59,
    Voc20,
    Voc20b,
    CocoPanoptic,
    AdePanoptic,
    RefCoco,
    RefCocoSentences,
    GRefCoco,
    CocoInteractive,
    Davis2017,
    CocoDetection,
    Mess,
)
PROTOCOLS: Mapping[str, type[Protocol]] = {kind.NAME: kind for kind in KINDS}


def protocol(name: str, root: str | PathLike[str], **given: Any) -> Protocol:
    """A protocol by name; ``given`` are its options, as values or as texts ("4", "0,1", "true").

    Raises:
        ConfigError: no such protocol or option, or an impossible value.
    """
    from pydantic import TypeAdapter, ValidationError

    if name not in PROTOCOLS:
        raise ConfigError(f"There is no protocol {name!r}.{nearest(name, tuple(PROTOCOLS))} There are: {', '.join(PROTOCOLS)}.")
    kind, known = PROTOCOLS[name], options(name)
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{name} has no option {key!r}.{nearest(key, tuple(known))} It has: {', '.join(known) or 'none'}.")
        wanted = get_type_hints(kind)[key]
        listed = value.split(",") if isinstance(value, str) and get_origin(wanted) is tuple else value
        try:
            values[key] = TypeAdapter(wanted).validate_python(None if listed == "none" else listed)
        except ValidationError as error:
            raise ConfigError(f"{key}={value!r} cannot be: {error.errors()[0]['msg']}.") from None
    return kind(Path(root), **values)


def options(name: str) -> dict[str, Any]:
    """The options of a protocol and their defaults."""
    return {item.name: item.default for item in fields(PROTOCOLS[name]) if item.name != "root"}

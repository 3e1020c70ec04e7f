"""The families: one folder each, one line each in the table below. A module is imported when its family is first used.

A family's module offers, without importing torch, ``CARDS`` (its entries in the catalogue) and ``LAYOUTS`` (name of a published layout ->
conversion rules; "official" and "hf" are what `zoo.to_official` writes); on first use ``Model``, the network (`contracts.Network`), with
``Model(config)`` and ``Model.from_official(config, *state_dicts)``; and, where outputs of the real weights are published, ``verification``
(see `zoo.verification`). A family whose folders store weights in another form than its network holds them (half precision, say) offers
``pack(state_dict)`` and ``unpack(tensors)``, names and tensors both ways. A ``Model`` too large for two copies in memory offers
``from_own(config, tensors, dtype=)`` and has ``dtype=`` in ``from_official``, too: what its weights are to be in. One that needs more than
tensors offers ``accompany(folder)`` and ``save_beside(folder)``, one that can be asked in ways of its own ``OPTIONS``, its kind of
`contracts.Options`, or its kinds. One that can be fine-tuned on own photos offers, on first use, ``PRESETS`` (name -> recipe) and
``FineTune``, the run (`training.own_run`); another says in ``UNTUNED`` why it cannot. One of whose recipes goes on from another's result
offers ``earlier(recipe)``, that other recipe or None.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import UnknownModel

FAMILIES: dict[str, str] = {
    "clipseg": "promptseg.models.clipseg",
    "catseg": "promptseg.models.catseg",
    "groupvit": "promptseg.models.groupvit",
    "denseclip": "promptseg.models.denseclip",
    "pocket": "promptseg.models.pocket",
    "psalm": "promptseg.models.psalm",
}


def family(name: str) -> ModuleType:
    """The module of a family.

    Raises:
        UnknownModel: no such family.
    """
    if name not in FAMILIES:
        raise UnknownModel(name, tuple(FAMILIES))
    return import_module(FAMILIES[name])


def __getattr__(name: str) -> ModuleType:
    """``promptseg.models.clipseg`` without importing it first."""
    if name in FAMILIES:
        return family(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

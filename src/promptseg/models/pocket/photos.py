"""Training photographs in memory: decoded once, with what is known of each and the names that follow from several masks together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ... import regions
from ...data.asked_crops import TrainingPhoto, decoded
from ...data.photosets import AnnotatedPhoto
from .vocabulary import COMPOSED

DISTINCT = ("coco", "msrc", "camvid")  # sets whose annotators chose one name per thing: no name of the set repeats another
PERSON_PARTS = {"msrc": ("face", "body"), "camvid": ("pedestrian", "bicyclist")}
TOUCH = 2  # pixels by which two things may miss each other and still be one ("person riding a bicycle")


def in_memory(photo: AnnotatedPhoto) -> TrainingPhoto:
    """A photo and its masks, decoded, with the names that combine others."""
    masks, unknown = photo.masks()
    masks, absent = _with_people(photo.source, masks, photo.absent)
    if photo.source == "coco":
        masks, absent = _with_riders(masks, absent)
    return decoded(photo, masks, unknown, absent, distinct=photo.source in DISTINCT)


def _with_people(source: str, masks: Mapping[str, np.ndarray], absent: tuple[str, ...]) -> tuple[Mapping[str, np.ndarray], tuple[str, ...]]:
    """Adds "person" where a set names only parts of people: everything in a fashion photo, face and body in MSRC, riders in CamVid."""
    parts = tuple(masks) if source == "ccp" else PERSON_PARTS.get(source, ())
    found = [masks[part] for part in parts if part in masks]
    if found:
        return {**masks, "person": np.logical_or.reduce(found)}, absent
    return masks, (*absent, "person") if parts else absent


def _with_riders(masks: Mapping[str, np.ndarray], absent: tuple[str, ...]) -> tuple[Mapping[str, np.ndarray], tuple[str, ...]]:
    """Phrases for two things that touch (`vocabulary.COMPOSED`). Two that are there but apart leave the phrase unknown."""
    result, denied = dict(masks), list(absent)
    for phrase, (first, second) in COMPOSED.items():
        if first in masks and second in masks:
            together = _touching(masks[first], masks[second])
            if together.any():
                result[phrase] = together
        elif first in absent or second in absent:
            denied.append(phrase)
    return result, tuple(denied)


def _touching(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The connected parts of both masks together that hold a piece of each; bool (H, W)."""
    both = regions.parts(regions.grow(first | second, TOUCH))
    holds = [np.isin(np.arange(len(both)), both.part_of(*np.nonzero(mask))) for mask in (first, second)]
    together: np.ndarray = both.select(holds[0] & holds[1]) & (first | second)
    return together

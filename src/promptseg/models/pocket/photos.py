"""Training photographs in memory: decoded once, with what is known of each and the names that follow from several masks together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ... import regions
from ...data.photosets import AnnotatedPhoto
from .vocabulary import COMPOSED

MAX_SIDE = 512  # of a photo in memory
DISTINCT = ("coco", "msrc", "camvid")  # sets whose annotators chose one name per thing: no name of the set repeats another
PERSON_PARTS = {"msrc": ("face", "body"), "camvid": ("pedestrian", "bicyclist")}
TOUCH = 2  # pixels by which two things may miss each other and still be one ("person riding a bicycle")


@dataclass(frozen=True, slots=True)
class TrainingPhoto:
    """``image`` uint8 (3, H, W); ``masks`` uint8 (M, H, W), 0/1, in the order of ``names``; ``unknown`` bool (H, W).

    ``absent``: names that are surely not there. ``distinct``: names that sound alike are different things on this photo.
    """

    source: str
    id: str
    image: Tensor
    names: tuple[str, ...]
    masks: Tensor
    unknown: Tensor
    absent: tuple[str, ...]
    distinct: bool = False


def in_memory(photo: AnnotatedPhoto) -> TrainingPhoto:
    """Decode a photo and its masks, the longer side at most `MAX_SIDE` pixels, and add the names that combine others."""
    image = Image.fromarray(photo.image())
    masks, unknown = photo.masks()
    masks, absent = _with_people(photo.source, masks, photo.absent)
    if photo.source == "coco":
        masks, absent = _with_riders(masks, absent)
    scale = min(1.0, MAX_SIDE / max(image.size))
    size = (round(image.height * scale), round(image.width * scale))
    pixels = torch.from_numpy(np.array(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))).permute(2, 0, 1)
    stacked = torch.from_numpy(np.stack([*masks.values(), unknown]).astype(np.uint8))
    small = F.interpolate(stacked[None].float(), size=size, mode="area")[0] > 0.5
    distinct = photo.source in DISTINCT
    return TrainingPhoto(photo.source, photo.id, pixels, tuple(masks), small[:-1].to(torch.uint8), small[-1], absent, distinct)


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

"""What a further training of `pocket` begins with: the network of the one before, and what that finds on captioned photographs.

A photo of which several captions speak of people shows people; where that network is sure of them they are taken as there, where it
doubts nothing is said, and elsewhere they are not (Lee 2013, "Pseudo-Label"; Xie et al. 2020, "Noisy Student").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.asked_crops import TrainingPhoto
from ...data.captions import Captioned
from ...masks import Mask

Ask = Callable[[NDArray[np.uint8], Sequence[str]], Iterable[Mask]]  # (H, W, 3) photo, names -> their masks
SURE, NOT = 0.6, 0.3  # probability of a pixel
SCORE, SMALLEST = 0.8, 0.004  # of a mask that is taken: its score and its share of the photo
MENTIONS = 2  # captions of a photo that speak of what is looked for; a single one may be wrong
_PEOPLE = """
    person people man men woman women boy boys girl girls child children kid kids guy guys lady ladies player players baby toddler
    crowd rider riders skier skiers surfer surfers snowboarder climber climbers biker bikers cyclist cyclists bicyclist
    motorcyclist skateboarder skateboarders someone somebody adult adults group couple team swimmer swimmers runner runners hiker
    hikers dancer dancers worker workers teen teenager teenagers male female he she his her him they their racer racers student
    students family friend friends singer band officer officers soldier soldiers bride mother father son daughter performer walker
    jumper fisherman wrestler wrestlers athlete athletes gymnast cheerleader cheerleaders spectators pedestrian pedestrians
    wakeboarder kayaker tourist tourists artist driver pitcher batter catcher referee human figure hand hands arm face
"""
# name -> the words of captions that mean it
SAID: Mapping[str, frozenset[str]] = {"person": frozenset(_PEOPLE.split()), "dog": frozenset({"dog", "dogs", "puppy", "puppies"})}


def labelled(photos: Iterable[Captioned], ask: Ask) -> list[TrainingPhoto]:
    """Those of the photos of which all names of `SAID` are known to be there, where they are, or not to be there."""
    made = (_labelled(photo, ask) for photo in photos)
    return [photo for photo in made if photo is not None]


def _labelled(captioned: Captioned, ask: Ask) -> TrainingPhoto | None:
    """None where the network finds nothing that the captions speak of, or hardly one of them does."""
    words = [set(re.findall("[a-z]+", caption.lower())) for caption in captioned.captions]
    mentions = {name: sum(not meant.isdisjoint(those) for those in words) for name, meant in SAID.items()}
    wanted = [name for name, count in mentions.items() if count]
    if not wanted or any(mentions[name] < MENTIONS for name in wanted):
        return None
    photo = captioned.image()
    masks, unknown = [], torch.zeros(photo.shape[:2], dtype=torch.bool)
    for mask in ask(photo, wanted):
        probable = torch.from_numpy(mask.probabilities)
        sure = probable > SURE
        if mask.score < SCORE or sure.float().mean() < SMALLEST:
            return None
        masks.append(sure.to(torch.uint8))
        unknown |= (probable > NOT) & ~sure
    absent = tuple(name for name in SAID if name not in wanted)
    pixels = torch.from_numpy(photo).permute(2, 0, 1)
    return TrainingPhoto("flickr8k", captioned.id, pixels, tuple(wanted), torch.stack(masks), unknown, absent)

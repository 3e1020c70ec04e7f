"""The random colour changes of CAT-Seg's training photos."""

from __future__ import annotations

from random import Random

from ...data.colours import Photo, linear, saturated, turned


def jittered(photo: Photo, draw: Random) -> Photo:
    """Each change with probability 1/2, contrast before or after the other two; photo uint8 (H, W, 3) RGB."""
    if draw.randrange(2):
        photo = linear(photo, 1, draw.uniform(-32, 32))
    if draw.randrange(2):
        return _hue(_saturation(_contrast(photo, draw), draw), draw)
    return _contrast(_hue(_saturation(photo, draw), draw), draw)


def _contrast(photo: Photo, draw: Random) -> Photo:
    return linear(photo, draw.uniform(0.5, 1.5), 0) if draw.randrange(2) else photo


def _saturation(photo: Photo, draw: Random) -> Photo:
    return saturated(photo, draw.uniform(0.5, 1.5)) if draw.randrange(2) else photo


def _hue(photo: Photo, draw: Random) -> Photo:
    return turned(photo, draw.randint(-18, 18)) if draw.randrange(2) else photo

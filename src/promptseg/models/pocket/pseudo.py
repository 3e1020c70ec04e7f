"""Masks for photos of which only the class is known: what the pretrained classifier looks at (Zhou et al. 2016, "CAM").

One photo per ImageNet class teaches the decoder a thousand words. Where the class activation is strong the pixel is the thing, where it is
weak it is not, between the two it is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...data.asked_crops import TrainingPhoto
from ...nn.efficientnet import EfficientNetLite
from .vocabulary import PLAIN_NAMES

SIDE = 384  # of the square that the tower sees
AT_ONCE = 20
SURE, NOT = 0.5, 0.2  # of the largest activation


@torch.inference_mode()
def pseudo_labelled(
    photos: Sequence[tuple[Path, str]], tower: EfficientNetLite, weight: Tensor, bias: Tensor, mean: Sequence[float], std: Sequence[float]
) -> list[TrainingPhoto]:
    """Photos in the standard order of the classes -> training photos; those that the classifier does not recognise (top 5) are left out."""
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    result = []
    for start in range(0, len(photos), AT_ONCE):
        part = photos[start : start + AT_ONCE]
        images = [_read(path) for path, _ in part]
        squares = [F.interpolate(image[None].float() / 255, size=(SIDE, SIDE), mode="bilinear", antialias=True) for image in images]
        head = tower(((torch.cat(squares) - shift) / scale).contiguous(memory_format=torch.channels_last))[-1]
        evidence = F.conv2d(head, weight[:, :, None, None], bias)
        recognised = evidence.mean((2, 3)).topk(min(5, evidence.shape[1])).indices.tolist()
        for offset, (path, name) in enumerate(part):
            if start + offset in recognised[offset]:
                result.append(_labelled(images[offset], evidence[offset], start + offset, path.stem, name))
    return result


def _read(path: Path) -> Tensor:
    with Image.open(path) as file:
        return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)


def _labelled(image: Tensor, evidence: Tensor, index: int, photo_id: str, name: str) -> TrainingPhoto:
    """evidence (classes, h, w) -> the class's activation at the photo's size, cut into sure, unknown and not."""
    activation = evidence[index].clamp_min(0)
    activation = F.interpolate((activation / activation.max())[None, None], size=image.shape[1:], mode="bicubic")[0, 0]
    sure, maybe = activation > SURE, activation > NOT
    plain = [word for word, ranges in PLAIN_NAMES.items() if any(first <= index <= last for first, last in ranges)]
    names = tuple(dict.fromkeys([name, *plain]))
    masks = sure.to(torch.uint8).expand(len(names), *sure.shape)
    return TrainingPhoto("imagenet", photo_id, image, names, masks, maybe & ~sure, ())

"""Published outputs of CLIPSeg's real weights on COCO val2017 image 39769 (two cats on a sofa)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...contracts import PromptFeatures, Reference
from ...prompts import Text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .network import Model

PHOTO = "http://images.cocodataset.org/val2017/000000039769.jpg"
SIDE = 352
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _converter(logits: tuple[tuple[float, float, float], ...]) -> Reference:
    """What the script that wrote the Hub's files asserted. Its image processor had the default mean and deviation of 0.5; the files of the
    Hub's image processor were corrected to ImageNet's only later."""
    return Reference(
        source="transformers, convert_clipseg_original_pytorch_to_hf.py",
        photo_url=PHOTO,
        tolerance=1e-3,
        inputs={"prompts": ("a glass", "something to fill", "wood", "a jar")},
        values={"condition": (0.1110, -0.1882, 0.1645), "image embedding": (0.2692, -0.7197, -0.1328), "logits": logits},
    )


REFERENCES: Mapping[str, tuple[Reference, ...]] = {
    "clipseg-rd64": (_converter(((-7.2877, -7.2711, -7.2463), (-7.2652, -7.2780, -7.2520), (-7.2239, -7.2204, -7.2001))),),
    "clipseg-rd16": (_converter(((-6.3955, -6.4055, -6.4151), (-6.3911, -6.4033, -6.4100), (-6.3474, -6.3702, -6.3762))),),
    "clipseg-rd64-refined": (
        _converter(((-10.0407, -9.9431, -10.2646), (-9.9751, -9.7064, -9.9586), (-9.6891, -9.5645, -9.9618))),
        Reference(
            source="transformers, tests/models/clipseg/test_modeling_clipseg.py",
            photo_url=PHOTO,
            tolerance=1e-3,
            inputs={"prompts": ("a cat", "a remote", "a blanket")},
            values={
                "condition": (0.5601, -0.0314, 0.1980),
                "image embedding": (0.5036, -0.2681, -0.2644),
                "logits": ((-7.4613, -7.4785, -7.3628), (-7.3268, -7.0899, -7.1333), (-6.9838, -6.7900, -6.8913)),
            },
        ),
    ),
}


def observe(model: Model, reference: Reference, photo: NDArray[np.uint8]) -> Sequence[Mapping[str, Any]]:
    """The first numbers of what the model computes, once for each way in which the photo may have been normalised.

    Args:
        photo: (H, W, 3) uint8; resized as transformers does, by PIL with antialiasing, to 352 x 352.
    """
    import torch

    with torch.inference_mode():
        prompts = model.encode_prompts([Text(phrase) for phrase in reference.inputs["prompts"]])
        return [_first_numbers(model, pixels, prompts) for pixels in _pixels(photo)]


def _first_numbers(model: Model, pixels: Tensor, prompts: PromptFeatures) -> Mapping[str, Any]:
    return {
        "condition": prompts.condition[0, :3],
        "image embedding": model.embed_images(pixels)[0, :3],
        "logits": model.decode(model.encode_image(pixels), prompts).logits[0, 0, :3, :3],
    }


def _pixels(photo: NDArray[np.uint8]) -> list[Tensor]:
    import torch
    from PIL import Image

    small = Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    scaled = torch.from_numpy(np.array(small)).float() / 255
    both = [(scaled - torch.tensor(mean)) / torch.tensor(std) for mean, std in (HALF, IMAGENET)]
    return [pixels.permute(2, 0, 1)[None] for pixels in both]

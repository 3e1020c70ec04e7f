"""How well CLIP understands a visual prompt (CLIPSeg paper, section 3.3 and table 7): is the marked thing what the picture is about?

A photo shows several things. One of them is marked in some way, the picture is embedded, and its cosines with "a photo of a NAME" for the
names of all things in the photo become probabilities. What marking adds to the probability of the marked thing is the way's gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...data.vocabularies import templates
from ...errors import DataError
from ...nn.attention import AttentionMask
from ...nn.clip import Clip
from ...tokenizers import clip as clip_tokenizer
from .prompts import AttentionTechnique
from .visual import img_preprocess, normalise

Sample: TypeAlias = tuple[NDArray[np.uint8], Mapping[str, NDArray[np.bool_]]]  # photo (H, W, 3), name -> mask (H, W)

PHOTO = 352  # side to which photos are stretched; attention variants are shown at it
SHOWN = 224  # side at which drawn variants are shown, CLIP's own
ORIGINAL = "original"

# name -> (arguments of `img_preprocess`, or how attention is masked; gain in percentage points that the paper reports for ViT-B/16 on LVIS)
VARIANTS: Mapping[str, tuple[dict[str, Any] | AttentionTechnique, float]] = {
    "CLS attention in layer 11": (AttentionTechnique("cls_token", (11,)), 1.34),
    "CLS attention in all layers": (AttentionTechnique("cls_token"), 1.71),
    "all attention in all layers": (AttentionTechnique("all"), -14.44),
    "object red in grey image": ({"colorize": True}, 1.21),
    "red outline": ({"outline": True}, 2.29),
    "background at 50 %": ({"bg_fac": 0.5}, 3.08),
    "background at 10 %": ({"bg_fac": 0.1}, 13.85),
    "background at 0 %": ({"bg_fac": 0.0}, 23.40),
    "background blurred": ({"blur": 3}, 13.15),
    "background blurred, at 10 %": ({"blur": 3, "bg_fac": 0.1}, 21.73),
    "crop, large context": ({"center_context": 0.5}, 6.27),
    "crop": ({"center_context": 0.1}, 13.60),
    "crop and blur (large context)": ({"center_context": 0.5, "blur": 3}, 15.34),
    "crop, blur, at 10 %": ({"center_context": 0.1, "blur": 3, "bg_fac": 0.1}, 23.50),
}


@dataclass(frozen=True, slots=True)
class Alignment:
    """Means over all marked things: ``cosine`` with the own name, ``probability`` of it (0..1), ``gain`` over the unmarked photo in
    percentage points; ``published`` is the paper's gain, where it has one."""

    variant: str
    cosine: float
    probability: float
    gain: float
    published: float | None


def clip_alignment(
    model: Clip,
    samples: Iterable[Sample],
    variants: Mapping[str, tuple[dict[str, Any] | AttentionTechnique, float]] = VARIANTS,
    *,
    min_names: int = 3,
    min_area: float = 0.05,
) -> list[Alignment]:
    """One row per way of marking, the unmarked photo first.

    Args:
        model: anything with CLIP's towers, such as a CLIPSeg network.
        samples: photos with the masks of their things by name; read one at a time.
        variants: ways to mark, as `VARIANTS`.
        min_names: photos with fewer names are left out.
        min_area: things that cover a smaller share of their photo are names, but not marked.

    Raises:
        DataError: no photo has that many names and a thing of that size.
    """
    rows: list[Tensor] = []  # (1 + variants, 2): cosine and probability of one marked thing
    with torch.inference_mode():
        for photo, masks in samples:
            if len(masks) < min_names:
                continue
            names = _embed_names(model, list(masks))
            for index, mask in enumerate(masks.values()):
                if mask.mean() >= min_area:
                    rows.append(_measure(model, _shown(model, photo, mask, variants), names, index))
    if not rows:
        raise DataError(f"No photo has {min_names} named things of which one covers {min_area:.0%}; give more photos or lower the limits.")
    means = torch.stack(rows).double().mean(0).tolist()
    published = (None, *(gain for _, gain in variants.values()))
    first = means[0][1]
    return [
        Alignment(name, cosine, probability, 100 * (probability - first), paper)
        for name, (cosine, probability), paper in zip((ORIGINAL, *variants), means, published, strict=True)
    ]


def _embed_names(model: Clip, names: list[str]) -> Tensor:
    """(N, E) of unit length."""
    ids = clip_tokenizer()([template.format(name) for name in names for template in templates("photo-bare")], model.text.config.context)
    return F.normalize(model.text(ids.to(model.text.projection.device)), dim=-1)


def _shown(model: Clip, photo: NDArray[np.uint8], mask: NDArray[np.bool_], variants: Mapping[str, Any]) -> Tensor:
    """Embeddings (1 + variants, E) of the photo and of the photo marked in every way, of unit length."""
    weight = model.text.projection
    pixels = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    image = F.interpolate(normalise(pixels[0])[None], (PHOTO, PHOTO), mode="bilinear")[0]
    region = F.interpolate(torch.tensor(mask)[None, None].float(), (PHOTO, PHOTO), mode="nearest")[0, 0]
    ways = [way for way, _ in variants.values()]
    drawn = [img_preprocess(image.clone(), region, **{"image_size": SHOWN, **way}) for way in ways if isinstance(way, dict)]
    batch = torch.cat([F.interpolate(picture[None], (SHOWN, SHOWN), mode="bilinear") for picture in (image, *drawn)])
    embedded = iter(_embed(model, batch.to(weight)))
    rows = [next(embedded)]
    for way in ways:
        if isinstance(way, AttentionTechnique):
            attention = AttentionMask(region[None].to(weight), way.kind, way.blocks)
            rows.append(_embed(model, image[None].to(weight), attention)[0])
        else:
            rows.append(next(embedded))
    return F.normalize(torch.stack(rows), dim=-1)


def _embed(model: Clip, pixels: Tensor, mask: AttentionMask | None = None) -> Tensor:
    embedding: Tensor = model.image(pixels, mask=mask).embedding
    return embedding


def _measure(model: Clip, images: Tensor, names: Tensor, target: int) -> Tensor:
    """(V, E) and (N, E) -> (V, 2): cosine with the target's name, and its probability among all names."""
    cosines = (images @ names.T).float()
    probabilities = (model.logit_scale.float().exp() * cosines).softmax(-1)
    return torch.stack([cosines[:, target], probabilities[:, target]], dim=-1).cpu()

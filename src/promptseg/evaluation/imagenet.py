"""Zero-shot classification of ImageNet-1k: which of 1,000 names fits a photo best (GroupViT code; CLIP, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ..data.imagenet import imagenet
from ..data.vocabularies import names, table, templates
from ..errors import UnsupportedTask
from ..metrics import TopK
from ..prompts import Text
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["ImageNet"]

PUBLISHED = {"groupvit-gcc-yfcc": 0.437, "groupvit-gcc-redcap": 0.516}  # README of the repository


@dataclass(frozen=True)
class ImageNet(Protocol):
    """Cosines of a photo's embedding and those of the names, in the names and the seven wordings of CLIP's notebook.

    ``templates``: the wordings, a set of `vocabularies.templates`.
    """

    NAME: ClassVar[str] = "imagenet"
    TITLE: ClassVar[str] = "ImageNet, zero-shot classification: 1,000 names, top-1 and top-5 accuracy (GroupViT)"
    DATA: ClassVar[str] = "ILSVRC2012: val/SYNSET/*.JPEG, a folder per class"

    split: str = "val"
    templates: str = "imagenet7"

    def __post_init__(self) -> None:
        templates(self.templates)

    def parts(self) -> tuple[Part, ...]:
        return (_Photos(self),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        accuracy = counted["photos"]["classes"].compute().accuracy
        return tuple(Row(f"top-{count}", value) for count, value in accuracy.items())

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        return {f"top-{count}": values for count, values in counted["photos"]["classes"].compute().per_class.items()}

    def published(self) -> Mapping[str, Figures]:
        return {model: {"top-1": value} for model, value in PUBLISHED.items()}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        rules = {"wordings": list(templates(self.templates)), "photo": "shorter side at 256/224 of the network's size, the middle of it"}
        return {**super().constants(segmenter), **rules}


class _Photos(Part):
    name = "photos"

    def __init__(self, protocol: ImageNet) -> None:
        self.photos = imagenet(existing(protocol.root), protocol.split)
        wordings = templates(protocol.templates)
        self.prompts = [Text(name, wordings) for name in names("imagenet1000")]
        # two pairs of classes share a name
        self.names = [f"{name} ({synset})" for name, synset in zip(names("imagenet1000"), table("imagenet1000")["synsets"], strict=True)]

    @property
    def keys(self) -> Sequence[str]:
        return [photo.id for photo in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"classes": TopK()}

    def figures(self, metrics: Metrics) -> Figures:
        return {f"top-{count}": value for count, value in metrics["classes"].compute().accuracy.items()}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        classify = getattr(segmenter.model, "classify", None)
        if classify is None:
            raise UnsupportedTask(segmenter.card.name, "whole-photo", ["groupvit-gcc-yfcc", "groupvit-gcc-redcap"])
        sample, features = self.photos[index], segmenter.embed_prompts(self.prompts).features
        image, metrics = sample.image(), self.metrics()
        with torch.inference_mode():
            scores = classify(image, features).float().cpu().numpy()
        metrics["classes"].update(self.names[sample.target], scores, sample.target)

        def picture() -> Picture:
            whole = np.ones(image.shape[:2], dtype=np.bool_)
            return Picture(image, {self.names[int(scores.argmax())]: whole}, {self.names[sample.target]: whole})

        return Counted(metrics, picture)

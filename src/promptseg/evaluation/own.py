"""One's own labelled photos: every class name asked on every photo, as a user would ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..data.own import NOTHING, Zero, own
from ..data.samples import PhotoSet
from ..errors import ConfigError, DataError
from ..metrics import MaskIoU, PairIoU, Presence
from ..prompts import Text
from .photos import all_seen, not_empty
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Own"]

PRESENT = "present names: mean IoU"


@dataclass(frozen=True)
class Own(Protocol):
    """``template``: the wording of every class name. ``split``, ``zero``: as `data.own.own`."""

    NAME: ClassVar[str] = "own"
    TITLE: ClassVar[str] = "your own labelled photos: every class name asked on every photo, present and absent"
    DATA: ClassVar[str] = "a folder of photos with masks, a COCO .json, a YOLO-seg folder or tar shards: promptseg data list own"

    template: str = "{}"
    split: str = "all"
    zero: Zero = "background"

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise ConfigError(f"template={self.template!r} needs one {{}}, the place of the class name.")

    def parts(self) -> tuple[Part, ...]:
        photos = own(existing(self.root), self.split, zero=self.zero)
        return (_Photos(photos, self.template),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        figures = _figures(counted["photos"])
        return tuple(Row(name, value, smaller=name.startswith("absent")) for name, value in figures.items())

    def classes(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        over_set, present = (counted["photos"][name].compute().per_class for name in ("over_set", "present"))
        return {"IoU over the set": over_set, "mean IoU where present": present}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        card = segmenter.card
        rules = {"threshold": card.threshold, "presence threshold": card.presence_threshold}
        return {**super().constants(segmenter), **rules, "fit": card.preprocess.fit, "size": card.preprocess.size}


class _Photos(Part):
    name = "photos"

    def __init__(self, photos: PhotoSet[Any], template: str) -> None:
        self.photos = photos
        self.names = [name for name in photos.classes if name not in NOTHING]
        self.prompts = [Text(name, () if template == "{}" else (template,)) for name in self.names]

    @property
    def keys(self) -> Sequence[str]:
        return [photo.id for photo in self.photos]

    def metrics(self) -> dict[str, Any]:
        return {"present": PairIoU(), "over_set": MaskIoU(), "presence": Presence()}

    def figures(self, metrics: Metrics) -> Figures:
        return _figures(metrics)

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        sample, metrics = self.photos[index], self.metrics()
        photo, (truth, unknown) = sample.image(), sample.masks()
        if photo.shape[:2] != unknown.shape:
            found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (photo.shape, unknown.shape))
            raise DataError(
                f"{sample.path} is {found} and its masks are {wanted} (width x height). promptseg data check own shows all such."
            )
        answers = all_seen(segmenter(photo, self.prompts), self.names, segmenter)
        for name, answer in answers.items():
            target = truth.get(name, np.zeros_like(answer.mask))
            metrics["over_set"].update(name, answer.mask, target, ~unknown)
            metrics["presence"].update(name in truth, answer.present, (answer.mask & ~unknown).mean())
            if name in truth:
                metrics["present"].update(name, answer.mask, target, ~unknown)
        labelled = {name: mask for name, mask in truth.items() if name in answers}
        return Counted(metrics, lambda: Picture(photo, not_empty(answers), labelled))


def _figures(metrics: Metrics) -> dict[str, float]:
    presence = metrics["presence"].compute()
    return {
        PRESENT: metrics["present"].compute().mean,
        "mIoU over the set": metrics["over_set"].compute().mean,
        "absent names with a mask over 1 %": presence.false_masks,
        "presence: Matthews correlation": presence.matthews,
    }

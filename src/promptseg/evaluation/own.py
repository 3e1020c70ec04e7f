"""One's own labelled photos: every class name asked on every photo, as a user would ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..data.own import Zero, own
from ..data.own_names import Asked, asked_of, is_nothing, joined, meant
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
    """``template``: the wording of every name. ``split``, ``zero``: as `data.own.own`.

    ``classes``: which of the data's are asked, as `training.finetune` takes them, or as text: "hair, trousers=pants+jeans".
    """

    NAME: ClassVar[str] = "own"
    TITLE: ClassVar[str] = "your own labelled photos: every class name asked on every photo, present and absent"
    DATA: ClassVar[str] = "a folder of photos with masks, a COCO .json, a YOLO-seg folder or tar shards: promptseg data list own"

    template: str = "{}"
    split: str = "all"
    zero: Zero = "background"
    classes: str | Asked | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise ConfigError(f"template={self.template!r} needs one {{}}, the place of the class name.")

    def parts(self) -> tuple[Part, ...]:
        photos = own(existing(self.root), self.split, zero=self.zero)
        classes = asked_of(self.classes) if isinstance(self.classes, str) else self.classes
        return (_Photos(photos, meant(classes, [name for name in photos.classes if not is_nothing(name)]), self.template),)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        figures = _figures(counted["photos"])
        return tuple(Row(name, value, smaller=name.startswith("absent")) for name, value in figures.items())

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        over_set, present = (counted["photos"][name].compute().per_class for name in ("over_set", "present"))
        return {"IoU over the set": over_set, "mean IoU where present": present}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        card = segmenter.card
        rules = {"threshold": card.threshold, "presence threshold": card.presence_threshold}
        return {**super().constants(segmenter), **rules, "fit": card.preprocess.fit, "size": card.preprocess.size}


class _Photos(Part):
    name = "photos"

    def __init__(self, photos: PhotoSet[Any], asked: Asked, template: str) -> None:
        self.photos, self.asked, self.names = photos, asked, [*asked]
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
        photo, (found, unknown) = sample.image(), sample.masks()
        if photo.shape[:2] != unknown.shape:
            stated, wanted = (f"{shape[1]}x{shape[0]}" for shape in (photo.shape, unknown.shape))
            raise DataError(
                f"{sample.path} is {stated} and its masks are {wanted} (width x height). promptseg data check own shows all such."
            )
        truth = joined(found, self.asked)
        answers = all_seen(segmenter(photo, self.prompts), self.names, segmenter)
        for name, answer in answers.items():
            target = truth.get(name, np.zeros_like(answer.mask))
            metrics["over_set"].update(name, answer.mask, target, ~unknown)
            metrics["presence"].update(name in truth, answer.present, (answer.mask & ~unknown).mean())
            if name in truth:
                metrics["present"].update(name, answer.mask, target, ~unknown)
        return Counted(metrics, lambda: Picture(photo, not_empty(answers), truth))


def _figures(metrics: Metrics) -> dict[str, float]:
    presence = metrics["presence"].compute()
    return {
        PRESENT: metrics["present"].compute().mean,
        "mIoU over the set": metrics["over_set"].compute().mean,
        "absent names with a mask over 1 %": presence.false_masks,
        "presence: Matthews correlation": presence.matthews,
    }

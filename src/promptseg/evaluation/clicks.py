"""COCO-Interactive: every object of a photo by a point, a scribble, a box or a rough mask, all objects of a photo at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..contracts import PromptKind
from ..data.instructions import PROMPT_KEYS
from ..data.photosets import segmentation_mask
from ..data.samples import read_json, read_photo, well_formed
from ..errors import ConfigError
from ..metrics import ReferringIoU
from ..prompts import MaskPrompt
from ..regions import grow
from .expressions import EPSILON
from .protocol import Counted, Figures, Metrics, Part, Picture, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["CocoInteractive"]

KINDS = ("point", "scribble", "box", "mask")
GROWN = {"point": 10, "scribble": 5}  # pixels of the photo by which thin prompts become regions (PSALM's code)


@dataclass(frozen=True)
class CocoInteractive(Protocol):
    """cIoU and mIoU of each kind, against the annotation at the photo's own size; the published code scores against one resized twice.

    ``kinds``: which prompts; ``file``: of `promptseg data prepare interactive`, and ``photos``: the folder of photos, both below the root.
    Prompts are shown as regions, thin ones grown as published. Crowds, and objects without a prompt of a kind, are left out of it.
    """

    NAME: ClassVar[str] = "coco-interactive"
    TITLE: ClassVar[str] = "COCO-Interactive: cIoU and mIoU of objects shown by points, scribbles, boxes and masks (PSALM)"
    DATA: ClassVar[str] = "instances_val2017_interactive.json of `promptseg data prepare interactive`, and the photos of COCO val2017"
    PROMPTS: ClassVar[tuple[PromptKind, ...]] = ("mask",)

    kinds: tuple[str, ...] = KINDS
    file: str = "instances_val2017_interactive.json"
    photos: str = "val2017"

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ConfigError(f"kinds are some of {', '.join(KINDS)}, not {self.kinds}.")

    def parts(self) -> tuple[Part, ...]:
        root = existing(self.root)
        entries = read_json(root / self.file)
        return tuple(_Objects(kind, root / self.file, entries, root / self.photos) for kind in self.kinds)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        found = {kind: counted[kind]["objects"].compute() for kind in self.kinds}
        return tuple(row for kind, one in found.items() for row in (Row(f"cIoU, {kind}", one.ciou), Row(f"mIoU, {kind}", one.giou)))


class _Objects(Part):
    def __init__(self, kind: str, file: Path, entries: Sequence[Mapping[str, Any]], photos: Path) -> None:
        self.name, self.photos, self.file = kind, photos, file
        with well_formed(str(file), "Write it with `promptseg data prepare interactive`."):
            kept = [(entry, [one for one in entry["anns"] if not one.get("iscrowd", 0) and PROMPT_KEYS[kind] in one]) for entry in entries]
        self.entries = [(entry, objects) for entry, objects in kept if objects]

    @property
    def keys(self) -> Sequence[str]:
        return [str(entry["image"]) for entry, _ in self.entries]

    def metrics(self) -> dict[str, Any]:
        return {"objects": ReferringIoU("skip", epsilon=EPSILON)}

    def count(self, index: int, segmenter: Segmenter) -> Counted:
        (entry, objects), metrics = self.entries[index], self.metrics()
        image = read_photo(self.photos / entry["image"])
        size = (image.shape[0], image.shape[1])
        shown = [segmentation_mask(one[PROMPT_KEYS[self.name]], size) for one in objects]
        asked = [(one, mask) for one, mask in zip(objects, shown, strict=True) if mask.any()]
        regions = [grow(mask, GROWN[self.name]) if self.name in GROWN else mask for _, mask in asked]
        found = [one.mask for one in segmenter(image, [MaskPrompt(region) for region in regions])]
        truths = [segmentation_mask(one["segmentation"], size) for one, _ in asked]
        for mask, truth in zip(found, truths, strict=True):
            metrics["objects"].update(mask, truth)

        def picture() -> Picture:
            numbered = [f"object {number}" for number in range(1, len(found) + 1)]
            return Picture(image, dict(zip(numbered, found, strict=True)), dict(zip(numbered, truths, strict=True)))

        return Counted(metrics, picture)

    def figures(self, metrics: Metrics) -> Figures:
        return {"IoU": metrics["objects"].compute().giou}

"""Every data set that can be named: its reader, its splits, where it comes from. The layout on disk is the reader's docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, nearest
from .ade20k import ade150, ade847
from .coco import coco_instances, coco_panoptic, coco_stuff
from .coco20i import coco20i
from .lvis import lvis
from .mess import mess
from .own import own
from .pascal import pascal_zero_shot, voc
from .pascal5i import pascal5i
from .pascal_context import context59, context459
from .phrasecut import phrasecut
from .samples import PhotoSet
from .shards import shards

__all__ = ["SETS", "DataSet", "data_set", "read"]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A named data set. ``read(root, split)`` gives its photos; ``source``: where people get it."""

    name: str
    read: Callable[..., PhotoSet[Any]]
    source: str
    photos: Mapping[str, int] = field(default_factory=dict)  # published numbers, by split

    @property
    def split(self) -> str:
        """The split that is read unless another one is named."""
        default: str = inspect.signature(self.read).parameters["split"].default
        return default

    @property
    def layout(self) -> str:
        """What it is, and which files lie where."""
        return (inspect.getdoc(self.read) or "").partition("\n\nRaises:")[0]

    @property
    def title(self) -> str:
        """The first sentence of `layout`."""
        return self.layout.partition("\n\n")[0].replace("\n", " ")


VOC = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582}
COCO = {"train2017": 118287, "val2017": 5000, "train2014": 82783, "val2014": 40504}
COCO20I = {"train-0": 62040, "train-1": 74381, "train-2": 73035, "train-3": 73808}
COCO20I |= {"val-0": 26052, "val-1": 15305, "val-2": 13138, "val-3": 12640}

SETS = {
    entry.name: entry
    for entry in (
        DataSet("phrasecut", phrasecut, "github.com/ChenyunWu/PhraseCutDataset"),
        DataSet("voc", voc, "host.robots.ox.ac.uk/pascal/VOC/voc2012; SBD: SegmentationClassAug.zip", VOC),
        DataSet("pascal-zero-shot", pascal_zero_shot, "as voc; splits: SPNet (Xian et al. 2019), JoEm", VOC),
        DataSet(
            "pascal5i",
            pascal5i,
            "as voc with SegmentationClassAug; lists: github.com/Jia-Research-Lab/PFENet",
            {"val": 1449, "train": 5953},
        ),
        DataSet("coco20i", coco20i, "cocodataset.org (2014); maps and lists: github.com/juhongm999/hsnet", COCO20I),
        DataSet("coco-instances", coco_instances, "cocodataset.org", COCO),
        DataSet("coco-stuff", coco_stuff, "cocodataset.org; github.com/nightrome/cocostuff", COCO),
        DataSet("coco-panoptic", coco_panoptic, "cocodataset.org", COCO),
        DataSet("lvis", lvis, "lvisdataset.org; photos: cocodataset.org (2017)"),
        DataSet("ade150", ade150, "sceneparsing.csail.mit.edu", {"training": 20210, "validation": 2000}),
        DataSet("ade847", ade847, "groups.csail.mit.edu/vision/datasets/ADE20K; conversion: MaskFormer"),
        DataSet("context59", context59, "cs.stanford.edu/~roozbeh/pascal-context; conversion: CAT-Seg"),
        DataSet("context459", context459, "cs.stanford.edu/~roozbeh/pascal-context; conversion: CAT-Seg"),
        DataSet("mess", mess, "github.com/blumenstiel/MESS"),
        DataSet("own", own, "yours"),
        DataSet("shards", shards, "yours, written by promptseg data pack"),
    )
}


def data_set(name: str) -> DataSet:
    """The data set called ``name``.

    Raises:
        DataError: there is none.
    """
    if name not in SETS:
        raise DataError(f"There is no data set {name!r}.{nearest(name, list(SETS))} `promptseg data list` shows all of them.")
    return SETS[name]


def read(name: str, root: str | Path, split: str | None = None) -> PhotoSet[Any]:
    """The photos of a split, by default the data set's usual one for tests.

    Raises:
        DataError: unknown name or split, or files that are missing or malformed.
    """
    entry = data_set(name)
    return entry.read(Path(root).expanduser(), entry.split if split is None else split)

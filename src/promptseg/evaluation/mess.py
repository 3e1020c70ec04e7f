"""Zero-shot label maps of 22 data sets from five domains: MESS (Blumenstiel et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..contracts import Task
from ..data.mess import DOMAINS, SETS, mess
from ..data.samples import LabelSample, PhotoSet
from ..errors import ConfigError, nearest
from ..metrics import AbsentRule
from .label_maps import MapsPart, accuracies
from .open_vocabulary import MODES, OpenVocabulary
from .protocol import Figures, Metrics, Part, Protocol, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Mess"]


@dataclass(frozen=True)
class Mess(Protocol):
    """Every set by itself, then the means of its domain and of all; PAXRay-4 counts as one, the mean of its four structures.

    ``sets``: names of `data.mess.SETS`; means are told where nothing of them is left out. ``mode``: as CAT-Seg is asked. A class that is
    only predicted counts 0, one of which there is neither label nor answer does not count.
    """

    NAME: ClassVar[str] = "mess"
    TITLE: ClassVar[str] = "MESS, label maps: 22 data sets of five domains"
    DATA: ClassVar[str] = "mess"
    TASK: ClassVar[Task] = "semantic"

    sets: tuple[str, ...] = tuple(SETS)
    mode: Literal["slide", "whole"] = "slide"

    def __post_init__(self) -> None:
        for name in self.sets:
            if name not in SETS:
                raise ConfigError(f"MESS has no set {name!r}.{nearest(name, tuple(SETS))} It has: {', '.join(SETS)}.")
        if not self.sets or len(set(self.sets)) < len(self.sets):
            raise ConfigError("sets names at least one set of MESS, each once.")
        if self.mode not in MODES:
            raise ConfigError(f"mode is one of {', '.join(MODES)}, not {self.mode!r}.")

    def parts(self) -> tuple[Part, ...]:
        return tuple(MapsPart(self._alone(name), name) for name in self.sets)

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        rows: list[Row] = []
        for name in self.sets:
            metric = counted[name]["classes"]
            per_class, pixels = metric.compute().per_class, accuracies(metric)[0]
            classes = [SETS[name].classes[place] for place in SETS[name].interest]
            interest = _mean([per_class[one] for one in classes if one in per_class])
            rows += [Row(f"{name}: mIoU", metric.compute().mean), Row(f"{name}: mIoU of classes of interest", interest)]
            rows.append(Row(f"{name}: pixel accuracy", pixels))
        scores = {name: counted[name]["classes"].compute().mean for name in self.sets}
        whole = {
            title: [name for name, one in SETS.items() if one.title == title] for title in dict.fromkeys(one.title for one in SETS.values())
        }
        titles = {title: _mean([scores[name] for name in names]) for title, names in whole.items() if scores.keys() >= set(names)}
        for what, wanted in (*((domain, {domain}) for domain in DOMAINS), ("mean", set(DOMAINS))):
            needed = list(dict.fromkeys(one.title for one in SETS.values() if one.domain in wanted))
            if titles.keys() >= set(needed):
                rows.append(Row(f"{what}: mIoU", _mean([titles[title] for title in needed])))
        return tuple(rows)

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        return {
            "IoU": {f"{name}: {one}": value for name in self.sets for one, value in counted[name]["classes"].compute().per_class.items()}
        }

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        asked = self._alone(self.sets[0]).constants(segmenter)
        return {"sets": list(self.sets), **{name: value for name, value in asked.items() if name not in ("set", "split")}}

    def _alone(self, name: str) -> _Alone:
        return _Alone(self.root, mode=self.mode, truncate=True, set=name)


@dataclass(frozen=True)
class _Alone(OpenVocabulary):
    """One of the sets."""

    NAME: ClassVar[str] = "mess"
    ABSENT: ClassVar[AbsentRule] = "skip"

    set: str = ""

    def photos(self) -> PhotoSet[LabelSample]:
        return mess(existing(self.root), self.set)


def _mean(values: list[float]) -> float:
    return fmean(values) if values else float("nan")

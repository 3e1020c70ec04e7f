"""Is a data set complete and consistent? Reads everything once, counts, and collects what is wrong instead of stopping at the first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import DataError, PromptSegError
from .samples import PhotoSet, Sample

__all__ = ["ClassCount", "Finding", "Report", "inspect"]

EXAMPLES = 3  # of each kind of mistake that are told


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of mistake: what it is and what to do, how often it occurs, the first examples. ``wrong`` False: only worth a look."""

    what: str
    examples: tuple[str, ...] = ()
    count: int = 1
    wrong: bool = True

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples)} more" if self.count > len(self.examples) > 0 else ""
        return f"{self.what}{': ' if self.examples else ''}{'; '.join(self.examples)}{more}"


@dataclass(slots=True)
class ClassCount:
    """Photos that show a class, and its pixels in them."""

    photos: int = 0
    pixels: int = 0


@dataclass(slots=True)
class Report:
    """What `inspect` found. ``pixels``: of all photos together; ``ignored``: of which nothing is known."""

    name: str
    photos: int = 0
    pixels: int = 0
    ignored: int = 0
    classes: dict[str, ClassCount] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not any(finding.wrong for finding in self.findings)

    @property
    def empty(self) -> list[str]:
        """Classes that no photo shows."""
        return [name for name, count in self.classes.items() if not count.photos]


def inspect(photos: PhotoSet[Sample], *, every: Callable[[Iterable[Sample]], Iterable[Sample]] = iter) -> Report:
    """Read every photo and its masks. ``every`` may wrap the samples, to show how far it is.

    Empty classes are worth a look but not wrong: a split need not show all.
    """
    report = Report(photos.name, len(photos), classes={name: ClassCount() for name in photos.classes})
    mistakes: defaultdict[str, list[str]] = defaultdict(list)
    for sample in every(photos):
        for kind, message in _look_at(sample, report):
            mistakes[kind].append(message)
    if not len(photos):
        report.findings.append(Finding("there are no photos"))
    for kind, messages in mistakes.items():
        report.findings.append(Finding(kind, tuple(messages[:EXAMPLES]), len(messages)))
    if report.empty:
        report.findings.append(Finding("classes that no photo shows", tuple(report.empty[:EXAMPLES]), len(report.empty), wrong=False))
    return report


def _look_at(sample: Sample, report: Report) -> Iterable[tuple[str, str]]:
    """Adds to the report; gives the kind of each mistake and what exactly."""
    size = None
    if not sample.path.is_file():
        yield "missing photos", str(sample.path)
    else:
        try:
            size = sample.image().shape[:2]
            report.pixels += size[0] * size[1]
        except DataError as error:
            yield "photos that cannot be read", str(error)
    try:
        masks, ignored = sample.masks()
    except PromptSegError as error:
        yield "annotations that cannot be used", str(error)
        return
    if size is not None and ignored.shape != size:
        found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (ignored.shape, size))
        yield "masks of another size than their photo", f"{sample.path} is {wanted}, its masks are {found}"
    report.ignored += int(ignored.sum())
    for name, mask in masks.items():
        count = report.classes.setdefault(name, ClassCount())
        count.photos += 1
        count.pixels += int(mask.sum())

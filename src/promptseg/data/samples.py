"""What every reader of this folder gives: photos with what is known of them.

A reader returns a `PhotoSet`: a sequence of `Sample`, of which nothing is decoded before it is asked for.
"""

from __future__ import annotations

import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..contracts import MAX_PIXELS
from ..errors import DataError, PromptSegError

__all__ = ["IGNORE", "LabelSample", "PhotoSet", "Region", "RegionSample", "Sample"]

T = TypeVar("T")
PICTURED = 6  # photos of which a training run shows what it says
IGNORE = -1  # in a label map: nothing is known of the pixel; it counts neither for nor against

Labels: TypeAlias = NDArray[np.int32]
Bools: TypeAlias = NDArray[np.bool_]


# --- annotated photos -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample(ABC):
    """One photo of a data set: its name there, its file, the classes that the set knows."""

    id: str
    path: Path
    classes: tuple[str, ...] = field(repr=False)

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB as the file stores it; published masks know no EXIF orientation, so none is applied.

        Raises:
            DataError: the photo is missing or no picture.
        """
        return read_photo(self.path)

    @abstractmethod
    def masks(self) -> tuple[Mapping[str, Bools], Bools]:
        """Bool (H, W) of every class that is there, by name, and the pixels of which nothing is known.

        Raises:
            DataError: an annotation file is missing or malformed.
        """


@dataclass(frozen=True, slots=True)
class LabelSample(Sample):
    """A photo with one class per pixel. ``labels()`` -> (H, W) int32, index into ``classes`` or `IGNORE`."""

    labels: Callable[[], Labels] = field(repr=False, compare=False)

    def masks(self) -> tuple[Mapping[str, Bools], Bools]:
        labels = self.labels()
        return by_class(labels, self.classes), labels == IGNORE


def spread(items: Sequence[T], most: int = PICTURED) -> list[T]:
    """``most`` of the items, or fewer, evenly over all of them."""
    return [items[place] for place in range(0, len(items), -(-len(items) // most))] if items else []


def by_class(labels: NDArray[np.integer[Any]], classes: Sequence[str]) -> dict[str, Bools]:
    """A label map (H, W) -> bool (H, W) of every class that it shows, by name."""
    return {classes[index]: labels == index for index in np.unique(labels).tolist() if index != IGNORE}


@dataclass(frozen=True, slots=True)
class Region:
    """One annotated thing. ``mask`` bool (H, W); ``crowd``: a heap of such things, to be ignored; ``thing``: countable.

    ``box``: x0, y0, x1, y1 in pixels as annotated; None where only the mask tells.
    """

    name: str
    mask: Bools = field(repr=False)
    crowd: bool = False
    thing: bool = True
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class RegionSample(Sample):
    """A photo with regions that may overlap. ``regions()`` -> one `Region` per annotation, in the order of the file.

    ``size`` (H, W) as the annotations state it. ``whole``: every pixel was annotated, so nothing is known where no region is; else that is
    where none of the classes is. ``empty``: a file of annotations lists nothing for it, or crowds alone.
    """

    size: tuple[int, int]
    regions: Callable[[], tuple[Region, ...]] = field(repr=False, compare=False)
    whole: bool = False
    empty: bool = False

    def masks(self) -> tuple[Mapping[str, Bools], Bools]:
        masks: dict[str, Bools] = {}
        ignore = np.full(self.size, self.whole)
        for region in self.regions():
            if region.mask.shape != self.size:
                found, wanted = (f"{shape[1]}x{shape[0]}" for shape in (region.mask.shape, self.size))
                raise DataError(f"{self.path}: the mask of {region.name} is {found}, the annotations state {wanted}.")
            if region.crowd:
                ignore |= region.mask
            elif region.name in masks:
                masks[region.name] = masks[region.name] | region.mask
            else:
                masks[region.name] = region.mask
        for mask in masks.values():
            ignore &= ~mask  # a thing inside a crowd is known
        return masks, ignore


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class PhotoSet(Sequence[S], Generic[S]):
    """The photos of one split of a data set, in a fixed order. ``classes``: names by index."""

    name: str
    classes: tuple[str, ...]
    samples: tuple[S, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> PhotoSet[S]: ...
    def __getitem__(self, index: int | slice) -> S | PhotoSet[S]:
        if isinstance(index, slice):
            return PhotoSet(self.name, self.classes, self.samples[index])
        return self.samples[index]

    def __iter__(self) -> Iterator[S]:
        return iter(self.samples)


# --- reading files ----------------------------------------------------------------------------------------------------------------------


def read_photo(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, greys tripled.

    Raises:
        DataError: missing or no picture.
    """
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except Exception as error:  # a damaged picture may raise nearly anything
        raise DataError(f"{path} cannot be read as a photo: {reason(error)}. Download or copy this file again.") from None


def read_labels(path: Path) -> NDArray[np.integer[Any]]:
    """A label map as its file stores it, (H, W): palette indices or grey values, 8 or 16 bits.

    Raises:
        DataError: missing, no picture, or in colours.
    """
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except Exception as error:  # a damaged picture may raise nearly anything
        raise DataError(f"{path} cannot be read as a label map: {reason(error)}. Download or copy this file again.") from None
    if values.ndim != 2:
        raise DataError(f"{path} is a colour picture; a label map has one value per pixel (a palette or grey PNG). Convert its colours.")
    return values.astype(np.int32) if values.dtype == np.bool_ else values


def read_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parsed JSON; ``object_hook`` may replace each object as soon as it is read.

    Raises:
        DataError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_hook=object_hook)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Check the folder against the layout in `promptseg data list`.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}. Download it again.") from None


@contextmanager
def well_formed(what: str, remedy: str) -> Iterator[None]:
    """For code, or as a decorator for functions, that read parsed files as if they were whole.

    Raises:
        DataError: something in them is missing or of another kind than it should be; ``remedy`` says what to do.
    """
    try:
        yield
    except PromptSegError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        found = f"no {error}" if isinstance(error, KeyError) else f"a value that does not fit: {error}"
        raise DataError(f"{what}: there is {found}. {remedy}") from None


class _Plain(pickle.Unpickler):
    """Reads dictionaries, lists, texts and numbers; anything that would call code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path) -> Any:
    """A pickle of plain values, of Python 2, too; a damaged one, or one that would call code, may raise nearly anything."""
    with path.open("rb") as stream:
        return _Plain(stream, encoding="utf-8", errors="replace").load()


def read_lines(path: Path, remedy: str = "Check the folder against the layout in `promptseg data list`.") -> list[str]:
    """Lines of a text file without blanks around them, empty ones left out; ``remedy`` ends the message when it cannot be read.

    Raises:
        DataError: missing or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors mark their files
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. {remedy}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def reason(error: Exception) -> str:
    """What went wrong, without the path that the message names already."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def size_stated(entry: Mapping[str, Any], file: Path) -> tuple[int, int]:
    """(H, W) of a photo as its entry in an annotation file states it.

    Raises:
        DataError: it has none, or an impossible one.
    """
    try:
        height, width = int(entry["height"]), int(entry["width"])
        if height > 0 and width > 0 and height * width <= MAX_PIXELS:
            return height, width
    except (KeyError, TypeError, ValueError):
        pass
    found = f"width {entry.get('width')!r} and height {entry.get('height')!r}"
    raise DataError(f"{file}: the image {entry.get('id', entry.get('image_id'))!r} has {found}; both are whole numbers of pixels.")


def one_of(value: str, allowed: Sequence[str], what: str) -> str:
    """``value`` if it is allowed.

    Raises:
        DataError: it is not.
    """
    if value not in allowed:
        raise DataError(f"There is no {what} {value!r}; choose one of {', '.join(allowed)}.")
    return value


def label_map(path: Path, count: int, *, first: int = 0, ignore: int = 255, names: str = "classes") -> Labels:
    """A published label map as indices: value ``first`` is class 0, ``ignore`` and values below ``first`` are `IGNORE`; (H, W) int32.

    Raises:
        DataError: unreadable, or a value is none of the ``count`` classes.
    """
    labels = read_labels(path).astype(np.int32) - first
    unknown = (labels == ignore - first) | (labels < 0)
    labels[unknown] = IGNORE
    if labels.size and labels.max() >= count:
        wrong = [int(value) + first for value in np.unique(labels[labels >= count])[:5]]
        raise DataError(
            f"{path} holds the values {wrong}; allowed are {first}..{first + count - 1} ({count} {names}) and {ignore} (ignored). "
            "Check that it is a map of this data set, and not one of colours or of shifted ids."
        )
    return labels

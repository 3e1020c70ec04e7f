"""Run-length coded masks, as COCO stores them: column by column, lengths of alternating runs, the first one of zeros.

A mask of a 12-megapixel photo takes 12 MB as an array and some ten kilobytes as runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .contracts import Size
from .errors import ImageError

__all__ = ["Rle"]

Ints: TypeAlias = NDArray[np.int64]
Box: TypeAlias = tuple[int, int, int, int]  # (x0, y0, x1, y1), half-open


@dataclass(frozen=True, slots=True, eq=False)
class Rle:
    """A mask as runs: ``size`` (H, W), ``counts`` (R,) uint32 lengths in column-major order, at even positions of zeros.

    Raises:
        ImageError: the runs do not cover the mask exactly.
    """

    size: Size
    counts: NDArray[np.uint32]

    def __post_init__(self) -> None:
        covered, pixels = int(self.counts.sum(dtype=np.int64)), self.size[0] * self.size[1]
        if covered != pixels:
            raise ImageError(f"The runs cover {covered} pixels, but {self.size[1]}x{self.size[0]} are {pixels}; the file is damaged.")

    @classmethod
    def encode(cls, mask: NDArray[np.bool_], size: Size | None = None, corner: tuple[int, int] = (0, 0)) -> Rle:
        """(h, w) bool -> runs of a mask of ``size`` (H, W), by default its own, in which its upper left pixel lies at ``corner`` (x, y)."""
        height, width = size or mask.shape
        # Changes down a column are found row by row, as the memory lies; only the few places where something changes are put in order.
        padded = np.zeros((mask.shape[0] + 2, mask.shape[1]), dtype=np.bool_)
        padded[1:-1] = mask
        row, column = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), mask.shape[1])
        changes = (column + corner[0]) * height + row + corner[1]
        changes.sort()
        goes_on = changes[1:] == changes[:-1]  # a run that ends at the foot of a column and starts again at the head of the next
        changes = changes[~(np.append(goes_on, False) | np.insert(goes_on, 0, False))] if goes_on.any() else changes
        edges = np.concatenate([changes, [] if len(changes) and changes[-1] == height * width else [height * width]]).astype(np.int64)
        return cls((height, width), np.diff(edges, prepend=0).astype(np.uint32))

    def decode(self) -> NDArray[np.bool_]:
        """Runs -> (H, W) bool."""
        ones = np.arange(len(self.counts)) % 2 == 1
        return np.ascontiguousarray(np.repeat(ones, self.counts).reshape(self.size[1], self.size[0]).T)

    @property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    @property
    def box(self) -> Box | None:
        """(x0, y0, x1, y1), half-open pixels; None when the mask is empty."""
        edges = np.cumsum(self.counts, dtype=np.int64)
        starts, ends = edges[0:-1:2], edges[1::2]
        starts, ends = starts[ends > starts], ends[ends > starts]
        if not len(starts):
            return None
        height = self.size[0]
        first, last = starts // height, (ends - 1) // height
        wraps = bool((first != last).any())  # a run that goes on in the next column touches the first and the last row
        top = 0 if wraps else int((starts % height).min())
        bottom = height if wraps else int(((ends - 1) % height).max()) + 1
        return int(first.min()), top, int(last.max()) + 1, bottom

    def to_string(self) -> str:
        """COCO's compressed counts: differences to the run before the last, five bits per character, little end first."""
        values = self.counts.astype(np.int64)
        values[3:] -= values[1:-2].copy()
        length = np.ones(len(values), dtype=np.int64)
        for characters in range(1, 7):
            length += (values < -(1 << (5 * characters - 1))) | (values >= 1 << (5 * characters - 1))
        place = np.cumsum(length) - length
        text = np.empty(int(length.sum()), dtype=np.uint8)
        for position in range(int(length.max(initial=0))):
            here = length > position
            more = (length[here] > position + 1) * 0x20
            text[place[here] + position] = ((values[here] >> (5 * position)) & 0x1F) + more + 48
        return text.tobytes().decode("ascii")

    @classmethod
    def from_string(cls, counts: str | bytes, size: Size) -> Rle:
        """Read COCO's compressed counts.

        Raises:
            ImageError: the text is no such coding, or its runs do not cover ``size``.
        """
        codes = (
            np.frombuffer(counts.encode("ascii", "replace") if isinstance(counts, str) else counts, dtype=np.uint8).astype(np.int64) - 48
        )
        last = np.flatnonzero((codes & 0x20) == 0)
        if not len(last) or last[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 0x3F:
            raise ImageError("These are no COCO run-length counts; the file is damaged.")
        first = np.concatenate([[0], last[:-1] + 1])
        if (last - first).max() > 6:
            raise ImageError("These COCO run-length counts hold a number beyond 32 bits; the file is damaged.")
        position = np.arange(len(codes)) - np.repeat(first, last - first + 1)
        values = np.add.reduceat((codes & 0x1F) << (5 * position), first)
        values -= ((codes[last] & 0x10) != 0) * (np.int64(1) << (5 * (last - first + 1)))
        values[1::2] = np.cumsum(values[1::2])
        values[2::2] = np.cumsum(values[2::2])
        if values.min() < 0 or values.max() > 0xFFFFFFFF:
            raise ImageError("These COCO run-length counts hold a run of negative length; the file is damaged.")
        return cls(size, values.astype(np.uint32))

"""Items for training and testing: a photo, something asked, the mask that answers it.

Data sets of these are map-style (``len``, ``[index]``). What an item draws depends on (seed, epoch, index) alone, so order and content are
the same on any number of workers and after a resume in the middle of an epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .randomness import Draws

__all__ = ["PromptData", "PromptSample", "Support"]


@dataclass(frozen=True, slots=True)
class Support:
    """An example of what is asked: ``image`` (3, S, S) float32 normalised, ``mask`` (S, S) float32, 1 on the thing."""

    image: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSample:
    """A photo, something asked, the mask that answers it.

    Attributes:
        id: the photo's and the phrase's name in the data set.
        image: (3, S, S) float32, ImageNet mean and standard deviation.
        target: (1, h, w) float32, 1 where the answer is; the size of the image, or of the photo where scores are taken there.
        valid: (1, h, w) float32, 0 where a pixel does not count; None: all count.
        phrase: what is asked, bare. prompt: the same in the drawn wording.
        support: an example, or None where the phrase has none.
        text_weight: share of the text in the condition, 1 without an example.
        group: the class by which scores are averaged (a class index; in PhraseCut the sample's own index).
        negative: the phrase was exchanged for another one and the target emptied.
    """

    id: str
    image: Tensor
    target: Tensor
    phrase: str
    prompt: str
    group: int
    valid: Tensor | None = None
    support: Support | None = None
    text_weight: float = 1.0
    negative: bool = False


class PromptData(ABC):
    """A map-style data set of `PromptSample`.

    Set ``epoch`` before each pass, and before a loader copies the data set to its workers; every item then draws anew.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def draw(self, index: int, draws: Draws) -> PromptSample:
        """The item ``index``, 0 <= index < len, with the random choices of ``draws``."""

    def describe(self, index: int) -> str:
        """Which sample the item ``index`` is, for messages."""
        return f"item {index}"

    def __getitem__(self, index: int) -> PromptSample:
        """The item ``index`` of the current epoch: the same whoever asks, and however often."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return self.draw(index, Draws(self.seed, self.epoch, index))

    def __iter__(self) -> Iterator[PromptSample]:
        return (self[index] for index in range(len(self)))

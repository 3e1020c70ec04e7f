"""Results of models that read the question together with the photo: one pass of the network per question, on features that are kept.

Such a network offers, about the features of one photo and its size (H, W), some of ``to_prompted``, ``to_referred``, ``to_class_maps``,
``to_panoptic``, ``to_instances``, ``to_memory`` and ``to_tracked``; `contracts.Network` says what they give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import images
from .batching import in_batches
from .contracts import MAX_PIXELS, Card, Options, Size
from .errors import ImageError, PromptError
from .maps import PanopticMap, Segment, SemanticMap
from .masks import Mask
from .postprocess import semantic_map
from .prompts import MaskPrompt, Prompt, Text
from .results import Instances, Masks
from .rle import Rle
from .semantics import Contest
from .sources import RunSource, Upsample

if TYPE_CHECKING:
    from .prompts import ImageInput

Result = TypeVar("Result")

__all__ = ["Asked", "alone", "tracked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One encoded photo: as the user gave it, its ``size`` (H, W), the model's ``features``."""

    model: Any
    card: Card
    photo: ImageInput
    size: Size
    features: Any

    def masks(self, prompts: Sequence[Prompt], negative: Sequence[Prompt], threshold: float, upsample: Upsample) -> Masks:
        """One per prompt."""
        given = [_decoded(prompt, self.size) for prompt in (*prompts, *negative)]
        if not prompts:
            return Masks([], self.size, photo=self.photo, model=self.card.name)
        found = self.model.to_prompted(self.features, self.size, given)
        return Masks.from_logits(
            found.logits[0, : len(prompts)],
            self.size,
            given[: len(prompts)],
            threshold=threshold,
            presence=found.presence[0, : len(prompts)].sigmoid(),
            presence_threshold=self.card.presence_threshold,
            negative=found.logits[0, len(prompts) :],
            upsample=upsample,
            photo=self.photo,
            model=self.card.name,
        )

    def referred(self, expression: str, options: Options | None) -> Masks:
        """A single mask of everything that is meant."""
        mask, score = self.model.to_referred(self.features, self.size, Text(expression).text, options or Options())
        return Masks([self._mask(mask, Text(expression), score)], self.size, photo=self.photo, model=self.card.name)

    def semantic(self, contest: Contest, options: Options | None) -> SemanticMap:
        """The class of which most speaks at every pixel; its score stays within 1."""
        maps = self.model.to_class_maps(self.features, self.size, contest.words, options or Options()) if contest.words else []
        found = semantic_map(
            maps, self.size, contest.classes, background=contest.background, photo=self.photo, model=self.card.name, squashed=True
        )
        np.minimum(found.scores, 1, out=found.scores)
        return found

    def instances(self, classes: Sequence[Sequence[str]], least: float) -> Instances:
        """Those that score at least so much, the surest first."""
        proposed = self.model.to_instances(self.features, self.size, classes) if classes else ()
        names = [words[0] for words in classes]
        found = [(score, self._mask(mask, Text(names[label]), score), names[label]) for mask, label, score in proposed if score >= least]
        found.sort(key=lambda one: -one[0])
        masks, labels = [mask for _, mask, _ in found], [label for *_, label in found]
        return Instances(masks, self.size, labels=labels, classes=names, photo=self.photo, model=self.card.name)

    def panoptic(self, named: Sequence[tuple[Sequence[str], bool]], options: Options | None) -> PanopticMap:
        """Classes, each with whether its objects are told apart: things one by one, stuff as a whole."""
        classes, kinds = [words for words, _ in named], [thing for _, thing in named]
        index, segments = np.zeros(self.size, np.int32), list[Any]()
        if classes:
            index, segments = self.model.to_panoptic(self.features, self.size, classes, kinds, options or Options())
        listed = [Segment(classes[one.label][0], one.is_thing, one.score) for one in segments]
        return PanopticMap(index - 1, listed, photo=self.photo, model=self.card.name)

    def tracked(self, prompts: Sequence[Prompt], memory: Any) -> Masks:
        """The objects of ``memory`` in this frame."""
        masks, scores = self.model.to_tracked(self.features, self.size, memory)
        found = [self._mask(mask, prompt, score) for mask, prompt, score in zip(masks, prompts, scores, strict=True)]
        return Masks(found, self.size, photo=self.photo, model=self.card.name)

    def _mask(self, mask: NDArray[np.bool_], prompt: Prompt, score: float) -> Mask:
        source = RunSource(Rle.encode(mask))
        return Mask(source, prompt, presence=min(1.0, score), presence_threshold=self.card.presence_threshold)


def _decoded(prompt: Prompt, size: Size) -> Prompt:
    """A mask of the photo as an array (H, W) bool; other prompts as they are."""
    if not isinstance(prompt, MaskPrompt):
        return prompt
    return MaskPrompt(images.load_mask(prompt.mask, size, max_pixels=max(MAX_PIXELS, size[0] * size[1])))


def alone(work: Callable[[], Result], what: str) -> Result:
    """Work that cannot be divided.

    Raises:
        MemoryLimitError: it does not fit.
    """
    return in_batches(lambda _: [work()], [None], 1, what)[0]


def tracked(frames: Iterator[Asked], given: Any, find: Callable[[Asked], Masks]) -> Iterator[Masks]:
    """The first frame's masks, as they were given or as ``find`` finds them, then those of every further frame, one at a time.

    Raises:
        ImageError: a frame has another size than the first, or the masks have.
        PromptError: there is no object in the first frame.
        MemoryLimitError: not even one frame fits into memory.
    """
    first = next(frames, None)
    if first is None:
        return

    def begin() -> tuple[list[Prompt], Any, list[Mask]]:
        with torch.inference_mode():  # never around a yield: the caller's own work is none of ours
            prompts, masks = _first_masks(given if isinstance(given, Masks | np.ndarray) else find(first), first.size)
            memory = first.model.to_memory(first.features, masks)
            return prompts, memory, [first._mask(mask, prompt, 1.0) for mask, prompt in zip(masks, prompts, strict=True)]

    prompts, memory, shown = alone(begin, "frames")
    yield Masks(shown, first.size, photo=first.photo, model=first.card.name)
    for frame in frames:
        if frame.size != first.size:
            raise ImageError(f"The frames of a video have one size; one is {frame.size}, the first {first.size} pixels (H, W).")
        with torch.inference_mode():
            found = alone(partial(frame.tracked, prompts, memory), "frames")
        yield found


def _first_masks(given: Masks | NDArray[Any], size: Size) -> tuple[list[Prompt], NDArray[np.bool_]]:
    """What a video's first frame shows, from `Masks` or an array (K, H, W)."""
    if isinstance(given, Masks):
        prompts, masks = list(given.prompts), [mask.mask for mask in given]
    else:
        masks = [np.asarray(mask, np.bool_) for mask in given]
        prompts = [Text(f"object {number}") for number in range(1, len(masks) + 1)]
    if wrong := [mask.shape for mask in masks if mask.shape != size]:
        raise ImageError(f"The first frame is {size} pixels (H, W), a mask of its objects {wrong[0]}; they must be equal.")
    if not masks or not all(mask.any() for mask in masks):
        raise PromptError("Tracking starts from at least one object, none of whose masks in the first frame is empty.")
    return prompts, np.stack(masks)

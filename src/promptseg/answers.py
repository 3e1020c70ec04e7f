"""How photos and prompts become answers: what is encoded, remembered, batched and checked before a result is made of it.

`Segmenter` is this and the questions; this file knows no task, that one neither caches nor batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

import torch

from .abilities import kind_of, require_kinds
from .asked import Asked, alone
from .batching import in_batches
from .contracts import MAX_PIXELS, Card, Options, PromptFeatures, Size, View
from .devices import cache_folder, choose_device, choose_precision
from .embeddings import ImageEmbedding, PromptEmbedding, PromptEncoder
from .errors import ConfigError
from .exemplars import decoded, needs_photo
from .inference import Runner
from .prompt_store import PromptStore
from .prompts import Prompt, as_prompts

if TYPE_CHECKING:
    import numpy as np

    from .prompts import ImageInput

    Photo: TypeAlias = ImageInput | ImageEmbedding

Result = TypeVar("Result")
Prompts: TypeAlias = str | Prompt | Sequence[str | Prompt] | PromptEmbedding

__all__ = ["Answers", "Prompts"]


class Answers:
    """One model, its runner and what it remembers; arguments as `Segmenter` describes them."""

    def __init__(
        self,
        model: Any,
        card: Card,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_pixels", max_pixels)):
            if value < 1:
                raise ConfigError(f"{name} is a number of at least 1, not {value}.")
        place = choose_device(device)
        self.model, self.card, self.batch_size, self.max_pixels = model, card, batch_size, max_pixels
        self._runner = Runner(model, card, place, choose_precision(precision, place), max_pixels)
        weights = getattr(model, "prompt_weights", None)
        store = None if weights is None else PromptStore(cache_folder() / "prompts", weights)
        self._encoder = PromptEncoder(model.encode_prompts, store=store)
        model.to(device=place, dtype=self._runner.dtype).eval()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._runner.device

    @property
    def precision(self) -> str:
        """The format of weights and activations: "float32", "bfloat16" or "float16"."""
        return str(self._runner.dtype).removeprefix("torch.")

    def to(self, device: str) -> Self:
        """Move the model; embeddings made before stay valid. Not while another thread is asking."""
        self._runner.device = choose_device(device)
        self.model.to(device=self.device)
        self._runner.features.clear()
        self._encoder.cache.clear()
        return self

    # --- halves that can be kept --------------------------------------------------------------------------------------------------------

    def embed_image(self, image: Photo, *, options: Options | None = None) -> ImageEmbedding:
        """Encode a photo; give the result to any question in place of the photo. ``options`` as in `__call__`, fixed from here on.

        Raises:
            ImageError: the photo cannot be read.
        """
        with torch.inference_mode():
            return self._runner.encode(self._runner.show(image, options))

    def embed_prompts(self, prompts: Prompts) -> PromptEmbedding:
        """Encode prompts; give the result to any question about any photo in place of the prompts, or as ``negative``.

        Raises:
            PromptError, UnsupportedPrompt: as `__call__`; an exemplar must bring its photo.
        """
        if isinstance(prompts, PromptEmbedding):
            if prompts.model != self.card.name:
                raise ConfigError(f"The prompts were encoded by {prompts.model!r}, which {self.card.name!r} cannot read.")
            return prompts
        checked = self._checked(prompts)
        return PromptEmbedding(self._encoded(checked, None), self.card.name)

    # --- how an answer is made ----------------------------------------------------------------------------------------------------------

    def _question(self, prompts: Prompts) -> _Question:
        """Encoded once for all photos, unless a prompt means something else in each."""
        if not isinstance(prompts, PromptEmbedding):
            prompts = self._checked(prompts)
            if any(map(needs_photo, prompts)):
                return _Pending(prompts)
        return self.embed_prompts(prompts)

    def _encoded(self, prompts: tuple[Prompt, ...], photo: np.ndarray | None) -> PromptFeatures:
        """The prompts as the user gave them, and their conditions (N, D)."""
        rows: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for places, some in decoded(prompts, photo, self.max_pixels):
                rows.update(zip(places, self._encoder(some).condition, strict=True))
            condition = torch.stack([rows[place] for place in range(len(prompts))]) if rows else torch.empty(0, 0)
        return PromptFeatures(prompts, condition)

    def _conditions(self, questions: Sequence[_Question], photo: np.ndarray) -> PromptFeatures:
        """The prompts of all questions about one photo, one after another."""
        parts = [q.features if isinstance(q, PromptEmbedding) else self._encoded(q.prompts, photo) for q in questions if len(q)]
        prompts = tuple(prompt for part in parts for prompt in part.prompts)
        conditions = [part.condition.to(self.device) for part in parts]
        return PromptFeatures(prompts, torch.cat(conditions) if conditions else torch.empty(0, 0))

    def _answer(
        self,
        image: Photo | list[Photo],
        questions: Sequence[_Question],
        options: Options | None,
        finish: Callable[[ImageInput, Size, Any], Result],
    ) -> Result | list[Result]:
        """Photos in batches -> what ``finish`` makes of a photo, its (H, W) and its merged prediction (1, N, h, w)."""

        def work(batch: Sequence[Photo]) -> list[Result]:
            shown = [self._runner.show(photo, options) for photo in batch]
            with torch.inference_mode():
                predictions = self._runner.predict(shown, self._conditions(questions, shown[0].photo), options)
            return [
                finish(one.photo if isinstance(photo, ImageEmbedding) else photo, one.size, prediction)
                for photo, one, prediction in zip(batch, shown, predictions, strict=True)
            ]

        one_by_one = any(isinstance(question, _Pending) for question in questions)
        return _of_each(image, work, 1 if one_by_one else self.batch_size)

    def _looked_at(
        self, image: Photo | list[Photo], views: Callable[[Size], tuple[View]], finish: Callable[[ImageInput, Size, Any], Result]
    ) -> Result | list[Result]:
        """Photos in batches, each in the one view that ``views`` has for its (H, W) -> what ``finish`` makes of a photo, its size and its
        features.
        """

        def work(batch: Sequence[Photo]) -> list[Result]:
            shown = [self._runner.show(photo, None) for photo in batch]
            shown = [one if one.views == views(one.size) else replace(one, views=views(one.size), features=()) for one in shown]
            with torch.inference_mode():
                return [
                    finish(one.photo if isinstance(photo, ImageEmbedding) else photo, one.size, features)
                    for photo, one, features in zip(batch, shown, self._runner.wholes(shown), strict=True)
                ]

        return _of_each(image, work, self.batch_size)

    def _asked(self, photo: Photo, options: Options | None) -> Asked:
        """A photo, encoded once, for a model that reads the question together with it."""

        def work() -> Asked:
            with torch.inference_mode():
                shown = self._runner.show(photo, options)
                (features,) = self._runner.wholes([shown])
            return Asked(self.model, self.card, photo.photo if isinstance(photo, ImageEmbedding) else photo, shown.size, features)

        return alone(work, "photos")

    def _each(self, image: Photo | list[Photo], options: Options | None, answer: Callable[[Asked], Result]) -> Result | list[Result]:
        """One photo, or a list of them, each by itself."""

        def work(batch: Sequence[Photo]) -> list[Result]:
            with torch.inference_mode():
                return [answer(self._asked(photo, options)) for photo in batch]

        return _of_each(image, work, 1)

    def _words_and_marks(self, prompts: Prompts) -> tuple[Prompt, ...]:
        """Prompts as they are, checked."""
        return self.embed_prompts(prompts).prompts if isinstance(prompts, PromptEmbedding) else self._checked(prompts)

    def _checked(self, prompts: Any) -> tuple[Prompt, ...]:
        items = as_prompts(prompts)
        require_kinds(self.card, map(kind_of, items))
        return items


def _of_each(image: Photo | list[Photo], work: Callable[[Sequence[Photo]], list[Result]], size: int) -> Result | list[Result]:
    """What ``work`` makes of batches of up to ``size`` photos: a list for a list, one result for one photo."""
    photos: list[Photo] = list(image) if isinstance(image, list | tuple) else [image]
    results = in_batches(work, photos, size, "photos")
    return results if isinstance(image, list | tuple) else results[0]


@dataclass(frozen=True, slots=True)
class _Pending:
    """Prompts that point into the photo being segmented and wait for it."""

    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)


_Question: TypeAlias = PromptEmbedding | _Pending

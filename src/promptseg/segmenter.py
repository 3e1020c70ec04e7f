"""Photos and prompts in, results out: the object that most users need, and the only one that knows both files and networks.

>>> segmenter = promptseg.load("pocket")
>>> masks = segmenter("photo.jpg", ["a dog", "the grass"])
>>> photo = segmenter.embed_image("photo.jpg")     # encode once,
>>> masks = segmenter(photo, "a ball")             # ask as often as you like
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import torch

from . import zoo
from .asked import Asked, class_list, tracked
from .batching import in_batches
from .contracts import MAX_PIXELS, Card, DenseLogits, Options, PromptFeatures, PromptKind, Size, Task, probability
from .devices import cache_folder, choose_device, choose_precision
from .embeddings import ImageEmbedding, PromptEmbedding, PromptEncoder
from .errors import ConfigError, PromptError, UnsupportedPrompt, UnsupportedTask
from .exemplars import decode_exemplars, needs_photo
from .inference import Runner
from .postprocess import semantic_map
from .prompt_store import PromptStore
from .prompts import Blend, Box, Classes, Exemplar, MaskPrompt, Points, Prompt, Scribble, Text, as_prompts
from .results import Masks, SemanticMap
from .semantics import Background, ClassNames, Contest
from .sources import Upsample

if TYPE_CHECKING:
    import numpy as np

    from .prompts import ImageInput

    Photo: TypeAlias = ImageInput | ImageEmbedding

Result = TypeVar("Result")
Prompts: TypeAlias = str | Prompt | Sequence[str | Prompt] | PromptEmbedding

KINDS: dict[type, PromptKind] = {
    Text: "text",
    Exemplar: "exemplar",
    Blend: "blend",
    Points: "points",
    Box: "box",
    Scribble: "scribble",
    MaskPrompt: "mask",
    Classes: "classes",
}

INSTEAD: dict[PromptKind, str] = {
    "box": "For more of what is in a box: Exemplar(box=(x0, y0, x1, y1)).",
    "mask": "For more of what is in a mask: Exemplar(mask=mask).",
    "classes": "For the most probable class of every pixel: segmenter.semantic(image, classes).",
}

__all__ = ["Segmenter", "load"]


def load(
    name: str | PathLike[str] = "pocket",
    *,
    device: str = "auto",
    precision: str = "auto",
    card: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Segmenter:
    """A ready segmenter: the model of a card, of a checkpoint folder, or of a bare published file.

    ``name``: a card's name (`promptseg models` lists them), a folder in our format, or an official file, which needs its ``card``.
    ``device``: "auto", "cpu", "cuda", "cuda:1", "mps". ``precision``: "auto", "float32", "bfloat16", "float16"; see `devices`.
    ``max_pixels``: larger photos are refused before they are decoded.

    Raises:
        UnknownModel: no such card, folder or file.
        WeightsNotFound: the card is known, its weights are not here; the message says how to get them.
        WeightsError: the file does not hold exactly the tensors that the card's model needs.
        ConfigError: the device or the precision does not exist.
    """
    model, found = zoo.load(name, card=card)
    return Segmenter(model, found, device=device, precision=precision, max_pixels=max_pixels)


class Segmenter:
    """Answers prompts about photos with one model.

    A photo is a path, bytes, a PIL image, NumPy (H, W, 3) uint8, torch (3, H, W) or an `ImageEmbedding`; a list of them gives a list of
    results. Features of the last photos and of prompts are remembered by content, so further questions cost only the decoder. Threads may
    share a segmenter. ``model`` itself is moved to the device, cast, and set to evaluation; once it is trained further, make a new one.

    ``batch_size``: photos of equal input shape that go through the network together; out of memory halves it with a warning.
    ``max_pixels``: the largest photo, exemplars' included, that is decoded; a file can claim more than any memory holds.
    """

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

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    def to(self, device: str) -> Segmenter:
        """Move the model; embeddings made before stay valid. Not while another thread is asking."""
        self._runner.device = choose_device(device)
        self.model.to(device=self.device)
        self._runner.features.clear()
        self._encoder.cache.clear()
        return self

    # --- questions ----------------------------------------------------------------------------------------------------------------------

    @overload
    def __call__(
        self,
        image: list[Photo],
        prompts: Prompts,
        *,
        negative: Prompts | None = None,
        threshold: float | None = None,
        upsample: Upsample = "bilinear",
        options: Options | None = None,
    ) -> list[Masks]: ...
    @overload
    def __call__(
        self,
        image: Photo,
        prompts: Prompts,
        *,
        negative: Prompts | None = None,
        threshold: float | None = None,
        upsample: Upsample = "bilinear",
        options: Options | None = None,
    ) -> Masks: ...
    def __call__(
        self,
        image: Photo | list[Photo],
        prompts: Prompts,
        *,
        negative: Prompts | None = None,
        threshold: float | None = None,
        upsample: Upsample = "bilinear",
        options: Options | None = None,
    ) -> Masks | list[Masks]:
        """One mask per prompt, in prompt order; none, one or a thousand prompts.

        ``negative``: what must not be in the masks; a pixel where one of these is more probable than the prompt is left out.
        ``threshold``: probability, 0..1, above which a pixel belongs to the mask; None is the card's. ``upsample``: how logits grow to the
        photo's size: "bilinear", or "guided" by the photo's own edges. ``options``: how the photo is shown, such as in tiles.

        Raises:
            ImageError: a photo cannot be read.
            PromptError, UnsupportedPrompt: a prompt is empty, does not fit its photo, or is of a kind that the model does not take.
            ConfigError: threshold, upsample or options are impossible.
            MemoryLimitError: not even one photo fits into memory.
            NumericalError: the model computed something that is not a number.
        """
        self._require("masks")
        threshold = probability("threshold", self.card.threshold if threshold is None else threshold)
        if hasattr(self.model, "to_prompted"):
            wanted, rivals = self._words_and_marks(prompts), self._words_and_marks(() if negative is None else negative)
            return self._each(image, options, lambda asked: asked.masks(wanted, rivals, threshold, upsample))
        asked, unwanted = self._question(prompts), self._question(() if negative is None else negative)

        def masks(photo: ImageInput, size: Size, answer: Any) -> Masks:
            answer = answer if isinstance(answer, DenseLogits) else self.model.to_masks(answer)
            logits = answer.logits[0]
            return Masks.from_logits(
                logits[: len(asked)],
                size,
                asked.prompts,
                threshold=threshold,
                presence=None if answer.presence is None else answer.presence[0, : len(asked)].sigmoid(),
                presence_threshold=self.card.presence_threshold,
                negative=logits[len(asked) :],
                upsample=upsample,
                photo=photo,
                model=self.card.name,
            )

        return self._answer(image, (asked, unwanted), options, masks)

    @overload
    def semantic(
        self, image: list[Photo], classes: ClassNames | None = None, *, background: Background = None, options: Options | None = None
    ) -> list[SemanticMap]: ...
    @overload
    def semantic(
        self, image: Photo, classes: ClassNames | None = None, *, background: Background = None, options: Options | None = None
    ) -> SemanticMap: ...
    def semantic(
        self,
        image: Photo | list[Photo],
        classes: ClassNames | None = None,
        *,
        background: Background = None,
        options: Options | None = None,
    ) -> SemanticMap | list[SemanticMap]:
        """The most probable class of every pixel, or nothing, -1 in the map.

        ``classes``: names, or `Classes`; a list of synonyms in place of a name counts as one class, as probable as the most probable of
        them. Without any every pixel is nothing.
        ``background``: a probability makes nothing of the pixels of which no class is more probable, so 0 gives every pixel a class; a
        name, or names, compete as well, and their pixels are nothing. None is the card's rule: its threshold for `pocket`, which is trained
        to say what is not there, and for GroupViT, whose authors set one; no background for CLIPSeg, whose authors take the best class.

        Raises:
            UnsupportedTask: the model has no semantic segmentation.
            PromptError: no classes are given and the model has no list of its own, or a name is empty.
            ConfigError: the background threshold is no probability.
        """
        self._require("semantic")
        if hasattr(self.model, "to_class_maps"):
            contest = Contest.between(
                class_list(classes, self.model.classes, self.card.name),
                self.card.background if background is None else background,
            )
            return self._each(image, options, lambda asked: asked.semantic(contest))
        if classes is None:
            raise PromptError(
                f"{self.card.name!r} has no list of classes of its own. Name them: semantic(image, ['sky', 'grass', 'a dog'])."
            )
        contest = Contest.between(classes, self.card.background if background is None else background)
        wanted = options or Options()
        templates = self.card.templates if wanted.templates is None else wanted.templates
        question = self._question([Text(phrase, templates) for phrase in contest.phrases])
        joined = wanted.synonyms == "mean" and isinstance(question, PromptEmbedding) and len(question) > len(contest.words)
        asked = question.mix(*contest.weights) if joined and isinstance(question, PromptEmbedding) else question
        squash = getattr(self.model, "to_scores", None)

        def label(photo: ImageInput, size: Size, answer: Any) -> SemanticMap:
            if not isinstance(answer, DenseLogits):
                counts = [1 if joined else len(words) for words in contest.words]
                labels, scores = self.model.to_semantic(answer, counts, contest.threshold)
                return SemanticMap(contest.without_background(labels), contest.classes, scores=scores, photo=photo, model=self.card.name)
            found = answer.logits[0].numpy() if squash is None or not len(asked) else squash(answer, size)
            maps = found if joined else contest.per_class(found)
            return semantic_map(
                maps, size, contest.classes, background=contest.background, photo=photo, model=self.card.name, squashed=squash is not None
            )

        return self._answer(image, (asked,), options, label)

    def refer(self, image: Photo | list[Photo], expression: str, *, options: Options | None = None) -> Any:
        """What an expression such as "the left cup" refers to, none, one or many objects in one mask.

        Raises:
            UnsupportedTask: the model was not made for referring expressions; `__call__` takes any phrase.
            PromptError: the expression is empty.
        """
        self._require("refer", "For one mask per phrase: segmenter(image, prompts).")
        if hasattr(self.model, "to_referred"):
            phrase = Text(expression).text
            return self._each(image, options, lambda asked: asked.referred(phrase, options))
        return self(image, expression, options=options)

    def panoptic(
        self,
        image: Photo | list[Photo],
        things: ClassNames | None = None,
        stuff: ClassNames | None = None,
        *,
        options: Options | None = None,
    ) -> Any:
        """Every pixel's class, and the object that it belongs to: a `PanopticMap`, or of a list of photos a list.

        ``things``: classes whose objects are told apart; ``stuff``: classes that are one region each. Neither given: the model's own lists.

        Raises:
            UnsupportedTask: the model does not tell objects apart.
            PromptError: a name is empty, or there are too many for one question.
        """
        self._require("panoptic", "For one mask per phrase: segmenter(image, prompts).")
        neither = things is None and stuff is None
        countable = class_list(things if things is not None or neither else (), self.model.things, self.card.name)
        regions = class_list(stuff if stuff is not None or neither else (), self.model.stuff, self.card.name)
        return self._each(image, options, lambda asked: asked.panoptic(countable, regions, options))

    def instances(
        self,
        image: Photo | list[Photo],
        classes: ClassNames | None = None,
        *,
        threshold: float | None = None,
        options: Options | None = None,
    ) -> Any:
        """Every object of the classes, each with a mask of its own: `Instances`, the surest first, or of a list of photos a list.

        ``classes``: None is the model's own list. ``threshold``: score, 0..1, that an object must reach; None is the card's.

        Raises:
            UnsupportedTask: the model does not tell objects apart.
            PromptError: a name is empty, or there are too many for one question.
            ConfigError: the threshold is no probability.
        """
        self._require("instances", "For the connected parts of a mask: segmenter(image, prompt)[0].split().")
        named = class_list(classes, self.model.things, self.card.name)
        least = probability("threshold", self.card.presence_threshold if threshold is None else threshold)
        return self._each(image, options, lambda asked: asked.instances(named, least))

    def groups(self, image: Photo) -> list[SemanticMap]:
        """Segments before they are named: one map per stage, from small parts to wholes; every pixel belongs to one of each.

        Its classes are called "stage 1 group 36", counted as the model's own groups are; its scores are the mean share in which a group
        owns its pixels.

        Raises:
            UnsupportedTask: the model does not form any.
            ImageError: the photo cannot be read.
        """
        self._require("groups", "For named regions: segmenter.semantic(image, classes).")
        shown = self._runner.show(image, None)
        views = self.model.group_views(shown.size)
        if shown.views != views:
            shown = replace(shown, views=views, features=())
        with torch.inference_mode():
            stages = self.model.to_groups(self._runner.encode(shown).features[0], shown.size)
        names = [[f"stage {stage} group {group}" for group in range(len(scores))] for stage, (_, scores) in enumerate(stages, 1)]
        photo = image.photo if isinstance(image, ImageEmbedding) else image
        return [
            SemanticMap(labels, called, scores=scores, photo=photo, model=self.card.name)
            for (labels, scores), called in zip(stages, names, strict=True)
        ]

    def track(self, frames: Iterable[Photo], prompts_or_first_masks: Any, *, options: Options | None = None) -> Iterator[Masks]:
        """The same objects through the frames of a video, one `Masks` per frame, made as the iterator is asked for it.

        ``prompts_or_first_masks``: what is in the first frame: `Masks`, an array (K, H, W), or prompts, which are then answered there.
        One earlier frame is remembered, however long the video is.

        Raises:
            UnsupportedTask: the model has no memory of earlier frames.
            ImageError: a frame cannot be read or has another size than the first, or the masks have.
            PromptError: there is no object in the first frame.
        """
        self._require("track", "For each frame by itself: segmenter(frame, prompts).")
        shown = (self._asked(frame, options) for frame in frames)
        return tracked(
            shown,
            prompts_or_first_masks,
            lambda first: first.masks(self._words_and_marks(prompts_or_first_masks), (), self.card.threshold, "bilinear"),
        )

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
        with torch.inference_mode():
            condition = self._encoder(decode_exemplars(prompts, photo, self.max_pixels)).condition if prompts else torch.empty(0, 0)
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

        photos: list[Photo] = list(image) if isinstance(image, list | tuple) else [image]
        alone = any(isinstance(question, _Pending) for question in questions)
        results = in_batches(work, photos, 1 if alone else self.batch_size, "photos")
        return results if isinstance(image, list | tuple) else results[0]

    def _asked(self, photo: Photo, options: Options | None) -> Asked:
        """A photo, encoded once, for a model that reads the question together with it."""
        with torch.inference_mode():
            shown = self._runner.show(photo, options)
            features = self._runner.whole(shown)
        return Asked(self.model, self.card, photo.photo if isinstance(photo, ImageEmbedding) else photo, shown.size, features)

    def _each(self, image: Photo | list[Photo], options: Options | None, answer: Callable[[Asked], Result]) -> Result | list[Result]:
        """One photo, or a list of them, each by itself."""

        def work(batch: Sequence[Photo]) -> list[Result]:
            with torch.inference_mode():
                return [answer(self._asked(photo, options)) for photo in batch]

        photos: list[Photo] = list(image) if isinstance(image, list | tuple) else [image]
        results = in_batches(work, photos, 1, "photos")
        return results if isinstance(image, list | tuple) else results[0]

    def _words_and_marks(self, prompts: Prompts) -> tuple[Prompt, ...]:
        """Prompts as they are, checked."""
        return self.embed_prompts(prompts).prompts if isinstance(prompts, PromptEmbedding) else self._checked(prompts)

    def _checked(self, prompts: Any) -> tuple[Prompt, ...]:
        items = as_prompts(prompts)
        for kind in dict.fromkeys(KINDS[type(item)] for item in items):
            if kind not in self.card.prompts:
                models = [card.name for card in zoo.cards() if kind in card.prompts]
                raise UnsupportedPrompt(self.card.name, kind, models, INSTEAD.get(kind, ""))
        return items

    def _require(self, task: Task, hint: str = "") -> None:
        if task not in self.card.tasks:
            raise self._unsupported(task, hint)

    def _unsupported(self, task: Task, hint: str) -> UnsupportedTask:
        return UnsupportedTask(self.card.name, task, [card.name for card in zoo.cards() if task in card.tasks], hint)


@dataclass(frozen=True, slots=True)
class _Pending:
    """Prompts that point into the photo being segmented and wait for it."""

    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)


_Question: TypeAlias = PromptEmbedding | _Pending

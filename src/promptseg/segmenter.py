"""Photos and prompts in, results out: the object that most users need, and the only one that knows both files and networks.

>>> segmenter = promptseg.load("pocket")
>>> masks = segmenter("photo.jpg", ["a dog", "the grass"])
>>> photo = segmenter.embed_image("photo.jpg")     # encode once,
>>> masks = segmenter(photo, "a ball")             # ask as often as you like
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from . import zoo
from .abilities import options_of, require_task
from .answers import Answers, Prompts
from .asked import tracked
from .contracts import MAX_PIXELS, DenseLogits, Options, Size, probability
from .detections import chosen, instances
from .devices import choose_device, choose_precision
from .embeddings import ImageEmbedding, PromptEmbedding
from .errors import ImageError, PromptError
from .postprocess import semantic_map
from .prompts import Text
from .results import GroupMap, Instances, Masks, SemanticMap
from .semantics import Background, ClassNames, Contest, given_or_own
from .sources import Upsample

if TYPE_CHECKING:
    from .prompts import ImageInput

    Photo: TypeAlias = ImageInput | ImageEmbedding

Wanted: TypeAlias = str | Sequence[str | Sequence[str]] | None

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
    model, found = zoo.load(name, card=card, dtype=choose_precision(precision, choose_device(device)))
    return Segmenter(model, found, device=device, precision=precision, max_pixels=max_pixels)


class Segmenter(Answers):
    """Answers prompts about photos with one model.

    A photo is a path, bytes, a PIL image, NumPy (H, W, 3) uint8, torch (3, H, W) or an `ImageEmbedding`; a list of them gives a list of
    results. Features of the last photos and of prompts are remembered by content, so further questions cost only the decoder. Threads may
    share a segmenter. ``model`` itself is moved to the device, cast, and set to evaluation; once it is trained further, make a new one.

    ``batch_size``: photos of equal input shape that go through the network together; out of memory halves it with a warning.
    ``max_pixels``: the largest photo, exemplars' included, that is decoded; a file can claim more than any memory holds.
    """

    def __repr__(self) -> str:
        return f"Segmenter({self.card.name!r}, device={str(self.device)!r}, precision={self.precision!r})"

    def options(self, **given: Any) -> Options:
        """How to show photos to this model, in its family's own kind of `Options`; see `abilities.options_of`.

        Raises:
            ConfigError: the family has no such option, or an impossible value.
        """
        return options_of(self.card, **given)

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
        require_task(self.card, "masks")
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
        them. None: those that the model was trained on, if it has such a list. Without any every pixel is nothing.
        ``background``: a probability makes nothing of the pixels of which no class is more probable, so 0 gives every pixel a class; a
        name, or names, compete as well, and their pixels are nothing. None is the card's rule: its threshold for `pocket`, which is trained
        to say what is not there, and for GroupViT, whose authors set one; no background for CLIPSeg and CAT-Seg, whose authors take the
        best class of every pixel.

        Raises:
            UnsupportedTask: the model has no semantic segmentation.
            PromptError: no classes are given and the model has no list of its own, or a name is empty or comes twice.
            ConfigError: the background threshold is no probability.
        """
        require_task(self.card, "semantic")
        named = given_or_own(classes, getattr(self.model, "classes", ()), self.card.name)
        contest = Contest.between(named, self.card.background if background is None else background)
        if hasattr(self.model, "to_class_maps"):
            return self._each(image, options, lambda asked: asked.semantic(contest, options))
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
        require_task(self.card, "refer")
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
        order: Sequence[str] | None = None,
        options: Options | None = None,
    ) -> Any:
        """Every pixel's class, and the object that it belongs to: a `PanopticMap`, or of a list of photos a list.

        ``things``: classes whose objects are told apart; ``stuff``: classes that are one region each. Neither given: the model's own lists.
        ``order``: the first names of all of them as they stand in the question, where that is not things first, then stuff.

        Raises:
            UnsupportedTask: the model does not tell objects apart.
            PromptError: a name is empty, or there are too many for one question, or ``order`` has others.
        """
        require_task(self.card, "panoptic")
        neither = things is None and stuff is None
        countable = given_or_own(things if neither else things or (), self.model.things, self.card.name)
        regions = given_or_own(stuff if neither else stuff or (), self.model.stuff, self.card.name)
        kinds = [(words, True) for words in Contest.between(countable, None).words]
        kinds += [(words, False) for words in Contest.between(regions, None).words]
        if order is not None:
            if sorted(order) != sorted(words[0] for words, _ in kinds):
                raise PromptError("order holds the first name of every class of things and stuff, each once.")
            kinds.sort(key=lambda one: order.index(one[0][0]))
        return self._each(image, options, lambda asked: asked.panoptic(kinds, options))

    @overload
    def instances(
        self,
        image: list[Photo],
        classes: Wanted = None,
        *,
        threshold: float | None = None,
        options: Options | None = None,
    ) -> list[Instances]: ...
    @overload
    def instances(
        self, image: Photo, classes: Wanted = None, *, threshold: float | None = None, options: Options | None = None
    ) -> Instances: ...
    def instances(
        self,
        image: Photo | list[Photo],
        classes: Wanted = None,
        *,
        threshold: float | None = None,
        options: Options | None = None,
    ) -> Instances | list[Instances]:
        """Every object of the classes, each with a mask of its own, the surest first.

        ``classes``: any names for PSALM, for a detector some of those that it was trained on; None: all of these. ``threshold``: score,
        0..1, that an object must reach; None is the card's. A detector without masks (RetinaNet) gives its boxes, filled, as masks.

        Raises:
            UnsupportedTask: the model does not tell objects apart.
            PromptError: a name is empty, or one that a detector does not know, or there are too many for one question.
            ConfigError: the threshold is no probability, or the options are impossible.
        """
        require_task(self.card, "instances")
        least = probability("threshold", self.card.presence_threshold if threshold is None else threshold)
        classes = [classes] if isinstance(classes, str) else classes
        if hasattr(self.model, "to_instances"):
            named = Contest.between(given_or_own(classes, self.model.things, self.card.name), None).words
            return self._each(image, options, lambda asked: asked.instances(named, least))
        known: tuple[str, ...] = self.model.classes
        wanted = chosen(classes, known, self.card.name)

        def found(photo: ImageInput, size: Size, answer: Any) -> Instances:
            present, name = self.card.presence_threshold, self.card.name
            return instances(answer, size, known, wanted=wanted, threshold=least, presence_threshold=present, photo=photo, model=name)

        return self._answer(image, (self._question([Text(name) for name in known]),), options, found)

    @overload
    def groups(self, image: list[Photo]) -> list[list[GroupMap]]: ...
    @overload
    def groups(self, image: Photo) -> list[GroupMap]: ...
    def groups(self, image: Photo | list[Photo]) -> list[GroupMap] | list[list[GroupMap]]:
        """Segments before they are named: one map per stage, from small parts to wholes; every pixel belongs to one of each.

        Its classes are called "stage 1 group 36", counted as the model's own groups are; its scores are the mean share in which a group
        owns its pixels, and its ``parents`` say which group of the next stage each group is a part of.

        Raises:
            UnsupportedTask: the model does not form any.
            ImageError: the photo cannot be read.
            NumericalError: the model computed something that is not a number.
        """
        require_task(self.card, "groups")

        def stages(photo: ImageInput, size: Size, features: Any) -> list[GroupMap]:
            return [
                GroupMap(
                    labels,
                    [f"stage {stage} group {group}" for group in range(len(scores))],
                    parents=parents,
                    scores=scores,
                    photo=photo,
                    model=self.card.name,
                )
                for stage, (labels, scores, parents) in enumerate(self.model.to_groups(features, size), 1)
            ]

        found = self._looked_at(image, self.model.group_views, stages)
        return found  # noqa: RET504 - mypy infers its type only where none is expected

    def track(self, frames: Iterable[Photo], prompts_or_first_masks: Any, *, options: Options | None = None) -> Iterator[Masks]:
        """The same objects through the frames of a video, one `Masks` per frame, made as the iterator is asked for it.

        ``prompts_or_first_masks``: what is in the first frame: `Masks`, an array (K, H, W), or prompts, which are then answered there.
        One earlier frame is remembered, however long the video is.

        Raises:
            UnsupportedTask: the model has no memory of earlier frames.
            ImageError: ``frames`` are none, or a frame cannot be read or has another size than the first, or the masks have.
            PromptError: there is no object in the first frame.
            MemoryLimitError: not even one frame fits into memory.
        """
        require_task(self.card, "track")
        if isinstance(frames, str | bytes) or not isinstance(frames, Iterable):
            raise ImageError(f"Frames are a list of photos, or what gives one after another, not {type(frames).__name__}.")
        shown = (self._asked(frame, options) for frame in frames)
        return tracked(
            shown,
            prompts_or_first_masks,
            lambda first: first.masks(self._words_and_marks(prompts_or_first_masks), (), self.card.threshold, "bilinear"),
        )

"""PSALM for whoever has photos and words: what the `Segmenter` asks for, task by task, about one encoded photo.

Each answer is one pass of the language model behind the image, which was read once. Masks grow to the photo one at a time, so that memory
does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import DenseLogits, Options, PromptFeatures, Size, View
from ...data.vocabularies import names
from ...errors import ConfigError, NumericalError, PromptError, WeightsError, WeightsNotFound
from ...memory import require
from ...prompts import Prompt, Text
from . import postprocess as post
from .clicks import REGIONS, regions
from .config import PsalmConfig, PsalmOptions
from .grid import Grid
from .keys import LAYOUTS, SAME
from .network import Network, PsalmImage, load
from .photos import PADDING, fit_region, fitted
from .predictor import Head
from .tokens import IMAGE, PromptBatch, PromptIds, Task, Tokenizer, collate, prompt_text
from .video import Frame, Memory, chosen

MARKS = 500  # that are one question: each takes 3 of 2048 tokens
AT_ONCE = 16  # classes whose maps are summed together: 64 MB at 1024 pixels
THINGS = 80  # of the 133 classes come first
SHORTENED = 200  # classes, above which only the first name of each is read
NOTHING = "background"  # the name of the class that means no object; every list of classes ends with it
Array = NDArray[np.bool_]


class Model(Network):
    """See `contracts.Network` for the protocol."""

    def __init__(self, config: PsalmConfig) -> None:
        super().__init__(config)
        self._words: Tokenizer | None = None

    @classmethod
    def from_official(cls, config: PsalmConfig, *state_dicts: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Model:
        """The network with published weights, in evaluation mode; it takes tensors of ``dtype`` themselves, without copying them.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return cls._built(config, LAYOUTS, dtype, *state_dicts)

    @classmethod
    def from_own(cls, config: PsalmConfig, tensors: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32) -> Model:
        """The same from tensors under our own names."""
        return cls._built(config, {"own": SAME}, dtype, tensors)

    @classmethod
    def _built(
        cls, config: PsalmConfig, layouts: Mapping[str, Sequence[Any]], dtype: torch.dtype, *state_dicts: Mapping[str, Tensor]
    ) -> Model:
        with torch.device("meta"):
            model = cls(config)
        load(model, layouts, dtype, *state_dicts)
        return model.eval()

    # --- words --------------------------------------------------------------------------------------------------------------------------

    @property
    def words(self) -> Tokenizer:
        """The checkpoint's tokenizer.

        Raises:
            WeightsNotFound: the weights came without.
        """
        if self._words is None:
            raise WeightsNotFound(
                "PSALM's weights came without a tokenizer. Put the checkpoint's tokenizer.json (or merges.txt) beside them and load again, "
                "or set model.words = Tokenizer.from_folder(folder)."
            )
        return self._words

    @words.setter
    def words(self, tokenizer: Tokenizer) -> None:
        if len(tokenizer) > self.config.language.vocabulary:
            raise WeightsError(
                f"This tokenizer has {len(tokenizer)} tokens, the language model {self.config.language.vocabulary}. Take the checkpoint's."
            )
        self._words = tokenizer

    def accompany(self, folder: Path) -> None:
        """Take the tokenizer that lies beside the weights, where one does."""
        if any((folder / name).is_file() for name in ("tokenizer.json", "merges.txt")):
            self.words = Tokenizer.from_folder(folder)

    def save_beside(self, folder: Path) -> None:
        """Put the tokenizer beside weights that are being saved, where there is one."""
        if self._words is not None:
            self._words.save(folder)

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_image(self, pixel_values: Tensor) -> PsalmImage:
        """pixel_values (B, 3, S, S), normalised, S a multiple of 64.

        With a tokenizer at hand the language model reads what stands in front of every question, the image included.
        """
        maps, read = self.look(pixel_values)
        tokens = self.projector(read[-1])
        opening = None if self._words is None else torch.tensor(self._opening(self._words), device=tokens.device)
        return PsalmImage(tokens, self.pixel_decoder(maps), None if opening is None else self.before(tokens, opening))

    @staticmethod
    def _opening(words: Tokenizer) -> list[int]:
        """Ids up to the image, which all questions share."""
        ids = words.encode_frame(prompt_text("referring"))
        return ids[: ids.index(IMAGE) + 1]

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Nothing is computed: words are read together with the image.

        Raises:
            PromptError: another type of prompt than texts, points, scribbles, boxes and masks.
        """
        for prompt in prompts:
            if not isinstance(prompt, (Text, *REGIONS)):
                raise PromptError(f"PSALM takes texts, points, scribbles, boxes and masks, not {type(prompt).__name__}.")
        return PromptFeatures(tuple(prompts), self.mask_tokens.new_zeros(len(prompts), 0))

    def decode(self, image: PsalmImage, prompt: PromptIds, marked: Tensor | None = None) -> Head:
        """One question about one image -> masks and scores of all queries, float32 on the CPU.

        ``marked``: the vectors (K, D) of the regions that the prompt speaks of.

        Raises:
            PromptError: the prompt is longer than the language model reads.
            NumericalError: the network computed something that is not a number.
        """
        longest = self.config.language.context
        if len(prompt.ids) > longest:
            raise PromptError(
                f"The prompt has {len(prompt.ids)} tokens, of which PSALM reads {longest}. Ask for fewer classes or objects at once."
            )
        batch, tokens = collate([prompt], self.words.pad, longest), None
        place = prompt.ids.index(IMAGE)
        if image.prefix is None:
            tokens = image.tokens
        else:
            batch = replace(
                batch, ids=batch.ids[:, place + 1 :], labels=batch.labels[:, place + 1 :], attention=batch.attention[:, place + 1 :]
            )
        batch = _on(batch, image.tokens.device)
        understood = self.understand(batch, tokens, None if marked is None else [marked], image.prefix)
        head = _at_hand(self.predict(image.seen, understood)[-1])
        if head.masks.isnan().any():
            raise NumericalError(f"PSALM computed masks that are not numbers, in {image.tokens.dtype}. Try precision='float32'.")
        return head

    # --- photos -------------------------------------------------------------------------------------------------------------------------

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """The whole photo, its longer side filling a square of ``options.size``.

        Raises:
            ConfigError: tiles, another fit, templates, the mean of synonyms, or a size that is no multiple of 64.
        """
        side = options.size or self.config.preprocess.size
        if options.tile is not None or options.fit not in (None, "letterbox"):
            raise ConfigError("PSALM looks at the whole photo in a padded square; leave tile and fit out. For finer masks raise size.")
        if options.templates is not None:
            raise ConfigError("PSALM reads the names of classes as they stand; leave templates out.")
        if options.synonyms != "max":
            raise ConfigError("PSALM reads every name of a class by itself and knows no mean of them; leave synonyms out.")
        if side % 64:
            raise ConfigError(f"The size of PSALM's input is a multiple of 64, not {side}.")
        return (View((0, 0, size[1], size[0]), fitted(size, side), (side, side)),)

    def prepare(self, pixels: Tensor, view: View) -> Tensor:
        """Normalised pixels (3, S, S) with the grey padding that the published model sees in place of the mean colour."""
        fit = self.config.preprocess
        grey = (torch.tensor(PADDING / 255) - torch.tensor(fit.mean)) / torch.tensor(fit.std)
        pixels = pixels.clone()
        pixels[:, view.content[0] :] = grey[:, None, None]
        pixels[:, :, view.content[1] :] = grey[:, None, None]
        return pixels

    # --- answers about one photo of ``size`` (H, W) -------------------------------------------------------------------------------------

    def to_prompted(self, image: PsalmImage, size: Size, prompts: Sequence[Prompt]) -> DenseLogits:
        """The best mask of every prompt: logits (1, N, h, w) that cover the photo, and presence.

        Every text is a question of its own, all marks together are one, or one per 500.

        Raises:
            PromptError: a text has templates, or a mark marks nothing.
        """
        if any(isinstance(prompt, Text) and prompt.templates for prompt in prompts):
            raise PromptError("PSALM reads a phrase as it stands and has no templates; leave them out, or put the wording into the phrase.")
        grid = Grid.of(image, size)
        marks = [prompt for prompt in prompts if isinstance(prompt, REGIONS)]
        picked = self._marked(image, grid, marks)
        logits, scores = torch.empty(1, len(prompts), *grid.content), torch.empty(1, len(prompts))
        for place, prompt in enumerate(prompts):  # put in place one by one: at 1024 pixels each is 4 MB
            logits[0, place], scores[0, place] = self._said(image, grid, prompt.text) if isinstance(prompt, Text) else next(picked)
        return DenseLogits(logits, scores.logit(1e-6))

    def _said(self, image: PsalmImage, grid: Grid, sentence: str) -> tuple[Tensor, float]:
        head = self.decode(image, self.words.prompt("referring", sentences=[sentence]))
        assert head.sentence is not None
        return grid.best(head.masks[0], head.sentence[0, :, 0].sigmoid())

    def _marked(self, image: PsalmImage, grid: Grid, prompts: Sequence[Prompt]) -> Iterator[tuple[Tensor, float]]:
        for begin in range(0, len(prompts), MARKS):
            head = self._shown(image, image.tokens, regions(prompts[begin : begin + MARKS], grid.size, grid.side, begin))
            assert head.regions is not None
            for scores in head.regions[0]:
                yield grid.best(head.masks[0], scores.sigmoid())

    def _shown(self, image: PsalmImage, tokens: Tensor, grids: Array) -> Head:
        """Regions (K, S, S) of the image with ``tokens`` as the prompt; drawn alike at every call, whatever other threads draw."""
        points = self.draw([torch.from_numpy(grids)], torch.Generator().manual_seed(0))
        (marked,) = self.regions(tokens, points)
        return self.decode(image, self.words.prompt("region", regions=len(grids)), marked)

    def to_referred(self, image: PsalmImage, size: Size, expression: str, options: Options) -> tuple[Array, float]:
        """What an expression means, none, one or many things: the union (H, W) of all masks that score above a threshold, else the best.

        Also the score of the best. There is no decision that nothing is meant: the score tells (published code).
        """
        grid, threshold = Grid.of(image, size), _options(options).union_threshold
        head = self.decode(image, self.words.prompt("referring", sentences=[expression]))
        assert head.sentence is not None
        shares, union, top = head.sentence[0, :, 0].sigmoid(), np.zeros(size, np.bool_), 0.0
        for query in (shares > threshold).nonzero().flatten().tolist():
            mask, score = grid.mask(head.masks[0, query], shares[query])
            if score > threshold:
                union |= mask
                top = max(top, score)
        if top:
            return union, top
        logits, score = grid.best(head.masks[0], shares)
        return grid.to_photo(logits[None])[0].numpy() > 0, score

    def to_class_maps(
        self, image: PsalmImage, size: Size, classes: Sequence[Sequence[str]], options: Options
    ) -> Iterator[NDArray[np.float32]]:
        """Per class (its synonyms), one after the other: how much speaks for it at every pixel, (H, W), 0 and more.

        Raises:
            MemoryLimitError: ``options.enlarged`` would take more than half of the free memory.
        """
        grid, head = Grid.of(image, size), self._named(image, classes, "semantic")
        assert head.classes is not None
        shares = head.classes[0].softmax(-1)[:, :-1].T  # (C, Q)
        if _options(options).enlarged:
            queries = head.masks.shape[1]
            require(4 * queries * size[0] * size[1], f"{queries} masks of {size[1]}x{size[0]} pixels", "Leave enlarged out.")
            masks = torch.stack([grid.grow(one).sigmoid_() for one in head.masks[0]])
            for rows in torch.split(shares, AT_ONCE):
                yield from torch.einsum("cq,qhw->chw", rows, masks).numpy()
            return
        square = F.interpolate(head.masks, (grid.side, grid.side), mode="bilinear", align_corners=False)[0].sigmoid_()
        square = square[:, : grid.content[0], : grid.content[1]]
        for rows in torch.split(shares, AT_ONCE):
            for summed in torch.einsum("cq,qhw->chw", rows, square):
                yield F.interpolate(summed[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()

    def to_instances(self, image: PsalmImage, size: Size, classes: Sequence[Sequence[str]]) -> Iterator[tuple[Array, int, float]]:
        """Masks (H, W) with their class and score, as many as there are queries, best first by class; empty masks are left out."""
        grid, head = Grid.of(image, size), self._named(image, classes, "instance")
        assert head.classes is not None
        found = post.instances(head.classes[0], torch.ones(head.masks.shape[1]))
        for place in found.score.argsort(descending=True, stable=True).tolist():
            mask, score = grid.mask(head.masks[0, int(found.query[place])], found.score[place])
            if mask.any():
                yield mask, int(found.label[place]), score

    def to_panoptic(
        self, image: PsalmImage, size: Size, classes: Sequence[Sequence[str]], is_thing: Sequence[bool], options: Options
    ) -> tuple[NDArray[np.int32], list[post.Segment]]:
        """Map (H, W) of segments' numbers from 1, 0 where there is none, and the segments."""
        grid, head, wanted = Grid.of(image, size), self._named(image, classes, "panoptic"), _options(options)
        assert head.classes is not None
        found = post.kept(head.classes[0], wanted.object_threshold)
        masks = (grid.grow(head.masks[0, query]) for query in found.query.tolist())
        index, segments = post.panoptic(found, masks, is_thing, size, wanted.overlap_threshold)
        return index.numpy(), segments

    def _named(self, image: PsalmImage, classes: Sequence[Sequence[str]], task: Task) -> Head:
        """Synonyms are one name, joined by commas as in the published lists; of long lists, as published, only what is before the first.

        Raises:
            PromptError: the network has a learned classifier, which does not know a class.
        """
        if own := self.config.classes:
            numbers = [next((own.index(word) for word in words if word in own), None) for words in classes]
            if None in numbers:
                strange = classes[numbers.index(None)][0]
                raise PromptError(f"This network learned {len(own)} classes by number and knows no {strange!r}: {', '.join(own)}.")
            head = self.decode(image, self.words.prompt(task if task != "semantic" else "panoptic", classes=[*own, NOTHING]))
            assert head.classes is not None
            return replace(head, classes=head.classes[..., [*numbers, len(own)]])
        called = [",".join(words) for words in classes]
        if len(called) > SHORTENED:
            called = [name.partition(",")[0] for name in called]
        return self.decode(image, self.words.prompt(task if task != "semantic" else "panoptic", classes=[*called, NOTHING]))

    @property
    def things(self) -> tuple[str, ...]:
        """The 80 things of COCO's panoptic segmentation, or those of them that a learned classifier knows."""
        things = names("coco-panoptic133")[:THINGS]
        return things if not self.config.classes else tuple(name for name in self.config.classes if name in things)

    @property
    def stuff(self) -> tuple[str, ...]:
        """Its 53 kinds of stuff, or whatever else a learned classifier knows."""
        return tuple(name for name in self.classes if name not in names("coco-panoptic133")[:THINGS])

    @property
    def classes(self) -> tuple[str, ...]:
        """Both."""
        return self.config.classes or names("coco-panoptic133")

    # --- videos -------------------------------------------------------------------------------------------------------------------------

    def to_memory(self, image: PsalmImage, masks: Array) -> Memory:
        """What a video's first frame leaves: its objects (K, H, W)."""
        return Memory(Frame(image.tokens, masks))

    def to_tracked(self, image: PsalmImage, size: Size, memory: Memory, objects: Sequence[int] | None = None) -> tuple[Array, list[float]]:
        """The objects in a further frame of the same size: masks (K, H, W) and scores; ``memory`` takes note of them.

        ``objects``: positions, in the first frame, of those that are looked for; None: all.
        """
        grid, prompt = Grid.of(image, size), memory.prompt(objects)
        head = self._shown(image, prompt.tokens, np.stack([fit_region(mask, grid.side) for mask in prompt.masks]))
        assert head.regions is not None
        sure = torch.stack([post.certainty(grid.grow(one)) for one in head.masks[0]])
        scores = head.regions[0].sigmoid().T * sure[:, None]
        queries = chosen(scores)
        masks = np.stack([(grid.grow(head.masks[0, query]) > 0).numpy() for query in queries])
        memory.keep(Frame(image.tokens, masks))
        return masks, [float(scores[query, place]) for place, query in enumerate(queries)]


def _options(options: Options) -> PsalmOptions:
    return options if isinstance(options, PsalmOptions) else PsalmOptions()


def _on(batch: PromptBatch, device: torch.device) -> PromptBatch:
    ids, names = batch.class_ids, batch.class_index
    return PromptBatch(
        batch.ids.to(device),
        batch.labels.to(device),
        batch.attention.to(device),
        None if ids is None else ids.to(device),
        None if names is None else names.to(device),
        None if batch.sentence_ids is None else tuple(one.to(device) for one in batch.sentence_ids),
    )


def _at_hand(head: Head) -> Head:
    """float32 on the CPU."""

    def here(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", torch.float32)

    return Head(
        here(head.masks),
        None if head.classes is None else here(head.classes),
        None if head.sentence is None else here(head.sentence),
        None if head.regions is None else tuple(map(here, head.regions)),
    )

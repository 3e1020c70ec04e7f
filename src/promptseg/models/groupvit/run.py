"""The training run of GroupViT: photos and what is said of them, nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import Recipe
from ...data.captions import Captioned, CaptionShards, captioned_photos, names
from ...data.randomness import Draws, Epochs
from ...data.vocabularies import templates
from ...errors import ConfigError, DataError, PromptTruncated
from ...training.distributed import everybodys, my_part
from ...training.run import Run
from .network import Model
from .photos import centre
from .recipes import CaptionOptions
from .tagging import tagger
from .words import candidates, wordings

TEMPLATES = "imagenet80"  # wordings of the words of a caption
TRIES = 20  # photos in a row that may be damaged
AT_ONCE = 32  # validation photos
RANKS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Example:
    """``pixels`` (3, S, S) normalised; ``texts``: a caption, then the prompts made of it."""

    pixels: Tensor
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """``pixels`` (B, 3, S, S) and the texts of each, equally many."""

    pixels: Tensor
    texts: tuple[tuple[str, ...], ...]


class GroupVitRun(Run):
    """See `training.run.Run`. Every epoch has an order of its own; a photo with several captions is shown with one of them.

    A photo that cannot be decoded is left out with a warning and the next takes its place, as published.
    """

    model: Model

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = print) -> None:
        options = recipe.options
        assert isinstance(options, CaptionOptions)
        self.seed, self.options = recipe.seed, options
        root = Path(recipe.data).expanduser()
        self.photos = captioned_photos(root)
        self.learned, self.held_out = _divided(names(self.photos), options.held_out)
        if recipe.validate_every is not None and not len(self.held_out):
            raise ConfigError("validate_every: no photos are kept for validation; choose options.held_out, 5 for every fifth.")
        if not len(self.learned):
            raise DataError(f"{root}: all {len(self.photos)} photos are held out. Choose a larger options.held_out.")
        self.place = Epochs(len(self.learned), recipe.seed)
        words = tagger(options.tagger)[0] if options.config.multi_label else "none"
        log(f"data: {len(self.learned)} photos with captions in {root}, {len(self.held_out)} held out; tagger: {words}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = Model(options.config)

    def example(self, number: int) -> Example:
        epoch, index = self._place(number)
        draws = Draws(self.seed, epoch, index)
        photo, pixels = self._shown(number, draws)
        caption = draws.choice(photo.captions)
        count = self.options.config.multi_label
        words = candidates(tagger(self.options.tagger)[1](caption), self.options.word_type) if count else ()
        random = np.random.RandomState(draws.integer(2**31))
        return Example(pixels, tuple(wordings(caption, words, count, templates(TEMPLATES), random)))

    def collate(self, examples: Sequence[Example]) -> Batch:
        return Batch(torch.stack([one.pixels for one in examples]), tuple(one.texts for one in examples))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        with _long_captions_are_cut():
            found = self.model.losses(batch.pixels, batch.texts)
        if "multi_label_loss" in found:
            found["multi_label_loss"] = found["multi_label_loss"] * self.options.multi_label_weight
        return found

    def describe(self, number: int) -> str:
        epoch, index = self._place(number)
        name = self.photos.id(index) if isinstance(self.photos, CaptionShards) else self.photos[index].id
        return f"{name}, epoch {epoch}"

    def _place(self, number: int) -> tuple[int, int]:
        """Epoch, and index among all photos."""
        epoch, place = self.place(number)
        return epoch, int(self.learned[place])

    def _shown(self, number: int, draws: Draws) -> tuple[Captioned, Tensor]:
        last = ""
        for following in range(number, number + TRIES):
            try:
                photo = self.photos[self._place(following)[1]]
                pixels = photo.image()
            except DataError as error:
                last = str(error)
                warnings.warn(f"A photo is left out: {last}", stacklevel=2)
                continue
            return photo, self.options.augmentation(pixels, self.options.config.image.size, draws)
        raise DataError(f"{TRIES} photos in a row cannot be read. The last: {last}")

    # --- validation ---------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Photos held out and the first caption of each: the share whose own is among the first 1, 5 and 10, the mean of both directions,
        and the 95 % interval of each, as other photos of the kind would give it. Chance is 1, 5 and 10 among all that are held out.

        Processes divide the photos.
        """
        places = my_part(len(self.held_out))
        features = [self._features(places[first : first + AT_ONCE]) for first in range(0, len(places), AT_ONCE)]
        everybody = [one for part in everybodys(features) for one in part]
        images, texts = (torch.cat([one[side] for one in everybody]) for side in (0, 1))
        similar = images @ texts.T
        shares = {f"recall@{count}": (hits(similar, count) + hits(similar.T, count)) / 2 for count in RANKS}
        ends = {name: interval(share) for name, share in shares.items()}
        figures = {name: float(share.mean()) for name, share in shares.items()}
        return figures | {f"{name} {end}": value for name, pair in ends.items() for end, value in zip(("low", "high"), pair, strict=True)}

    def _features(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of photos, in the middle, and their captions: (n, E) each, of length 1, on the CPU."""
        photos = [self.photos[int(self.held_out[place])] for place in places]
        size = self.options.config.image.size
        pixels = torch.stack([centre(photo.image(), int(256 / 224 * size), size) for photo in photos])
        with _long_captions_are_cut():
            texts = self.model.embed_texts([photo.captions[0] for photo in photos])
        whole = self.model.encode_image(pixels.to(texts.device)).whole
        return whole.float().cpu(), F.normalize(texts.float(), dim=-1).cpu()


def hits(similar: Tensor, count: int) -> NDArray[np.float64]:
    """(N, N), every row's own in the diagonal -> (N,) 1 where it is among the ``count`` largest of its row, else 0; of equals the last."""
    rank = (similar >= similar.diagonal()[:, None]).sum(1)
    return (rank <= count).double().numpy()


def interval(shares: NDArray[np.float64], resamples: int = 2000) -> tuple[float, float]:
    """(N,) one figure per photo -> the ends of the 95 % percentile interval of their mean (bootstrap), always the same."""
    drawn = np.random.default_rng(0).integers(0, len(shares), (resamples, len(shares)))
    low, high = np.percentile(shares[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)


def _divided(keys: Sequence[str], held_out: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to learn from, and those that are kept for validation."""
    if held_out is None:
        return np.arange(len(keys)), np.arange(0)
    kept = np.array([crc32(key.encode()) % held_out == 1 for key in keys])
    return np.flatnonzero(~kept), np.flatnonzero(kept)


@contextmanager
def _long_captions_are_cut() -> Iterator[None]:
    """Without a word, as published: in captions from the web that is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptTruncated)
        yield

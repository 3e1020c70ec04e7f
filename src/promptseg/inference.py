"""Photos through a network: views, batches of equal shape, features kept for the next question, tiles one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from . import images
from .caches import BoundedCache, digest
from .contracts import Card, DenseLogits, Network, Options, PromptFeatures
from .embeddings import ImageEmbedding, join, split, tree_bytes, tree_map, tree_nan
from .errors import ConfigError, NumericalError

if TYPE_CHECKING:
    from .prompts import ImageInput

IMAGE_CACHE_BYTES = 256 * 2**20  # about 55 photos in CLIPSeg's three taps at 352 pixels

__all__ = ["Runner"]


class Runner:
    """One network on one device in one precision. Holds no state but the features of the last photos, which threads may share."""

    def __init__(self, network: Network, card: Card, device: torch.device, dtype: torch.dtype, max_pixels: int) -> None:
        self.network, self.card, self.device, self.dtype, self.max_pixels = network, card, device, dtype, max_pixels
        self.features: BoundedCache[Any] = BoundedCache(IMAGE_CACHE_BYTES, tree_bytes)

    def show(self, image: ImageInput | ImageEmbedding, options: Options | None) -> ImageEmbedding:
        """The decoded photo and its views, not yet encoded unless it came encoded.

        Raises:
            ImageError: it cannot be read.
            ConfigError: it was encoded by another model or with other options.
        """
        if not isinstance(image, ImageEmbedding):
            photo = images.load(image, max_pixels=self.max_pixels)
            views = self.network.views((photo.shape[0], photo.shape[1]), options or Options())
            return ImageEmbedding(photo, views, (), self.card.name)
        if image.model != self.card.name:
            raise ConfigError(f"The photo was encoded by {image.model!r}, which {self.card.name!r} cannot read. Encode it with this model.")
        if options is not None and self.network.views(image.size, options) != image.views:
            raise ConfigError("This photo was encoded with other options. Give them to embed_image, or give the photo itself.")
        return image

    def encode(self, shown: ImageEmbedding) -> ImageEmbedding:
        """All of its views encoded, each with a first dimension of 1."""
        if shown.features:
            return shown
        return replace(shown, features=tuple(self._features([(shown, index)])[0] for index in range(len(shown.views))))

    def wholes(self, shown: Sequence[ImageEmbedding]) -> list[Any]:
        """The features, here, of photos that are each shown in one view; those of equal input shape are encoded together.

        Raises:
            NumericalError: they hold NaN, which what is made of them might not show.
        """
        found = _by_shape(shown, lambda group: self._features([(one, 0) for one in group]))
        if any(map(tree_nan, found)):
            raise NumericalError(self._not_numbers("features"))
        return found

    def predict(self, shown: Sequence[ImageEmbedding], conditions: PromptFeatures, options: Options | None = None) -> list[Any]:
        """The merged prediction (B = 1) of each photo, float32 on the CPU; photos of equal input shape go through the network together.

        Raises:
            NumericalError: the logits hold NaN.
        """
        if not len(conditions):
            return [DenseLogits(torch.zeros(1, 0, 1, 1)) for _ in shown]
        return _by_shape(shown, lambda group: self._group(group, conditions, options or Options()))

    def _group(self, group: Sequence[ImageEmbedding], conditions: PromptFeatures, options: Options) -> list[Any]:
        """Photos with one view each, all of one shape, or a single photo in tiles."""
        first = group[0]
        if len(first.views) > 1:
            windows = _Windows(lambda index: self._decode(self._features([(first, index)])[0], conditions, options), len(first.views))
            return [self.network.merge(windows, first.views, first.size)]
        prediction = self._decode(join(self._features([(one, 0) for one in group])), conditions, options)
        parts = split(prediction, len(group))
        return [self.network.merge([part], one.views, one.size) for part, one in zip(parts, group, strict=True)]

    def _decode(self, features: Any, conditions: PromptFeatures, options: Options) -> Any:
        raw = self.network.decode(features, conditions, **options.decoding())
        prediction = tree_map(lambda tensor: tensor.to("cpu", torch.float32), raw)
        if prediction.logits.isnan().any():
            raise NumericalError(self._not_numbers("logits"))
        return prediction

    def _not_numbers(self, what: str) -> str:
        """What happened, and how to go on."""
        from .zoo import can_verify

        name = self.card.name
        further = f"`promptseg verify {name}` tells" if can_verify(name) else "get them again, or take an earlier checkpoint"
        return (
            f"{name!r} computed {what} that are not numbers, in {str(self.dtype).removeprefix('torch.')} on {self.device}. "
            f"Try precision='float32'; if that does not help, the weights may be damaged: {further}."
        )

    def _features(self, windows: Sequence[tuple[ImageEmbedding, int]]) -> list[Any]:
        """Features of views of one shape, given as (photo, number of the view); those that are not at hand are encoded in one batch."""
        keys = [self._key(shown, index) for shown, index in windows]
        found = [
            tree_map(self._here, shown.features[index]) if shown.features else key and self.features.get(key)
            for (shown, index), key in zip(windows, keys, strict=True)
        ]
        missing = [position for position, features in enumerate(found) if features is None]
        if missing:
            encoded = self.network.encode_image(torch.stack([self._pixels(*windows[position]) for position in missing]))
            for position, features in zip(missing, split(encoded, len(missing)), strict=True):
                found[position] = features
                if key := keys[position]:
                    self.features.put(key, features)
        return found

    def _key(self, shown: ImageEmbedding, index: int) -> str | None:
        """What a view's features are remembered by; None for tiles, which would only push everything else out."""
        return digest(shown.photo, repr(shown.views[index])) if len(shown.views) == 1 and not shown.features else None

    def _pixels(self, shown: ImageEmbedding, index: int) -> torch.Tensor:
        view = shown.views[index]
        pixels = images.to_pixels(shown.photo, view, self.card.preprocess)
        prepare = getattr(self.network, "prepare", None)
        return self._here(pixels if prepare is None else prepare(pixels, view))

    def _here(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)


def _by_shape(shown: Sequence[ImageEmbedding], work: Callable[[list[ImageEmbedding]], list[Any]]) -> list[Any]:
    """What ``work`` makes of each photo; it is given those of one view and of equal input shape together, any other by itself."""
    groups: dict[object, list[int]] = {}
    for index, one in enumerate(shown):
        groups.setdefault(one.views[0].shape if len(one.views) == 1 else index, []).append(index)
    done: dict[int, Any] = {}
    for indices in groups.values():
        done.update(zip(indices, work([shown[index] for index in indices]), strict=True))
    return [done[index] for index in range(len(shown))]


class _Windows(Sequence[Any]):
    """Predictions of a photo's tiles, each computed when `merge` comes to it, so that only the last one is held."""

    def __init__(self, predict: Callable[[int], Any], count: int) -> None:
        self._predict, self._count = predict, count
        self._last: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        if self._last is None or self._last[0] != index:
            self._last = index, self._predict(index)
        return self._last[1]

"""The two reusable halves of an answer, an encoded photo and encoded prompts, and how they are made once and kept.

Families have feature objects of their own: dataclasses, tuples or dictionaries of tensors whose first dimension is the image. The small
functions at the end walk through any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batching import in_batches
from .caches import BoundedCache, digest
from .contracts import PromptFeatures, View
from .notices import Notice, held_back, tell
from .prompt_store import PromptStore
from .prompts import Blend, Exemplar, Prompt, Text

PROMPT_CACHE_BYTES = 32 * 2**20  # about 16,000 conditions of CLIP's 512 float32 numbers
_AT_ONCE = 32  # prompts encoded in one pass; bounds the memory that a thousand take

__all__ = ["ImageEmbedding", "PromptEmbedding", "PromptEncoder", "join", "split", "tree_bytes", "tree_map", "tree_nan"]


@dataclass(frozen=True, slots=True, eq=False)
class ImageEmbedding:
    """An encoded photo; a `Segmenter` of the same model takes it wherever it takes a photo, and answers without encoding again.

    ``photo`` uint8 (H, W, 3), upright RGB. ``features``: one family-specific object per view, each for one image.
    """

    photo: np.ndarray
    views: tuple[View, ...]
    features: tuple[Any, ...]
    model: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the upright photo, in pixels."""
        return self.photo.shape[0], self.photo.shape[1]

    def __repr__(self) -> str:
        return f"ImageEmbedding({self.size[1]} x {self.size[0]} pixels, {self.model!r})"


@dataclass(frozen=True, slots=True, eq=False)
class PromptEmbedding:
    """Encoded prompts; a `Segmenter` of the same model takes them wherever it takes prompts, for any number of photos."""

    features: PromptFeatures
    model: str

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts, in order."""
        return self.features.prompts

    def mix(self, *weights: Sequence[float]) -> PromptEmbedding:
        """New prompts between, or beyond, these: each argument holds one weight per prompt and gives one; see `PromptFeatures.mix`.

        Raises:
            PromptError: an argument has another number of weights than there are prompts.
        """
        return replace(self, features=self.features.mix(*weights))

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return f"PromptEmbedding({len(self)} encoded, {self.model!r})"


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt's ``condition`` (D,) and what there is to say about it each time that it is used, such as which of its words are lost."""

    condition: Tensor
    notices: tuple[Notice, ...] = ()


class PromptEncoder:
    """Decoded prompts -> their conditions, each distinct one encoded once and remembered by its content, with what was told about it."""

    def __init__(
        self,
        encode: Callable[[Sequence[Prompt]], PromptFeatures],
        limit: int = PROMPT_CACHE_BYTES,
        store: PromptStore | None = None,
    ) -> None:
        """``store``: where conditions of long lists of texts outlive the process."""
        self._encode, self._store = encode, store
        self.cache: BoundedCache[EncodedPrompt] = BoundedCache(limit, tree_bytes)

    def __call__(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """At least one prompt, exemplars decoded; rows in prompt order."""
        keys = [prompt_key(prompt) for prompt in prompts]
        rows = {key: self.cache.get(key) for key in keys}
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if rows[key] is None}
        for key, row in zip(missing, self._encoded(missing), strict=True):
            self.cache.put(key, row)
            rows[key] = row
        found = {key: row for key, row in rows.items() if row is not None}
        for row in found.values():
            for notice in row.notices:
                tell(*notice)
        return PromptFeatures(tuple(prompts), torch.stack([found[key].condition for key in keys]))

    def _encoded(self, missing: dict[str, Prompt]) -> list[EncodedPrompt]:
        """Prompts that are not at hand, by their keys, from the store or computed."""
        store = self._store if all(isinstance(prompt, Text) for prompt in missing.values()) else None
        kept = None if store is None else store.get(tuple(missing))
        if kept is not None:
            return [EncodedPrompt(row, notices) for row, notices in zip(kept[0].clone().unbind(), kept[1], strict=True)]
        rows = in_batches(self._rows, list(missing.values()), _AT_ONCE, "prompts")
        if store is not None:
            store.put(tuple(missing), [row.condition for row in rows], [row.notices for row in rows])
        return rows

    def _rows(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        with held_back() as notices:
            conditions = [row.clone() for row in self._encode(prompts).condition]  # clones: a view would keep the whole batch alive
        if notices and len(prompts) > 1:  # each by itself tells which of them it was
            return [EncodedPrompt(row, self._rows([prompt])[0].notices) for row, prompt in zip(conditions, prompts, strict=True)]
        return [EncodedPrompt(row, tuple(notices)) for row in conditions]


def prompt_key(prompt: Prompt) -> str:
    """A digest of what the prompt says or shows; exemplars must be decoded to arrays."""
    if isinstance(prompt, Text):
        return digest("text", prompt.text, *prompt.templates)
    if isinstance(prompt, Exemplar):
        arrays = [part for part in (prompt.image, prompt.mask) if isinstance(part, np.ndarray)]
        return digest("exemplar", str(prompt.technique), *arrays)
    if isinstance(prompt, Blend):
        assert isinstance(prompt.text, Text)
        return digest("blend", prompt_key(prompt.text), prompt_key(prompt.exemplar), str(prompt.alpha))
    return digest(repr(prompt))  # the rest are values made of numbers and names


# --- walking through a family's feature object ------------------------------------------------------------------------------------------


def tree_map(change: Callable[..., Tensor], *trees: Any) -> Any:
    """``change`` applied to corresponding tensors of equally built objects; whatever else they hold is taken from the first."""
    first = trees[0]
    if isinstance(first, Tensor):
        return change(*trees)
    if isinstance(first, dict):
        return {key: tree_map(change, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(tree_map(change, *parts) for parts in zip(*trees, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first)]
        return replace(first, **{name: tree_map(change, *(getattr(tree, name) for tree in trees)) for name in names})
    return first


def tree_bytes(tree: Any) -> int:
    """Bytes that the tensors of a feature object take."""
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    tree_map(count, tree)
    return total


def tree_nan(tree: Any) -> bool:
    """Whether a tensor of a feature object holds NaN."""
    found = False

    def look(tensor: Tensor) -> Tensor:
        nonlocal found
        found = found or bool(tensor.isnan().any())
        return tensor

    tree_map(look, tree)
    return found


def split(features: Any, count: int) -> list[Any]:
    """A batch of ``count`` images -> one feature object per image, each with a first dimension of 1 and memory of its own."""
    if count == 1:
        return [features]
    return [tree_map(partial(_one, i), features) for i in range(count)]


def _one(index: int, tensor: Tensor) -> Tensor:
    return tensor[index : index + 1].clone()


def join(features: Sequence[Any]) -> Any:
    """The inverse of `split`."""
    if len(features) == 1:
        return features[0]
    return tree_map(lambda *tensors: torch.cat(tensors), *features)

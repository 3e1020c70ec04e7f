"""What is remembered, by which name, and how feature objects are taken apart and put together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from promptseg.caches import BoundedCache, digest
from promptseg.contracts import PromptFeatures
from promptseg.embeddings import PromptEncoder, join, prompt_key, split, tree_bytes, tree_map
from promptseg.errors import PromptTruncated
from promptseg.prompt_store import PromptStore
from promptseg.prompts import Blend, Exemplar, Points, Prompt, Text
from promptseg.tokenizers import clip


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12))))
def test_the_cache_never_exceeds_its_limit_and_keeps_the_latest(puts: list[tuple[str, int]]) -> None:
    cache: BoundedCache[int] = BoundedCache(20, lambda value: value)
    for key, value in puts:
        cache.put(key, value)
        assert cache.get(key) == value
        assert cache.used <= 20
        assert cache.used == sum(held for name in "abcdef" if (held := cache._values.get(name, (0, 0))[1]))
    cache.clear()
    assert (len(cache), cache.used) == (0, 0)


def test_what_was_used_last_stays_and_what_is_too_large_is_not_kept() -> None:
    cache: BoundedCache[int] = BoundedCache(3, lambda _: 1)
    for key in "abc":
        cache.put(key, 0)
    cache.get("a")
    cache.put("d", 0)
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    tight: BoundedCache[int] = BoundedCache(3, lambda value: value)
    tight.put("a", 2)
    tight.put("a", 9)
    assert (tight.get("a"), tight.used) == (None, 0)


def test_digests_tell_content_shape_and_type_apart() -> None:
    array = np.arange(12, dtype=np.uint8)
    contents: list[tuple[Any, ...]] = [
        ("a",),
        ("b",),
        ("a", "b"),
        ("ab",),
        (array,),
        (array.reshape(3, 4),),
        (array.reshape(4, 3),),
        (array.astype(np.int16),),
        (array[:0],),
        (array[:0].reshape(0, 3),),
        (array, array),
        ("lone surrogate \ud800",),
    ]
    assert len({digest(*content) for content in contents}) == len(contents)
    assert digest(np.asfortranarray(array.reshape(3, 4))) == digest(array.reshape(3, 4))


def test_prompts_are_recognised_by_what_they_say_and_show() -> None:
    image, mask = np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=bool)
    prompts = [
        Text("a"),
        Text("b"),
        Text("a", ("a {}",)),
        Exemplar(image, mask=mask),
        Exemplar(image, mask=~mask),
        Exemplar(image + 1, mask=mask),
        Exemplar(image, mask=mask, technique="blur"),
        Blend("a", Exemplar(image, mask=mask)),
        Blend("a", Exemplar(image, mask=mask), 0.6),
        Blend("b", Exemplar(image, mask=mask)),
        Points(((1, 2),)),
        Points(((2, 1),)),
    ]
    assert len({prompt_key(prompt) for prompt in prompts}) == len(prompts)
    assert prompt_key(Blend("a", Exemplar(image.copy(), mask=mask.copy()))) == prompt_key(prompts[7])


LONG = Text("dog " * 80 + "cat")


def encode(prompts: Sequence[Prompt]) -> PromptFeatures:
    """Each prompt's number of ids, as it is read."""
    rows = [len(clip()(prompt.text)[0]) for prompt in prompts if isinstance(prompt, Text)]
    return PromptFeatures(tuple(prompts), torch.tensor(rows, dtype=torch.float32)[:, None])


def test_what_is_cut_is_said_each_time_and_of_that_phrase_alone() -> None:
    encoder = PromptEncoder(encode)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")  # of equal warnings a line shows the first one
        encoder([Text("a"), LONG, Text("two words"), LONG])
        encoder([LONG])
    assert [(warning.category, warning.filename) for warning in told] == [(PromptTruncated, __file__)] * 2
    assert "these words are lost: 'dog dog dog dog dog cat'" in str(told[1].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoder([Text("two words"), Text("a")]).condition[:, 0].tolist() == [4, 3]


def test_what_was_cut_is_known_to_another_process(tmp_path: Path) -> None:
    prompts = [*(Text(str(number)) for number in range(16)), LONG]
    weights = torch.nn.Linear(1, 1)
    for work in (encode, lambda _: pytest.fail("encoded again")):
        with pytest.warns(PromptTruncated, match="lost: 'dog") as told:
            found = PromptEncoder(work, store=PromptStore(tmp_path, weights))(prompts)
        assert len(told) == 1
        assert found.condition[-1] == 77


@dataclass(frozen=True)
class Features:
    """As a family might have them."""

    maps: list[torch.Tensor]
    named: dict[str, torch.Tensor]
    grid: tuple[int, int]
    extra: torch.Tensor | None = None


def features(count: int) -> Features:
    return Features([torch.rand(count, 2, 3), torch.rand(count, 1)], {"pooled": torch.rand(count, 4)}, (2, 3))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_split_and_join_are_inverse(count: int) -> None:
    whole = features(count)
    parts = split(whole, count)
    again = join(parts)
    assert [len(part.maps[0]) for part in parts] == [1] * count
    assert again.grid == (2, 3)
    assert again.extra is None
    for one, other in zip((*whole.maps, whole.named["pooled"]), (*again.maps, again.named["pooled"]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_part_does_not_keep_the_batch_alive() -> None:
    part = split(features(4), 4)[0]
    assert part.maps[0].untyped_storage().nbytes() == part.maps[0].nbytes
    assert tree_bytes(part) == 4 * (6 + 1 + 4)


def test_tree_map_keeps_the_form() -> None:
    doubled = tree_map(lambda tensor: tensor * 2, (torch.ones(1), {"a": [torch.ones(2), "name"]}, None))
    assert doubled[1]["a"][1] == "name"
    assert doubled[2] is None
    assert float(doubled[0]) == 2

"""Semantic maps: the classes compete, synonyms do not, and the background wins nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from promptseg import zoo
from promptseg.data import vocabularies
from promptseg.errors import ConfigError, PromptError
from promptseg.prompts import Classes
from promptseg.segmenter import Segmenter
from promptseg.semantics import Contest
from toy_family import CARD, Model, photo, segmenter

CENTRES = (slice(20, 21), [5, 30, 55])  # of the red, green and blue thirds


def labels(*arguments: Any, **options: Any) -> list[int]:
    return [int(value) for value in segmenter().semantic(photo(), *arguments, **options).labels[CENTRES][0]]


def test_every_pixel_has_the_most_probable_class() -> None:
    found = segmenter().semantic(photo(), ["blue", "red", "green"])
    assert found.labels.shape == (40, 60)
    assert found.classes == ("blue", "red", "green")
    assert [int(value) for value in found.labels[CENTRES][0]] == [1, 2, 0]
    assert found.scores.shape == (3,)
    assert (found.scores > 0.5).all()


def test_synonyms_are_one_class() -> None:
    assert labels([["sea", "blue"], ("red", "green")]) == [1, 1, 0]
    assert segmenter().semantic(photo(), [["sea", "blue"], "red"]).classes == ("sea", "red")


@pytest.mark.parametrize(
    ("background", "expected"),
    [(None, [0, 1, 0]), (0.5, [0, 1, -1]), ("blue", [0, 1, -1]), (["green", "blue"], [0, -1, -1]), ("red", [-1, 1, -1])],
)
def test_background(background: Any, expected: list[int]) -> None:
    assert labels(["red", "green"], background=background) == expected  # blue is as far from red as from green: the earlier one wins


@pytest.mark.parametrize(
    ("rule", "asked", "expected"),
    [(0.5, None, [0, 1, -1]), ("blue", None, [0, 1, -1]), (0.5, 0, [0, 1, 0]), (0.5, "red", [-1, 1, -1]), (None, None, [0, 1, 0])],
)
def test_the_card_says_what_is_nothing_unless_the_user_does(rule: Any, asked: Any, expected: list[int]) -> None:
    ask = Segmenter(Model(CARD.config), replace(CARD, background=rule), device="cpu", precision="float32")
    found = ask.semantic(photo(), ["red", "green"], background=asked)
    assert [int(value) for value in found.labels[CENTRES][0]] == expected


def test_pocket_labels_nothing_where_no_mask_is_and_clipseg_everything() -> None:
    cards = {card.name: card for card in zoo.cards()}
    assert cards["pocket"].background == cards["pocket"].threshold
    assert {card.background for card in cards.values() if card.family == "clipseg"} == {None}  # as its authors evaluate it


def test_no_classes_and_the_prompt_type() -> None:
    nothing = segmenter().semantic(photo(), [])
    assert nothing.classes == ()
    assert (nothing.labels == -1).all()
    assert labels(Classes(("red", ("green", "blue")))) == [0, 1, 1]


def test_lists_and_embeddings() -> None:
    ask = segmenter()
    together = ask.semantic([photo(), photo(20, 20)], ["red", "green", "blue"])
    assert [one.size for one in together] == [(40, 60), (20, 20)]
    embedded = ask.semantic(ask.embed_image(photo()), ["red", "green", "blue"])
    np.testing.assert_array_equal(embedded.labels, together[0].labels)
    assert ask.model.encodings["image"] == 2


@pytest.mark.parametrize(
    ("classes", "background", "error"),
    [
        (None, None, PromptError),
        ("red", None, PromptError),
        ([""], None, PromptError),
        (5, None, PromptError),
        ([5], None, PromptError),
        ([["red", 5]], None, PromptError),
        (["red"], [None], PromptError),
        (["red"], 3, ConfigError),
        (["red"], float("nan"), ConfigError),
    ],
)
def test_impossible_questions(classes: Any, background: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        segmenter().semantic(photo(), classes, background=background)


# --- names that come twice ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [["red", "blue", "red"], ["red", ["red", "crimson"]], [["sky", "blue"], "green", ["sky", "white"]]])
def test_a_class_named_twice(classes: list[str | list[str]]) -> None:
    with pytest.raises(PromptError, match=r"twice: '(red|sky)'"):
        segmenter().semantic(photo(), classes)


def test_background_named_twice() -> None:
    with pytest.raises(PromptError, match="twice: 'white'"):
        segmenter().semantic(photo(), ["red"], background=["white", "white"])


def test_a_synonym_of_two_classes_is_no_mistake() -> None:
    contest = Contest.between([["seat", "chair"], ["bench", "seat"]], None)
    assert contest.classes == ["seat", "bench"]


def test_first_synonyms_of_a_published_list_may_repeat() -> None:
    """ADE20K full: three kinds of bag. A list of one's own that holds a part of it may not."""
    firsts = [words[0] for words in vocabularies.synonyms("ade847")]
    assert Contest.between(firsts, None).classes == firsts
    assert Contest.between(vocabularies.synonyms("ade847"), None).classes == firsts
    assert Contest.between([*firsts, "a unicorn"], None).classes == [*firsts, "a unicorn"]
    with pytest.raises(PromptError, match=r"'bag', .* and 4 more\. "):
        Contest.between(firsts[:-1], None)
    with pytest.raises(PromptError, match="'bag'"):
        Contest.between([*firsts, "bag"], None)

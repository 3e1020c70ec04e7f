"""What can be said: the prompt types check themselves and keep what they were given."""

from __future__ import annotations

import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.errors import PromptError
from promptseg.prompts import Blend, Box, Classes, Exemplar, MaskPrompt, Points, Prompt, Scribble, Text, as_prompts, describe

PHOTO = np.zeros((4, 6, 3), np.uint8)
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)
numbers = st.floats(-1e6, 1e6)
points = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)
texts = st.builds(Text, words, st.lists(words.map(lambda word: word.replace("{", "").replace("}", "") + "{}"), max_size=2))
plain = st.one_of(texts, st.builds(Points, points), st.builds(Scribble, points), st.builds(Classes, st.lists(words, max_size=3)))


@given(st.lists(st.one_of(words, plain), max_size=5))
def test_lists_keep_their_order_and_length(prompts: list[str | Prompt]) -> None:
    found = as_prompts(prompts)
    assert len(found) == len(prompts)
    assert found == tuple(Text(one) if isinstance(one, str) else one for one in prompts)
    assert as_prompts(found) == found
    assert [as_prompts(one)[0] for one in prompts] == list(found)


@given(plain)
def test_prompts_are_values(prompt: Any) -> None:
    assert pickle.loads(pickle.dumps(prompt)) == prompt
    assert hash(prompt) == hash(pickle.loads(pickle.dumps(prompt)))
    assert isinstance(describe(prompt), str)
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        prompt.text = "another"


@given(points, st.data())
def test_points_and_their_labels(xy: list[tuple[float, float]], data: st.DataObject) -> None:
    assert Points(xy).labels == (1,) * len(xy)  # type: ignore[arg-type]
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(xy), max_size=len(xy)))
    assert Points(np.array(xy), np.array(labels)) == Points(tuple(xy), tuple(labels))  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="one label"):
        Points(tuple(xy), (*labels, 1))


@given(numbers, numbers, numbers, numbers)
def test_boxes_have_an_inside(x0: float, y0: float, x1: float, y1: float) -> None:
    if x0 < x1 and y0 < y1:
        assert Box(x0, y0, x1, y1) == Box(x0, y0, x1, y1)
        Exemplar(box=(x0, y0, x1, y1))
    else:
        for make in (lambda: Box(x0, y0, x1, y1), lambda: Exemplar(box=(x0, y0, x1, y1))):
            with pytest.raises(PromptError, match="x1 > x0"):
                make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Text(""), "empty"),
        (lambda: Text("a\0dog"), "zero character"),
        (lambda: Text(" \n"), "empty"),
        (lambda: Text(7), "not int"),
        (lambda: Text("caf\udce9"), "no text"),
        (lambda: Text("a dog", ("a photo",)), "exactly one"),
        (lambda: Exemplar(), "needs a photo"),
        (lambda: Exemplar(PHOTO, np.ones((4, 6)), (0, 0, 1, 1)), "not both"),
        (lambda: Exemplar(PHOTO, box=(0, 0, 1)), r"\(x0, y0, x1, y1\).*four numbers"),
        (lambda: Blend("a dog", Exemplar(PHOTO), 1.5), "0..1, not 1.5; 1 is the text alone"),
        (lambda: Blend("a dog", Exemplar(PHOTO), math.nan), "0..1"),
        (lambda: Blend(Exemplar(PHOTO), "a dog"), "in this order"),
        (lambda: Points(()), "at least one"),
        (lambda: Points((1, 2)), "pairs"),
        (lambda: Points(((1, math.inf),)), "finite"),
        (lambda: Points(((1, 2),), (2,)), "0 or 1"),
        (lambda: Scribble("line"), "pairs"),
        (lambda: Box(0, 0, math.nan, 1), "empty; give its left top corner first"),
        (lambda: Classes("sky"), "single string"),
        (lambda: Classes([()]), "at least one name"),
        (lambda: Classes(["sky", ["road", ""]]), "empty"),
        (lambda: as_prompts(None), "not NoneType"),
        (lambda: as_prompts(b"a dog"), "not bytes"),
        (lambda: as_prompts(["a dog", 3]), "Prompt 1 is a int"),
    ],
)
def test_what_makes_no_prompt_is_said(make: Any, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        make()


def test_names_for_people() -> None:
    shown = Exemplar("photos/cup.jpg", box=(0, 0, 2, 2))
    names = {
        "a dog": Text("a dog"),
        "exemplar cup.jpg": shown,
        "exemplar": Exemplar(PHOTO),
        "a cup + exemplar": Blend("a cup", shown, 0.2),
        "points": Points(((1, 1),)),
        "box": Box(0, 0, 1, 1),
        "scribble": Scribble(((1, 1),)),
        "mask": MaskPrompt(np.ones((4, 6))),
        "sky, road": Classes(["sky", ("road", "street")]),  # type: ignore[arg-type]
    }
    assert [describe(prompt) for prompt in names.values()] == list(names)

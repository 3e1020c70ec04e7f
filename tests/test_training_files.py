"""Recipes from files and words: what is written is what is trained, and what is misspelt is named with its line."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.contracts import Recipe
from promptseg.errors import ConfigError, PromptSegError
from promptseg.training import recipe
from promptseg.training.files import changed, parse, read, with_words
from promptseg.training.schedules import Constant, Poly, Warmup

GOOD = """\
base: pocket
output: runs/mine
lr: 5e-4
schedule: {kind: poly, power: 2}
options:
  size: 320
  shares: {coco: 1.0}
  config: {variant: lite0}
groups:
  - {pattern: "tower.*", frozen: true}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def test_a_file_changes_what_it_names_and_nothing_else(file: Path) -> None:
    file.write_text(GOOD, encoding="utf-8")
    mine, base = read(file), recipe("pocket")
    assert (mine.name, mine.output, mine.lr, mine.schedule) == ("mine", "runs/mine", 5e-4, Poly(power=2))
    assert (mine.options.size, mine.options.config.variant) == (320, "lite0")
    assert mine.options.shares == {**base.options.shares, "coco": 1.0}
    assert [group.frozen for group in mine.groups] == [True]
    same = {field.name for field in fields(Recipe)} - {"name", "output", "lr", "schedule", "options", "groups"}
    assert all(getattr(mine, name) == getattr(base, name) for name in same)
    assert mine.options.prompts == base.options.prompts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: pocket\nstepps: 3", r"mine.yaml, line 2: there is no setting 'stepps'.*'steps'"),
        ("base: pocket\noptions:\n  size: 3\n  prompt: 4", r"line 4: there is no setting 'prompt'.*'prompts'"),
        ("base: pocket\nsteps: many", r"line 2: steps must be of type int, not 'many'"),
        ("base: pocket\nsteps: 2.5", r"line 2: steps must be of type int"),
        ("base: pocket\nlr: fast", r"line 2: lr must be a number"),
        ("base: pocket\ncompile: 1", r"line 2: compile must be of type bool"),
        ("base: pocket\nprecision: bf16", r"line 2: precision must be 'float32' or"),
        ("base: pocket\nschedule: {kind: cosin}", r"line 2: .*cosin.*'cosine'"),
        ("base: pocket\nschedule: cosine", r"line 2: schedule is a table"),
        ("base: pocket\nsteps: 0", r"line 2: steps is at least 1"),
        ("base: poket", r"line 1: There is no recipe 'poket'.*'pocket'"),
        ("base: pocket\nlr: 1\nlr: 2", r"line 3: 'lr' is set twice"),
        ("lr: 1", "names no base"),
        ("- a\n- b", "must be a table"),
        ("", "must be a table"),
        ("base: [pocket", "line 1.*not YAML|line 2.*not YAML"),
        ("base: pocket\nlr: !!python/object/apply:os.system [ls]", "line 2"),
    ],
)
def test_mistakes_are_named_with_their_line(file: Path, text: str, message: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read(file)


def test_a_file_that_is_not_there_or_no_text(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(file)


def test_words_change_a_recipe() -> None:
    changed_ = with_words(
        recipe("pocket"), ["lr=5e-4", "options.size=320", "schedule={kind: constant}", "clip=null", "options.losses.dice=2", "steps=7"]
    )
    assert (changed_.lr, changed_.options.size, changed_.schedule, changed_.clip, changed_.steps) == (5e-4, 320, Constant(), None, 7)
    assert changed_.options.losses == {**recipe("pocket").options.losses, "dice": 2.0}, "one entry of a table changes alone"


def test_part_of_a_schedule() -> None:
    mine = with_words(recipe("pocket"), ["schedule.steps=5"])
    assert isinstance(mine.schedule, Warmup)
    assert mine.schedule.steps == 5
    assert mine.schedule.main == recipe("pocket").schedule.main


@pytest.mark.parametrize(
    ("word", "message"),
    [("lr", "key=value"), ("=3", "key=value"), ("rl=3", "'rl=3': there is no setting 'rl'"), ("lr=x", "'lr=x': lr must be a number"),
     ("lr.x=3", "lr"), ("options=3", "options is a table of settings"), ("lr=[", "not YAML")],
)  # fmt: skip
def test_words_that_change_nothing(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        with_words(recipe("pocket"), [word])


@pytest.mark.parametrize(
    "word",
    [
        *(f"{name}=0" for name in ("steps", "batch_size", "accumulate", "keep", "validate_every", "pictures_every", "epsilon", "clip")),
        *(f"{name}=-1" for name in ("workers", "save_every_s", "lr", "weight_decay", "ema", "seed")),
        *(f"{name}=.nan" for name in ("lr", "weight_decay", "clip", "epsilon", "ema", "save_every_s")),
        "lr=.inf", "ema=1", "betas=[2, 3]", "betas=[0.9, 1]", "seed=9223372036854775808",
    ],
)  # fmt: skip
def test_impossible_values(word: str) -> None:
    name = word.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^'{re.escape(word)}': {name} is .*, not "):
        with_words(recipe("pocket"), [word])


@pytest.mark.parametrize("setting", ["lr: -1", "weight_decay: -1"])
def test_impossible_values_of_groups(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"at least 0 and finite, not -1"):
        with_words(recipe("pocket"), [f"groups=[{{pattern: '*', {setting}}}]"])


def test_the_best_of_no_validation() -> None:
    with pytest.raises(ConfigError, match=r"'best=mIoU': best: 'mIoU' is a figure of the validation.*validate_every"):
        with_words(recipe("pocket"), ["best=mIoU"])
    assert with_words(recipe("pocket"), ["validate_every=5", "best=mIoU"]).best == "mIoU"


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_an_error_of_ours(text: str) -> None:
    try:
        entry = parse(text, "file")
        changed(recipe("pocket"), entry.value if isinstance(entry.value, dict) else {})
    except PromptSegError:
        pass

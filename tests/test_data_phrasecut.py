"""PhraseCut and PhraseCut+: what an item holds, what it depends on, what is kept out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import replicas
from promptseg.data.crops import find_crop
from promptseg.data.filling import _contains, fill_polygons
from promptseg.data.phrasecut import Phrase, PhraseCut, phrase_cut_plus, phrasecut, phrases
from promptseg.data.randomness import Draws, shuffled
from promptseg.data.removal import REMOVALS, removal
from promptseg.errors import ConfigError, DataError


@pytest.fixture
def found(tmp_path: Path) -> list[Phrase]:
    return phrases(replicas.phrasecut(tmp_path), "train")


def test_reader(tmp_path: Path) -> None:
    photos = phrasecut(replicas.phrasecut(tmp_path), "train")
    assert [sample.id for sample in photos] == ["1", "2", "3"]  # the one of wrong size is left out
    assert photos.classes == ("blue chairs", "red box", "sitting man", "wine bottle")
    masks, unknown = photos[0].masks()
    assert masks["red box"].sum() == 20 * 20
    assert masks["red box"][4:24, 4:24].all()
    assert not unknown.any()
    assert len(phrasecut(tmp_path, "val")) == 1


def test_an_item_is_a_function_of_seed_epoch_and_index(found: list[Phrase]) -> None:
    first, again = (phrase_cut_plus(found, image_size=24, seed=3) for _ in range(2))
    again[2]  # whatever was asked before
    for index in range(len(first)):
        a, b = first[index], again[index]
        assert (a.id, a.phrase, a.prompt, a.text_weight, a.negative) == (b.id, b.phrase, b.prompt, b.text_weight, b.negative)
        torch.testing.assert_close(a.image, b.image, rtol=0, atol=0)
    weights = [first[0].text_weight]
    first.epoch = 1
    assert [first[0].text_weight] != weights or first[0].phrase != again[0].phrase or not torch.equal(first[0].image, again[0].image)


def test_examples_negatives_and_weights(found: list[Phrase]) -> None:
    plus = phrase_cut_plus(found, image_size=24, negatives=0.5, templates=("a photo of a {}.", "{}."))
    items = []
    for plus.epoch in range(20):
        items += list(plus)
    negative = [item for item in items if item.negative]
    assert 0.35 < len(negative) / len(items) < 0.65
    assert all(not item.target.any() for item in negative)
    assert all(item.target.shape == (1, 24, 24) and item.target.any() for item in items if not item.negative)
    assert all((item.support is not None) == (item.phrase == "red box") for item in items)  # all others are unique
    assert all(item.text_weight == 1 for item in items if item.support is None)
    weights = [item.text_weight for item in items if item.support is not None]
    assert min(weights) < 0.2 < 0.8 < max(weights)
    assert {item.prompt for item in items if item.phrase == "wine bottle"} == {"a photo of a wine bottle.", "wine bottle."}


def test_crops_keep_the_thing(found: list[Phrase]) -> None:
    for item in PhraseCut(found, image_size=40, removed="zs-4"):  # without the tiny bottle
        assert item.target.mean() > 0.05


def test_what_is_kept_out(found: list[Phrase]) -> None:
    def left(name: str) -> set[str]:
        return {phrase.phrase for phrase in PhraseCut(found, removed=name).phrases}

    assert left("pas5i-0") == {"red box", "sitting man", "blue chairs"}
    assert left("pas5i-1") == {"red box", "sitting man", "wine bottle"}  # the plural goes too
    assert left("pas5i-2") == {"red box", "blue chairs", "wine bottle"}
    assert left("aff") == {"red box", "blue chairs", "wine bottle"}
    assert len(PhraseCut(found, with_support=True, only_supported=True)) == 3
    assert len(PhraseCut(found, min_size=0.05)) == 5


@pytest.mark.parametrize(
    ("phrase", "gone"), [("two women", True), ("womens shoes", True), ("work men", False), ("Man", False), ("dining tables", True)]
)
def test_words_are_lemmatised_as_wordnet_does(phrase: str, gone: bool) -> None:
    assert removal("pas5i-2").drops(phrase) is gone


def test_every_published_word_is_removed() -> None:
    table = json.loads((Path(__file__).parent / "golden" / "clipseg" / "component_removed_lemmas.json").read_text(encoding="utf-8"))
    for name, words in table["sets"].items():
        drops = removal(name.replace("_", "-")).drops
        spared = {word for word in (*words["single"], *words["multi"]) if not drops(word)}
        assert spared <= {"puss"}  # the lemmatiser makes it "pus", which is no cat


def test_every_removal_grows_with_its_number() -> None:
    assert all(removal(name).words for name in REMOVALS)
    sizes = [len(removal(f"zs-{pairs}").words) for pairs in range(1, 6)]
    assert sizes == sorted(set(sizes))


def test_mistakes_are_named(found: list[Phrase], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of pas5i-0"):
        PhraseCut(found, removed="pas5i-4")
    with pytest.raises(ConfigError, match="with_support=True"):
        PhraseCut(found, only_supported=True)
    with pytest.raises(ConfigError, match="No phrase is left"):
        PhraseCut(found, min_size=0.99)
    with pytest.raises(DataError, match="train, val, test, miniv"):
        phrases(tmp_path, "training")
    with pytest.raises(DataError, match=r"refer_test.json cannot be read"):
        phrases(tmp_path, "test")
    replicas.write_json(tmp_path / "refer_test.json", [{"image_id": 1, "phrase": "x"}])
    with pytest.raises(DataError, match="VGPhraseCut v0"):
        phrases(tmp_path, "test")
    replicas.photo(tmp_path / "images" / "1.jpg", (10, 10))
    with pytest.raises(DataError, match=r"1.jpg is 10x10, its annotations are for 48x40"):
        PhraseCut(found, shuffle=False)[0]
    (tmp_path / "images" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1.jpg cannot be read as a photo"):
        PhraseCut(found, shuffle=False)[0]


def test_photos_are_shuffled_once_and_phrases_stay_together(found: list[Phrase]) -> None:
    orders = {tuple(phrase.image for phrase in PhraseCut(found, seed=seed).phrases) for seed in range(8)}
    assert len(orders) > 2
    assert all(order[::2] == order[1::2] for order in orders)
    assert shuffled(range(10), 1) == shuffled(range(10), 1) != shuffled(range(10), 2)


@given(st.lists(st.tuples(st.integers(-8, 40), st.integers(-8, 40)), min_size=1, max_size=8), st.booleans())
def test_polygons_are_filled_as_point_by_point(points: list[tuple[int, int]], halves: bool) -> None:
    polygon = np.array(points, dtype=np.float64) / (2 if halves else 1)
    row, column = (axis.ravel() for axis in np.mgrid[0:12, 0:16])
    wanted = _contains(polygon, column, row).reshape(12, 16)
    np.testing.assert_array_equal(fill_polygons([polygon], (12, 16)), wanted)


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([None, 0.05, 0.5]), st.sampled_from([None, 3]))
def test_crops_count_their_pixels(seed: int, side: int, share: float | None, best_of: int | None) -> None:
    mask = np.random.default_rng(seed).random((12, 20)) > 0.8
    crop = find_crop(mask, (side, side), Draws(seed), iterations=20, min_frac=share, best_of=best_of)
    assert crop.pixels == mask[crop.rows, crop.columns].sum()
    assert mask[crop.rows, crop.columns].shape == (side, side)
    assert crop.poor == (crop.pixels <= (share or 0) * mask.size)

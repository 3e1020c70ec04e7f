"""CLIP's tokenization: the ids of the reference, truncation that never goes unnoticed, threads."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.errors import PromptError, PromptTruncated
from promptseg.tokenizers import ClipTokenizer, clip

REFERENCE = json.loads((Path(__file__).parent / "golden" / "clip" / "tokenizer.json").read_text(encoding="utf-8"))
VALUES: dict[str, list[Any]] = {name: entry["value"] for name, entry in REFERENCE["values"].items()}
TEXTS: list[str] = REFERENCE["args"]["texts"]
LONG_TEXTS: list[str] = REFERENCE["args"]["long_texts"]


def test_reference_phrases_have_the_reference_ids() -> None:
    tokenizer = clip()
    assert [tokenizer.clean(text) for text in TEXTS] == VALUES["cleaned"]
    assert [tokenizer.encode(text) for text in TEXTS] == VALUES["ids"]
    assert [tokenizer.decode(ids) for ids in VALUES["ids"]] == VALUES["decoded"]


def test_rows_are_padded_to_the_longest_phrase_only() -> None:
    rows = clip()(TEXTS)
    assert rows.shape == (len(TEXTS), max(map(len, VALUES["ids"])) + 2)
    assert rows.argmax(dim=1).tolist() == VALUES["eot_position"]
    assert clip()("a dog").tolist() == [[49406, 320, 1929, 49407]]
    assert clip()([]).shape == (0, 0)


@pytest.mark.parametrize("case", range(len(LONG_TEXTS)))
def test_long_phrases_are_cut_as_the_reference_cuts_them(case: int) -> None:
    text, tokenizer = LONG_TEXTS[case], clip()
    assert len(tokenizer.encode(text)) == VALUES["long_n_ids"][case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptTruncated)
        assert tokenizer(text).tolist() == [VALUES["long_ids_truncated"][case]]
    if VALUES["long_error"][case] is None:
        assert tokenizer(text, truncate=False).shape == (1, 77)
    else:
        with pytest.raises(PromptError, match="75"):
            tokenizer(text, truncate=False)


def test_truncation_names_the_lost_words() -> None:
    phrase = "dog " * 74 + "supercalifragilisticexpialidocious cat"
    with pytest.warns(PromptTruncated, match="these words are lost: 'supercalifragilisticexpialidocious cat'"):
        clip()(phrase)


def test_punctuation_glued_to_a_special_string_stays_punctuation() -> None:
    tokenizer = clip()
    assert tokenizer.end not in tokenizer.encode("!!<|endoftext|>")
    assert tokenizer.encode("a <|endoftext|> b")[1] == tokenizer.end


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Z")), max_size=60))
def test_letters_numbers_and_symbols_survive_encoding_and_decoding(text: str) -> None:
    tokenizer = clip()
    ids = tokenizer.encode(text)
    assert all(0 <= index < tokenizer.vocabulary_size for index in ids)
    squeezed = "".join(tokenizer.clean(text).split())
    assert "".join(tokenizer.decode(ids).split()) == squeezed


def test_threads_share_one_tokenizer() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(clip().encode, TEXTS * 4)) == VALUES["ids"] * 4
    assert isinstance(clip(), ClipTokenizer)
    assert clip() is clip()

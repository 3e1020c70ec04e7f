"""PSALM's text: the tokenizer, the wording of every task, labels and batches. Every byte is a token here; the exact ids: `.ci/run`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from promptseg.errors import PromptError, WeightsError, WeightsNotFound
from promptseg.models.psalm.tokens import (
    CLASS,
    IGNORE,
    IMAGE,
    LONGEST,
    MASKS,
    REGION,
    SENTENCE,
    SYSTEM,
    Tokenizer,
    collate,
    image_first,
    prompt_text,
    sentence_text,
)

HEAD = f"[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\n"
RESULT = " [/INST] \nSure, the segmentation result is <seg> <|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def test_ids_follow_from_the_merges(tokenizer: Tokenizer) -> None:
    assert (tokenizer.end, tokenizer.pad, tokenizer.seg, len(tokenizer)) == (256, 256 + 39, 256 + 40, 256 + 41)
    assert tokenizer.encode('!"~') == [0, 1, 93]
    merged = Tokenizer.from_merges("#version: 0.2\nd o\ndo g\n")
    assert merged.encode("dog") == [257]
    assert merged.seg == tokenizer.seg + 2


def test_added_tokens_are_cut_out_first_the_longest_first(tokenizer: Tokenizer) -> None:
    spaces, tabs = 257, 257 + 30  # 31 spaces, 9 tabs
    assert tokenizer.encode("a" + " " * 31 + "b") == [*tokenizer.encode("a"), spaces, *tokenizer.encode("b")]
    assert tokenizer.encode(" " * 2) == [spaces + 29]
    assert tokenizer.encode("\t" * 9) == [tabs]
    assert tokenizer.encode("[SEG]<|endoftext|>[PAD]") == [tokenizer.seg, tokenizer.end, tokenizer.pad]
    assert tokenizer.encode("é ") == tokenizer.encode("é") + tokenizer.encode(" ")
    assert tokenizer.encode("") == []


def test_the_words_of_every_task() -> None:
    listed = "This is all the candidate categories: <cls>, <cls>.\n"
    panoptic = f"{HEAD}This is an image <image>, Please do Panoptic Segmentation.\n{listed}{RESULT}"
    assert prompt_text("panoptic", classes=2) == prompt_text("instance", classes=2) == panoptic
    assert prompt_text("semantic", classes=2) == panoptic.replace("Panoptic", "Semantic")
    said = "Please doing Referring Segmentation according to the following instruction:\n<refer>"
    assert prompt_text("referring") == f"{HEAD}This is an image <image>, {said}{RESULT}"
    shown = "Please segment by given regions\nThis is all regions:  <region>, <region>.\n [/INST] \n[SEG]<seg> <|endoftext|>"
    assert prompt_text("region", regions=2) == f"{HEAD}This is an image <image>, {shown}"
    assert sentence_text(["man in black", "left man"]) == " man in black. left man."


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda t: t.prompt("panoptic", classes=[]), "at least one"),
        (lambda t: t.prompt("region"), "at least one point"),
        (lambda t: t.prompt("referring", sentences=[" "]), "not empty"),
        (lambda t: t.prompt("colouring"), "no task of PSALM"),
        (lambda t: t.answered([{"from": "human", "value": "Hello?"}]), "1 turns"),
    ],
)
def test_nothing_to_ask(tokenizer: Tokenizer, ask: object, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        ask(tokenizer)  # type: ignore[operator]


def test_placeholders_names_and_labels(tokenizer: Tokenizer) -> None:
    found = tokenizer.prompt("panoptic", classes=["cat", "background"])
    assert tokenizer.decode(found.ids) == found.text
    assert [index for index in found.ids if index < 0] == [IMAGE, CLASS, CLASS, MASKS]
    assert list(found.class_ids) == [*tokenizer.encode("cat"), tokenizer.seg, *tokenizer.encode("background"), tokenizer.seg]
    assert list(found.class_index) == [0] * 4 + [1] * 11
    answer = [index for index in found.labels if index != IGNORE]
    assert tokenizer.decode(answer) == " \nSure, the segmentation result is <seg> <|endoftext|>"
    assert found.labels[-len(answer) :] == tuple(answer)
    assert SENTENCE in tokenizer.prompt("referring", sentences=["a"]).ids
    assert tokenizer.prompt("region", regions=3).ids.count(REGION) == 3
    assert tokenizer.prompt("referring", sentences=["dog"]).sentence_ids == (*tokenizer.encode(" dog."), tokenizer.seg)


def test_conversations(tokenizer: Tokenizer) -> None:
    turns = [("human", "What\n<image>\nis it?"), ("gpt", "A dog."), ("human", "Colour?"), ("gpt", "Brown.")]
    said = [{"from": who, "value": what} for who, what in turns]
    assert [turn["value"] for turn in image_first(said)] == ["<image>\nWhat\n\nis it?", "A dog.", "Colour?", "Brown."]
    found = tokenizer.answered(said)
    tail = "What\n\nis it? [/INST] A dog. <|endoftext|><|endoftext|>[INST] Colour? [/INST] Brown. <|endoftext|>"
    assert found.text == f"{HEAD}<image>\n{tail}"
    answers = tokenizer.decode([index for index in found.labels if index != IGNORE])
    assert answers == " A dog. <|endoftext|> Brown. <|endoftext|>"


def test_batches_are_padded_behind_and_cut(tokenizer: Tokenizer) -> None:
    one, two = tokenizer.prompt("panoptic", classes=["a", "background"]), tokenizer.prompt("panoptic", classes=["a", "bb", "background"])
    batch = collate([one, two], tokenizer.pad)
    assert batch.ids.shape == batch.labels.shape == batch.attention.shape == (2, len(two.ids))
    assert batch.attention.sum(1).tolist() == [len(one.ids), len(two.ids)]
    assert batch.class_ids is not None
    assert batch.class_index is not None
    assert batch.class_index[0].tolist() == [*one.class_index, *[-1] * (len(two.class_index) - len(one.class_index))]
    assert batch.sentence_ids is None
    long = tokenizer.answered([{"from": "human", "value": "word " * 1000}, {"from": "gpt", "value": "Yes."}])
    assert collate([long], tokenizer.pad).ids.shape == (1, LONGEST)
    assert collate([long], tokenizer.pad, 300).labels.shape == (1, 300)
    said = collate([tokenizer.prompt("referring", sentences=["dog"])], tokenizer.pad)
    assert said.sentence_ids is not None
    assert torch.equal(said.sentence_ids[0], torch.tensor([*tokenizer.encode(" dog."), tokenizer.seg]))


def test_a_checkpoint_brings_its_own(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"merges\.txt"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nd o\n", encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).encode("do") == [256]
    tokenizer.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    text = prompt_text("region", regions=2)
    assert again.encode_frame(text) == tokenizer.encode_frame(text)
    assert (again.seg, again.pad, again.end) == (tokenizer.seg, tokenizer.pad, tokenizer.end)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).encode("do") == [256]  # plain Phi's knows no [SEG]
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(WeightsError, match="no tokenizer file"):
        Tokenizer.from_folder(tmp_path)


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Bpe
    from tokenizers import models

    Bpe(models.BPE(vocab={"<|endoftext|>": 0}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WeightsError, match=r"\[PAD\] and no \[SEG\]"):
        Tokenizer.from_folder(tmp_path)

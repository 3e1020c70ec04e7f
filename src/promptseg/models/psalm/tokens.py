"""What the language model reads: its tokenizer, the wording of every task, and ids with places for what is spliced in.

A prompt is one turn of conversation that holds its answer already, the same in training and use. Placeholders stand in it as negative
ids; the network puts image tokens, class names, the sentence, regions and mask tokens in their place (paper, section 3.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor

from ...errors import PromptError, WeightsError, WeightsNotFound
from ...tokenizers import byte_symbols

__all__ = ["PromptBatch", "PromptIds", "Task", "Tokenizer", "collate", "conversation", "prompt_text", "sentence_text"]

Task: TypeAlias = Literal["panoptic", "instance", "semantic", "referring", "region"]

IGNORE: Final = -100  # a label that does not count
IMAGE, MASKS, CLASS, REGION, SENTENCE = -200, -201, -202, -203, -204
PLACEHOLDERS: Final = {"<image>": IMAGE, "<seg>": MASKS, "<cls>": CLASS, "<region>": REGION, "<refer>": SENTENCE}
LONGEST: Final = 2048  # ids of a row before splicing, of the published network

END, PAD, SEG = "<|endoftext|>", "[PAD]", "[SEG]"
# Phi-1.5 keeps runs of blanks whole: 31 to 2 spaces, then 9 to 2 tabs.
WHITESPACE: Final = (*(" " * n for n in range(31, 1, -1)), *("\t" * n for n in range(9, 1, -1)))

SYSTEM: Final = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
ANSWER_BEGINS: Final = " [/INST]"
RESULT: Final = "\nSure, the segmentation result is <seg>"


class Tokenizer:
    """Phi-1.5's byte-pair encoding with PSALM's two tokens, [PAD] and [SEG], behind it.

    ``merges``: the pairs of GPT-2's merges file in order; the ids follow from them. Without any every byte is a token. Holds no state
    between calls.
    """

    def __init__(self, merges: Iterable[tuple[str, str]] = ()) -> None:
        from tokenizers import AddedToken, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as Bpe

        pairs = list(merges)
        symbols = [*byte_symbols().values(), *map("".join, pairs), END]
        self._bpe: Any = Bpe(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=pairs))
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bpe.decoder = decoders.ByteLevel()
        self._bpe.add_special_tokens([END])
        self._bpe.add_tokens([AddedToken(run, normalized=False) for run in WHITESPACE])
        self._bpe.add_special_tokens([PAD])
        self._bpe.add_tokens([AddedToken(SEG, normalized=False)])
        self._find_ids()

    @classmethod
    def from_merges(cls, text: str) -> Tokenizer:
        """From the text of a merges file (``merges.txt``, ``vocab.bpe``): a line per pair, the first one a version."""
        lines = [line.split(" ") for line in text.splitlines() if line and not line.startswith("#version")]
        if any(len(line) != 2 for line in lines):
            raise WeightsError("A line of the merges file does not hold two symbols; take the merges.txt that belongs to the checkpoint.")
        return cls((left, right) for left, right in lines)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """A checkpoint's own: its ``tokenizer.json``, else its ``merges.txt``, also where the former is plain Phi's, without [SEG].

        Raises:
            WeightsNotFound: the folder has neither.
            WeightsError: the file is none, or has no [PAD], [SEG] or end of text.
        """
        if not folder.is_dir():
            raise WeightsNotFound(f"There is no folder {folder}. Give the one with tokenizer.json or merges.txt of PSALM or Phi-1.5.")
        whole, merges = folder / "tokenizer.json", folder / "merges.txt"
        if whole.is_file() and (not merges.is_file() or SEG in whole.read_text(encoding="utf-8")):
            return cls._read(whole)
        if not merges.is_file():
            raise WeightsNotFound(f"{folder} has no tokenizer.json and no merges.txt; copy them there from the folder of the checkpoint.")
        return cls.from_merges(merges.read_text(encoding="utf-8"))

    @classmethod
    def _read(cls, file: Path) -> Tokenizer:
        from tokenizers import Tokenizer as Bpe

        result = cls.__new__(cls)
        try:
            result._bpe = Bpe.from_file(str(file))
        except Exception as reason:  # the library raises plain Exception
            raise WeightsError(f"{file} is no tokenizer file: {reason}. Copy it again from the checkpoint.") from reason
        result._find_ids()
        return result

    def _find_ids(self) -> None:
        found = {token: self._bpe.token_to_id(token) for token in (END, PAD, SEG)}
        if lacking := [token for token, index in found.items() if index is None]:
            raise WeightsError(f"The tokenizer has no {' and no '.join(lacking)}: it is not PSALM's. Take the file of PSALM's checkpoint.")
        self.end, self.pad, self.seg = int(found[END]), int(found[PAD]), int(found[SEG])
        self._answer_begins = self.encode(ANSWER_BEGINS)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, from which `from_folder` makes the same again."""
        self._bpe.save(str(folder / "tokenizer.json"))

    def __len__(self) -> int:
        """Ids, those of added tokens included."""
        return int(self._bpe.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Ids of a text without placeholders; added tokens are cut out of it first, longest first."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, placeholders included."""
        names = {index: name for name, index in PLACEHOLDERS.items()}
        parts, begin = [], 0
        for place, index in enumerate([*ids, IMAGE]):
            if index < 0:
                parts.append(str(self._bpe.decode(list(ids[begin:place]), skip_special_tokens=False)))
                parts.append(names[index] if place < len(ids) else "")
                begin = place + 1
        return "".join(parts)

    def encode_frame(self, text: str) -> list[int]:
        """Ids of a text with placeholders: the pieces between them are encoded each on its own."""
        pieces = re.split(f"({'|'.join(PLACEHOLDERS)})", text)
        return [index for piece in pieces for index in ([PLACEHOLDERS[piece]] if piece in PLACEHOLDERS else self.encode(piece))]

    def labels(self, ids: Sequence[int]) -> list[int]:
        """``ids`` where an answer stands, from behind [/INST] to the end of text that closes it, `IGNORE` elsewhere."""
        mark, result, answering = self._answer_begins, [IGNORE] * len(ids), False
        for place, index in enumerate(ids):
            if answering:
                result[place] = index
                answering = index != self.end
            else:
                answering = list(ids[max(0, place + 1 - len(mark)) : place + 1]) == mark
        return result

    def prompt(
        self, task: Task, *, classes: Sequence[str] | None = None, sentences: Sequence[str] | None = None, regions: int | None = None
    ) -> PromptIds:
        """A task in words. ``classes``: every candidate, the last one ``background``; ``sentences``: all say the same object.

        Raises:
            PromptError: the task has nothing to ask for, or is unknown.
        """
        text = prompt_text(task, classes=len(classes or ()), regions=regions or 0)
        ids = self.encode_frame(text)
        names = [[*self.encode(name), self.seg] for name in classes or ()]
        said = sentence_text(sentences or ()) if task == "referring" else ""
        return PromptIds(
            text=text,
            ids=tuple(ids),
            labels=tuple(self.labels(ids)),
            class_ids=tuple(index for name in names for index in name),
            class_index=tuple(number for number, name in enumerate(names) for _ in name),
            sentence_ids=(*self.encode(said), self.seg) if said else (),
        )

    def answered(self, turns: Sequence[Mapping[str, str]]) -> PromptIds:
        """A conversation with its answers, from turns ``{"from": "human" or "gpt", "value": text}``."""
        text = conversation([turn["value"] for turn in turns])
        ids = self.encode_frame(text)
        return PromptIds(text=text, ids=tuple(ids), labels=tuple(self.labels(ids)))


@dataclass(frozen=True, slots=True)
class PromptIds:
    """One prompt before splicing. ``ids``: tokens, and negative `PLACEHOLDERS`; ``labels`` of the same length.

    ``class_ids``: names of all classes, [SEG] behind each, one after another; ``class_index``: to which class each id belongs, from 0.
    ``sentence_ids``: the sentence and [SEG]. Those that the task does not need are empty.
    """

    text: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    class_ids: tuple[int, ...] = ()
    class_index: tuple[int, ...] = ()
    sentence_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """B prompts of one task, int64: ``ids``, ``labels`` and ``attention`` (bool) (B, L), padded behind.

    ``class_ids`` and ``class_index`` (B, M), padded with -1; ``sentence_ids`` one (n,) per row. None where the task has none.
    """

    ids: Tensor
    labels: Tensor
    attention: Tensor
    class_ids: Tensor | None = None
    class_index: Tensor | None = None
    sentence_ids: tuple[Tensor, ...] | None = None


def collate(prompts: Sequence[PromptIds], pad: int, longest: int = LONGEST) -> PromptBatch:
    """Prompts of one task as a batch; rows are cut at ``longest`` ids, ``pad`` (the id of [PAD]) fills them up and is not attended to."""
    ids = _rows([prompt.ids[:longest] for prompt in prompts], pad)
    named, said = any(prompt.class_ids for prompt in prompts), any(prompt.sentence_ids for prompt in prompts)
    return PromptBatch(
        ids=ids,
        labels=_rows([prompt.labels[:longest] for prompt in prompts], IGNORE),
        attention=ids != pad,
        class_ids=_rows([prompt.class_ids for prompt in prompts], -1) if named else None,
        class_index=_rows([prompt.class_index for prompt in prompts], -1) if named else None,
        sentence_ids=tuple(torch.tensor(prompt.sentence_ids) for prompt in prompts) if said else None,
    )


def _rows(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    result = torch.full((len(rows), max(map(len, rows), default=0)), fill, dtype=torch.long)
    for row, values in zip(result, rows, strict=True):
        row[: len(values)] = torch.tensor(values, dtype=torch.long)
    return result


# --- wording ----------------------------------------------------------------------------------------------------------------------------


def prompt_text(task: Task, *, classes: int = 0, regions: int = 0) -> str:
    """The whole text of a task, placeholders in place of what is spliced in; the published wording to the letter.

    Raises:
        PromptError: no class, or no region, or an unknown task.
    """
    if task in ("panoptic", "instance", "semantic"):
        if classes < 1:
            raise PromptError("Panoptic, instance and semantic segmentation need the names of classes; give at least one.")
        kind = "Semantic" if task == "semantic" else "Panoptic"
        asked = f"Please do {kind} Segmentation.\nThis is all the candidate categories: {', '.join(['<cls>'] * classes)}.\n"
        return _frame([f"This is an image <image>, {asked}", RESULT])
    if task == "referring":
        asked = "Please doing Referring Segmentation according to the following instruction:\n<refer>"
        return _frame([f"This is an image <image>, {asked}", RESULT])
    if task == "region":
        if regions < 1:
            raise PromptError("Interactive segmentation needs something to go by; give at least one point, scribble, box or mask.")
        asked = f"Please segment by given regions\nThis is all regions:  {', '.join(['<region>'] * regions)}.\n"
        return _frame([f"This is an image <image>, {asked}", "\n[SEG]<seg>"])
    raise PromptError(f"{task!r} is no task of PSALM. Its tasks are panoptic, instance, semantic, referring and region.")


def sentence_text(sentences: Sequence[str]) -> str:
    """All sentences of one object as one instruction: `` man in black. left man.``

    Raises:
        PromptError: there is none, or one is empty.
    """
    if not sentences or not all(sentence.strip() for sentence in sentences):
        raise PromptError("A referring prompt needs a sentence that is not empty.")
    return "".join(f" {sentence}." for sentence in sentences)


def conversation(values: Sequence[str]) -> str:
    """Question, answer, question, answer...; a picture mentioned anywhere in a question moves to its front (LLaVA)."""
    return _frame([_image_first(value) for value in values])


def image_first(turns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Turns of a conversation with ``<image>`` and a line break in front of the question that mentions it."""
    return [{**turn, "value": _image_first(turn["value"])} for turn in turns]


def _image_first(value: str) -> str:
    return f"<image>\n{value.replace('<image>', '').strip()}".strip() if "<image>" in value else value


def _frame(values: Sequence[str]) -> str:
    """The turns in the frame of LLaMA-2's conversations, the system's message in the first."""
    if len(values) < 2 or len(values) % 2:
        raise PromptError(f"A conversation is made of questions, each with its answer; these are {len(values)} turns.")
    parts = []
    for turn, (asked, answer) in enumerate(zip(values[::2], values[1::2], strict=True)):
        begin = f"{END}[INST] " if turn else f"[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\n"
        parts.append(f"{begin}{asked}{ANSWER_BEGINS} {answer} {END}")
    return "".join(parts)

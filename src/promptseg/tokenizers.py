"""Text to ids: CLIP's tokenization, exactly.

A phrase is repaired (ftfy), HTML-unescaped, squeezed and lower-cased, split into words, single digits and runs of punctuation, and every
piece is merged byte pair by byte pair in the order of CLIP's published vocabulary (CLIP paper, section 2.4; `golden/clip`).
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from .errors import PromptError, PromptTruncated
from .notices import tell

if TYPE_CHECKING:
    import torch

__all__ = ["ClipTokenizer", "clip"]

CONTEXT: Final = 77  # positions of CLIP's text tower: start token, up to 75 ids, end token
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
WORD_END: Final = "</w>"

# What CLIP's splitting pattern keeps, first match wins. The special strings stand in front: a phrase that spells one out gets its id.
PIECES: Final = rf"(?i){re.escape(START)}|{re.escape(END)}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"


class ClipTokenizer:
    """CLIP's byte-pair encoding; build it once through `clip`. Holds no state between calls, so threads may share it."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        symbols = list(byte_symbols().values())
        self._tokens = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, merges), START, END]
        ids = {token: index for index, token in enumerate(self._tokens)}
        self.start, self.end = ids[START], ids[END]
        self._bytes = {symbol: byte for byte, symbol in byte_symbols().items()}
        self._split = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
        self._bpe = Tokenizer(models.BPE(vocab=ids, merges=list(merges), end_of_word_suffix=WORD_END))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence([self._split, byte_level])

    @property
    def vocabulary_size(self) -> int:
        return len(self._tokens)

    @staticmethod
    def clean(text: str) -> str:
        """``text`` as CLIP reads it: mojibake and look-alikes repaired, HTML entities resolved (twice), single spaces, lower case."""
        import ftfy

        repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
        return re.sub(r"\s+", " ", repaired.strip()).strip().lower()

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without start and end token and of any length."""
        cleaned = self.clean(text)
        if START not in cleaned and END not in cleaned:
            return self._merge(cleaned)
        special = {START: [self.start], END: [self.end]}
        pieces = (piece for piece, _ in self._split.pre_tokenize_str(cleaned))
        return [index for piece in pieces for index in special.get(piece) or self._merge(piece)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; as in CLIP a space follows every word."""
        symbols = "".join(self._tokens[index] for index in ids)
        data = bytearray(self._bytes[symbol] for symbol in symbols)
        return data.decode("utf-8", errors="replace").replace(WORD_END, " ")

    def __call__(self, texts: str | Sequence[str], context: int = CONTEXT, *, truncate: bool = True) -> torch.Tensor:
        """Rows of ids for the text tower: start, ids, end, zeros.

        Args:
            texts: one phrase or N.
            context: positions of the text tower; a row never has more.
            truncate: cut what is longer, with a warning; False raises instead (as CLIP's own `tokenize` does).

        Returns:
            int64 (N, L), L = the longest row's length, not padded to ``context``: causal attention makes padding invisible.

        Raises:
            PromptError: a phrase is too long and ``truncate`` is False.
        Warns:
            PromptTruncated: names the phrase and the words that the model will not see.
        """
        import torch

        texts = (texts,) if isinstance(texts, str) else texts
        rows = [[self.start, *self._fit(text, context - 2, truncate), self.end] for text in texts]
        result = torch.zeros(len(rows), max(map(len, rows), default=0), dtype=torch.long)
        for row, ids in zip(result, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return result

    def _merge(self, cleaned: str) -> list[int]:
        ids: list[int] = self._bpe.encode(cleaned, add_special_tokens=False).ids
        return ids

    def _fit(self, text: str, room: int, truncate: bool) -> list[int]:
        ids = self.encode(text)
        if len(ids) <= room:
            return ids
        if not truncate:
            raise PromptError(f"The phrase needs {len(ids)} tokens and the model reads {room}: {_short(text)!r}. Shorten it.")
        first = room  # the first token of the first word that is not read whole
        while first and not self._tokens[ids[first - 1]].endswith(WORD_END):
            first -= 1
        lost = _short(self.decode(ids[first:]).strip())
        message = f"The model reads {room} of {len(ids)} tokens of {_short(text)!r}; these words are lost: {lost!r}. Shorten the phrase."
        tell(PromptTruncated, message)
        return ids[:room]


@cache
def clip() -> ClipTokenizer:
    """CLIP's tokenizer, built on first use and kept (a few milliseconds per thousand merges, once)."""
    packed = files(__package__).joinpath("data/vocabularies/clip_merges.txt.gz").read_bytes()
    pairs = (line.split(" ") for line in gzip.decompress(packed).decode("utf-8").splitlines())
    return ClipTokenizer([(left, right) for left, right in pairs])


@cache
def byte_symbols() -> dict[int, str]:
    """Byte -> one printable character, in the order of the vocabulary: printable bytes stand for themselves, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


def _short(text: str, length: int = 200) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

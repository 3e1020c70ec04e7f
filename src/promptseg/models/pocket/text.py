"""The text tower of `pocket`: one vector per word piece, summed. Static, so that a phrase costs microseconds.

The vectors are distilled from `all-MiniLM-L6-v2` (see `distill.py`): the sum over a phrase's pieces points where the sentence encoder
points. Word order is not seen ("dog on grass" = "grass on dog"), which is documented in the model card.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn

from ...errors import WeightsError

UNKNOWN = "[UNK]"


class StaticText(nn.Module):
    """Phrases -> unit vectors (N, width).

    ``table`` (V, width) int8 and ``scale`` (V, 1) float16 hold the vectors at a quarter of their size; ``pieces`` uint8 are the V word
    pieces themselves, UTF-8, one per line, so that the weights file is all that is needed.
    """

    table: Tensor
    scale: Tensor
    pieces: Tensor

    def __init__(self, count: int, width: int, text_bytes: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("table", torch.zeros(count, width, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(count, 1, dtype=torch.float16))
        self.register_buffer("pieces", torch.zeros(text_bytes, dtype=torch.uint8))

    def tokenize(self, phrase: str) -> list[int]:
        """Lower-case word pieces of a phrase as BERT splits it; a word with characters outside the vocabulary is left out."""
        return [index for index in self._split(phrase).ids if index < len(self.table)]

    def unread(self, phrase: str) -> list[str]:
        """The words of a phrase that `tokenize` leaves out, each once, as they are written; punctuation is no word."""
        pieces = self._split(phrase)
        lost = [phrase[start:end] for index, (start, end) in zip(pieces.ids, pieces.offsets, strict=True) if index >= len(self.table)]
        return [word for word in dict.fromkeys(lost) if any(unicodedata.category(character)[0] != "P" for character in word)]

    def _split(self, phrase: str) -> Encoding:
        return _word_pieces(self.pieces.cpu().numpy().tobytes()).encode(phrase, add_special_tokens=False)

    def forward(self, phrases: Sequence[str]) -> Tensor:
        """Phrases -> (N, width) float32, L2 norm 1; a phrase without any known piece (punctuation only) gives the zero vector."""
        rows = []
        for phrase in phrases:
            ids = torch.tensor(self.tokenize(phrase), dtype=torch.long, device=self.table.device)
            rows.append((self.table[ids].float() * self.scale[ids].float()).sum(0))
        total = torch.stack(rows) if rows else torch.zeros(0, self.width, device=self.table.device)
        return F.normalize(total, dim=-1)

    @torch.no_grad()
    def store(self, vectors: Tensor) -> None:
        """Quantise (V, width) float vectors row by row: 127 steps to each row's largest magnitude."""
        scale = (vectors.abs().amax(1, keepdim=True) / 127).half().clamp_min(1e-7)
        self.table.copy_((vectors / scale.float()).round().clamp(-127, 127).to(torch.int8))
        self.scale.copy_(scale)


def with_pieces(pieces: Sequence[str], width: int) -> StaticText:
    """An empty tower for these word pieces."""
    text = "\n".join(pieces).encode()
    tower = StaticText(len(pieces), width, len(text))
    tower.pieces.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    return tower


@lru_cache(maxsize=4)
def _word_pieces(text: bytes) -> Tokenizer:
    """BERT's uncased tokenization over the given pieces; the unknown mark gets the id after the last piece.

    Raises:
        WeightsError: the bytes are no text.
    """
    try:
        pieces = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise WeightsError(f"The word pieces in the weights are damaged ({error}). Get the weights again.") from None
    vocabulary = {piece: index for index, piece in enumerate([*pieces, UNKNOWN])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer

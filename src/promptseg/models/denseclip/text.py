"""Class names in CLIP's text tower, with learned vectors in front of every name (DenseCLIP, section 3.2, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import PromptError
from ...nn.clip import TextTower
from ...nn.clip_config import ClipTextConfig
from ...tokenizers import clip as clip_tokenizer

SEQUENCES_AT_ONCE = 512  # bounds the memory that contexts of every image take


class ContextTextTower(TextTower):
    """CLIP's text tower reading [start][contexts][rest of the name]; ``context`` counts all three.

    ``contexts``: how many learned vectors of its own it has, (1, N, W); 0: they are always given.
    """

    def __init__(self, config: ClipTextConfig, contexts: int = 0) -> None:
        super().__init__(config)
        # standard deviation 1, cut at 2, though CLIP's own words have 0.02: what the published code draws
        self.contexts = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, contexts, config.width))) if contexts else None

    def embed(self, ids: Tensor, contexts: Tensor | None = None) -> Tensor:
        """ids (K, L) int64 as `class_tokens` gives them; contexts (B, N, W), one set for all classes, or the tower's own -> (B, K, E).

        The embeddings are not normalised.
        """
        if contexts is None:
            assert self.contexts is not None
            contexts = self.contexts
        batch, count = len(contexts), contexts.shape[1]
        words: Tensor = self.token_embedding(ids)  # (K, L, W)
        classes = len(ids)
        shape = (batch, classes, -1, -1)
        parts = (words[None, :, :1].expand(shape), contexts[:, None].expand(shape), words[None, :, 1:].expand(shape))
        x = torch.cat(parts, dim=2).flatten(0, 1)  # (B * K, L + N, W)
        x = x + self.position_embedding[: x.shape[1]]
        ends = (ids.argmax(-1) + count).repeat(batch)
        read = [
            self._read(part, end) for part, end in zip(torch.split(x, SEQUENCES_AT_ONCE), torch.split(ends, SEQUENCES_AT_ONCE), strict=True)
        ]
        return torch.unflatten(torch.cat(read), 0, (batch, classes))

    def _read(self, x: Tensor, ends: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, causal=True)
        return self.project(self.norm_final(x[torch.arange(len(x), device=x.device), ends]))


def class_tokens(names: Sequence[str], tokens: int = 5) -> Tensor:
    """Bare names -> ids (K, L) int64, L at most ``tokens``: start, name, end, zeros.

    Raises:
        PromptError: a name is empty or needs more ids.
    """
    for name in names:
        if not name.strip():
            raise PromptError("A class name is empty. Give each class a word or two.")
    return clip_tokenizer()(list(names), tokens, truncate=False)

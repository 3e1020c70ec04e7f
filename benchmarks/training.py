"""A training step of CLIPSeg (rd64) against the same model under `transformers.Trainer`: one process, in turn.

    python benchmarks/training.py [--batch 4] [--steps 4] [--json FILE]

Both start from the same random full-size weights, see the same photos, phrases and masks, keep CLIP frozen and move the decoder by AdamW at
the same constant rate. A step is timed as its user meets it, from the end of one to the end of the next: fetching the batch, forward,
backward, optimiser and what the loop keeps of it. transformers' decoder has no dropout, so ours has none here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from clipseg import PHRASES, peer_model, photos
from common import Row, machine, parser, report
from promptseg import training
from promptseg.contracts import Recipe
from promptseg.models.clipseg import ClipSegConfig, Model
from promptseg.models.clipseg.batches import Example
from promptseg.models.clipseg.run import ClipSegRun
from promptseg.tokenizers import clip as clip_tokenizer
from promptseg.training.loop import optimise
from promptseg.training.schedules import Constant


class Prepared(ClipSegRun):
    """The family's run on examples at hand."""

    def __init__(self, model: Model, examples: Sequence[Example]) -> None:
        self.model, self.examples = model, examples

    def example(self, number: int) -> Example:
        return self.examples[number % len(self.examples)]


class EnoughError(Exception):
    """The steps to be timed are done; no checkpoint is wanted."""


def examples() -> list[Example]:
    """Eight crops of the example photo, eight phrases, eight half-covered masks."""
    masks = (torch.randn(8, 1, 11, 11, generator=torch.Generator().manual_seed(0)) > 0).float()
    masks = masks.repeat_interleave(32, 2).repeat_interleave(32, 3)
    return [Example(photo, mask, phrase, None, 1.0) for photo, mask, phrase in zip(photos(), masks, PHRASES, strict=False)]


def ours(run: Prepared, recipe: Recipe) -> tuple[list[float], list[float]]:
    """Seconds of every step but the first, and all losses."""
    seconds: list[float] = []
    losses: list[float] = []

    def after(step: int, figures: Mapping[str, float]) -> None:
        seconds.append(figures["seconds"])
        losses.append(figures["mask"])
        if len(seconds) == recipe.steps:
            raise EnoughError

    with tempfile.TemporaryDirectory() as folder, suppress(EnoughError):
        optimise(replace(recipe, output=folder), run, report=after)
    return seconds[1:], losses


def theirs(peer: Any, items: Sequence[Mapping[str, Any]], recipe: Recipe) -> tuple[list[float], list[float]]:
    """The same under `transformers.Trainer`."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    ends: list[float] = []
    losses: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.monotonic())

    class Told(Trainer):
        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            loss = super().compute_loss(*arguments, **named)
            losses.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
            return loss

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, max_steps=recipe.steps, per_device_train_batch_size=recipe.batch_size, learning_rate=recipe.lr,
            weight_decay=recipe.weight_decay, lr_scheduler_type="constant", max_grad_norm=0.0, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False, use_cpu=True,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        Told(peer, settings, train_dataset=list(items), callbacks=[Watch()]).train()
    return [later - earlier for earlier, later in pairwise(ends)], losses


def main() -> None:
    """Train both in turn and report."""
    options = parser(__doc__ or "")
    options.add_argument("--batch", type=int, default=4, help="examples per step, up to 8")
    options.add_argument("--steps", type=int, default=4, help="steps of each in a round; the first is not timed")
    given = options.parse_args()
    peer = peer_model().train()
    peer.clip.requires_grad_(False)
    model = Model.from_official(ClipSegConfig(dropout=0.0), peer.state_dict())
    recipe = replace(
        training.recipe("clipseg/pc"), steps=given.steps, batch_size=given.batch, schedule=Constant(), precision="float32", workers=0,
        save_every_s=1e9,
    )  # fmt: skip
    shown = examples()
    ids = clip_tokenizer()([str(example.prompt) for example in shown])
    masks = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    items = [
        {"input_ids": ids[i], "attention_mask": masks[i], "pixel_values": example.pixels, "labels": example.target[0]}
        for i, example in enumerate(shown)
    ]
    own: list[float] = []
    other: list[float] = []
    differences: list[float] = []
    for _ in range(given.rounds):
        (mine, losses), (its, their_losses) = ours(Prepared(model, shown), recipe), theirs(peer, items, recipe)
        own, other = own + mine, other + its
        differences += [abs(a - b) for a, b in zip(losses, their_losses, strict=True)]
    ours_s, peer_s = median(own), median(other)
    row = Row(
        f"clipseg step, batch {given.batch}", ours_s, "transformers.Trainer", peer_s, peer_s / ours_s, max(differences[: given.steps])
    )  # of the losses
    report(machine(), [row], given.json)


if __name__ == "__main__":
    main()

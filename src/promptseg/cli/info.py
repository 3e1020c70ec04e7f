"""``promptseg info``: all that is known of a model, or what a weight file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..contracts import Card

TENSORS_SHOWN = 12

__all__ = ["info"]


def info(name: Annotated[str, typer.Argument(help="A model of `promptseg models`, a folder, or a weight file.")]) -> None:
    """Tell what is known of a model, or what a weight file holds. Nothing in the file is run."""
    from .. import zoo

    known = {card.name: card for card in zoo.cards()}
    path = Path(name)
    if name not in known and path.exists():
        lines = _file(path)
    else:
        lines = _card(zoo.card(name))
    for head, text in lines:
        typer.echo(f"{head:<14}{text}")


def _card(card: Card) -> Iterator[tuple[str, str]]:
    from .. import zoo

    yield "name", card.name
    yield "family", card.family
    yield "about", card.summary
    yield "source", card.source
    yield "tasks", ", ".join(card.tasks)
    yield "prompts", ", ".join(card.prompts)
    stored = zoo.size_on_disk(card.name)
    size = f"{card.size_mb:.0f} MB in float32" if stored is None else f"{stored / 1e6:.1f} MB on disk"
    yield "size", f"{card.parameters / 1e6:.1f} million parameters, {size}"
    yield "input", f"{card.preprocess.size} pixels, {card.preprocess.fit}"
    yield "threshold", f"{card.threshold:g} for pixels, {card.presence_threshold:g} for presence"
    if card.background is not None:
        yield "background", f"{card.background}: what stays unlabelled in semantic maps"
    yield "code", card.code_license
    yield "weights", card.weights_license
    for metric, value in card.metrics.items():
        yield "metric", f"{metric} {value:.3f}"
    yield "here", ", ".join(map(str, zoo.weights(card.name))) if zoo.here(card.name) else zoo.how_to_get(card)


def _file(path: Path) -> Iterator[tuple[str, str]]:
    from .. import zoo
    from ..zoo.checkpoints import is_folder

    tensors = zoo.read_weights(path)
    yield "file", str(path)
    if is_folder(path):
        card = zoo.card_of(path)
        yield "name", card.name
        yield "weights", card.weights_license
    yield "tensors", str(len(tensors))
    yield "numbers", f"{sum(tensor.numel() for tensor in tensors.values()) / 1e6:.2f} million"
    yield "types", ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}))
    for name, tensor in list(tensors.items())[:TENSORS_SHOWN]:
        yield "", f"{name} {tuple(tensor.shape)}"
    if len(tensors) > TENSORS_SHOWN:
        yield "", f"and {len(tensors) - TENSORS_SHOWN} more"

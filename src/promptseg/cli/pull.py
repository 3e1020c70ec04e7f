"""``promptseg pull``: published weights from the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["pull"]


def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models of `promptseg models`.")],
    force: Annotated[bool, typer.Option("--force", help="Download again what is already here.")] = False,
) -> None:
    """Download published weights. An interrupted download goes on where it stopped; checksums are checked where they are known."""
    from .. import zoo

    for name in names:
        if zoo.card(name).published:
            typer.echo(f"{name}: licence of the weights: {zoo.card(name).weights_license}")
        paths = zoo.pull(name, force=force)
        typer.echo(f"{name}: {', '.join(map(str, paths))}")
        if zoo.can_verify(name):
            typer.echo(f"Is it the model of the paper? promptseg verify {name}")

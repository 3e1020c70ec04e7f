"""``promptseg convert``: published weight files at hand -> a folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError

EPILOG = """[bold]Examples[/bold]

    promptseg convert rd64-uni.pth ViT-B-16.pt --as clipseg-rd64

    promptseg convert model.safetensors --as clipseg-rd64-refined -o refined"""

__all__ = ["EPILOG", "convert"]


def convert(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="All files of one published layout, in any order.")],
    name: Annotated[str, typer.Option("--as", help="Which model of `promptseg models` they are.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; without it, where the name alone will find the model.")
    ] = None,
) -> None:
    """Turn published weight files into promptseg's folder format, strictly: every tensor must be accounted for."""
    from .. import zoo

    if zoo.card(name).embedded and output is None:
        raise ConfigError(f"{name!r} is built in, so its name finds that one. Say where yours goes: --output FOLDER.")
    folder = zoo.convert(files, name, output or zoo.own_folder(name))
    typer.echo(f"{name}: {folder}")
    typer.echo(f"Use it: promptseg segment photo.jpg 'a dog' --model {name if output is None else folder}")

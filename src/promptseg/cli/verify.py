"""``promptseg verify``: do weights compute what their authors published?"""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import WeightsError

__all__ = ["verify"]


def verify(
    name: Annotated[str, typer.Argument(help="A model of `promptseg models`, a folder of ours, or a published file with --as.")],
    card: Annotated[str | None, typer.Option("--as", help="Which model a bare published file is.")] = None,
    photo: Annotated[str | None, typer.Option(help="The reference photo; without it, it is downloaded once.")] = None,
) -> None:
    """Compare a model's outputs on a reference photo with the published values, and say whether this is the model of the paper."""
    from rich.console import Console
    from rich.table import Table

    from .. import zoo

    found = zoo.verify(name, photo, card=card)
    table = Table("value", "difference", "allowed", "", "published by")
    for check in found.checks:
        table.add_row(check.what, f"{check.difference:.2g}", f"{check.tolerance:.2g}", "ok" if check.passed else "differs", check.source)
    Console().print(table)
    if not found.passed:
        raise WeightsError(f"These are not the published weights of {found.name!r}. Get them again: promptseg pull {found.name} --force.")
    typer.echo(f"These are the published weights of {found.name!r}.")

"""``promptseg data``: which data sets can be read, how they must lie on disk, and whether one that is there is complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from .prepare import EPILOG as PREPARE_EPILOG
from .prepare import prepare
from .progress import progress_bar

if TYPE_CHECKING:
    from ..data.checks import Report

__all__ = ["app"]

WRONG = 1  # exit code of a data set with mistakes
CLASSES_SHOWN = 30
Captions: TypeAlias = Literal["cc3m", "cc12m", "yfcc", "redcaps"]

app = typer.Typer(
    rich_markup_mode="rich", no_args_is_help=True, help="List the data sets that can be read, check one on disk, prepare one."
)


@app.command("list")
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show the files that this one expects, and where it comes from.")
    ] = None,
) -> None:
    """List the data sets that can be read, or how one of them must lie on disk."""
    from ..data.catalogue import SETS, data_set

    if name is None:
        width = max(map(len, SETS))
        for entry in SETS.values():
            typer.echo(f"{entry.name:<{width}}  {entry.title}")
        typer.echo("promptseg data list NAME shows the files that it expects; promptseg data check NAME ROOT looks at them.")
        return
    entry = data_set(name)
    typer.echo(f"{entry.layout}\n\nSplit unless named: {entry.split}\nFrom: {entry.source}")


EPILOG = """[bold]Examples[/bold]

    promptseg data check own my-photos

    promptseg data check own labels.json --sheet look.png

    promptseg data check voc datasets/VOCdevkit --split trainaug"""


@app.command(epilog=EPILOG)
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `promptseg data list`; own for photos and masks of yours.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Where it lies.")],
    split: Annotated[str | None, typer.Option(help="Which part; without it, the one that `promptseg data list NAME` tells.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Picture to write: photos with their masks, for a look. Without it, data-NAME.png here.")
    ] = None,
    photos: Annotated[int, typer.Option(min=1, help="Photos on the picture.")] = 12,
    only: Annotated[int | None, typer.Option(min=1, help="Read about so many photos, spread evenly, instead of all.")] = None,
) -> None:
    """Read every photo and mask of a data set: counts per class, missing and damaged files, impossible ids, and a picture of some.

    The exit code is 1 where something is wrong.
    """
    from ..data.catalogue import data_set, read
    from ..data.checks import Finding, inspect
    from ..data.own_checks import label_findings
    from ..data.sheet import contact_sheet

    entry = data_set(name)
    found = read(name, root, split)
    listed, found = len(found), found[:: max(1, len(found) // (only or len(found) or 1))]
    with progress_bar() as progress:
        report = inspect(found, every=lambda samples: progress.track(samples, total=len(found), description="Reading"))
    if name == "own":
        report.findings += label_findings(root)
    published = entry.photos.get(split or entry.split, listed)
    if published != listed:
        report.findings.append(Finding(f"{published} photos are published, {listed} are listed here", wrong=False))
    _print(report)
    picture = contact_sheet(found, photos)
    if picture is not None:
        file = sheet or Path(f"data-{name}.png")
        picture.save(file)
        typer.echo(f"{file} shows some of the photos with their masks.")
    if not report.ok:
        raise typer.Exit(WRONG)


@app.command()
def pack(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `promptseg data list`; own for photos and masks of yours.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Where it lies.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the tar files.")],
    split: Annotated[str | None, typer.Option(help="Which part; without it, the one that `promptseg data list NAME` tells.")] = None,
    per_shard: Annotated[int, typer.Option(min=1, help="Photos in each file.")] = 1000,
) -> None:
    """Copy photos and masks into tar files in WebDataset's form: few large files, which are read as data of one's own."""
    from ..data.catalogue import read
    from ..data.shards import write_shards

    written = write_shards(read(name, root, split), output, per_shard=per_shard)
    typer.echo(f"{output}: {len(written)} tar files, to be read as photos of one's own: promptseg data check own {output}")


app.command(epilog=PREPARE_EPILOG)(prepare)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "photos", "share of pixels", title=f"{report.name}: {report.photos} photos, {len(report.classes)} classes")
    by_pixels = sorted(report.classes.items(), key=lambda entry: -entry[1].pixels)
    for name, count in by_pixels[:CLASSES_SHOWN]:
        table.add_row(name, str(count.photos), f"{count.pixels / max(1, report.pixels):.2%}")
    Console().print(table)
    if len(by_pixels) > CLASSES_SHOWN:
        typer.echo(f"and {len(by_pixels) - CLASSES_SHOWN} more classes")
    typer.echo(f"{report.ignored / max(1, report.pixels):.2%} of the pixels are ignored.")
    for finding in report.findings:
        typer.echo(f"{'wrong' if finding.wrong else 'note'}: {finding}")
    typer.echo("Everything is there and consistent." if report.ok else "Something is wrong; see above.")

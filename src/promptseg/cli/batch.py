"""One question asked of many photos: progress, what is already done, what could not be read, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from ..errors import ExportError, ImageError, MemoryLimitError, NumericalError
from .outputs import OutputFolder, Row
from .progress import progress_bar

if TYPE_CHECKING:
    from ..exports import Exports

Summary: TypeAlias = list[tuple[Path, list[Row]]]

INCOMPLETE = 3  # exit code: the rest is done
ROWS_SHOWN = 40  # a longer table has one line per prompt instead of one per photo and prompt

__all__ = ["each", "failure", "finish", "run", "told"]


def run(
    photos: Sequence[Path],
    output: OutputFolder,
    ask: Callable[[Path], tuple[Exports, list[Row]]],
    formats: Sequence[str],
    overwrite: bool,
    besides: Callable[[Path, Path], None] | None = None,
) -> None:
    """Ask about every photo that is not done yet, save each answer at once, and print a summary.

    ``besides``: writes what else there is of a photo into a folder.

    Raises:
        typer.Exit: code 3, when a photo could not be read or its result not be written; the others are done.
    """

    def answer(photo: Path) -> list[Row]:
        found, rows = ask(photo)

        def save(draft: Path) -> None:
            found.save(draft, formats, image_id=output.image_id(photo))
            if besides is not None:
                besides(photo, draft)

        output.write(photo, rows, save)
        return rows

    summary: Summary = []
    earlier = 0

    def take(photo: Path) -> None:
        nonlocal earlier
        done = None if overwrite else output.done(photo)
        summary.append((photo, answer(photo) if done is None else done))
        earlier += done is not None

    failures = each(photos, take)
    if summary:
        _print_table(summary)
        told(len(summary), output.root, earlier)
    finish(failures)


def each(photos: Sequence[Path], take: Callable[[Path], object]) -> list[str]:
    """Photos one by one, past those that fail; -> what went wrong, a line for each."""
    failures: list[str] = []
    with progress_bar() as progress:
        for photo in progress.track(photos, description="Segmenting"):
            try:
                take(photo)
            except (ImageError, ExportError, MemoryLimitError, NumericalError) as error:  # another photo may do better
                failures.append(failure(photo, error))
    return failures


def failure(photo: Path, error: Exception) -> str:
    """A line that names the photo."""
    return str(error) if str(photo) in str(error) else f"{photo}: {error}"


def told(count: int, root: Path, earlier: int) -> None:
    """How many photos are where, and how many of them have been there before."""
    note = f" ({earlier} from an earlier run; --overwrite makes them anew)" if earlier else ""
    typer.echo(f"{count} photo{'s' * (count != 1)} in {root}{note}")


def finish(failures: Sequence[str]) -> None:
    """Print what went wrong.

    Raises:
        typer.Exit: code 3, when anything did.
    """
    for line in failures:
        typer.echo(f"promptseg: {line}", err=True)
    if failures:
        raise typer.Exit(INCOMPLETE)


def _print_table(summary: Summary) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    long = sum(len(rows) for _, rows in summary) > ROWS_SHOWN
    table = Table(*(("prompt", "found in photos", "mean score", "mean area") if long else ("photo", "prompt", "found", "score", "area")))
    for line in _by_prompt(summary) if long else _by_photo(summary):
        table.add_row(*map(escape, line))
    Console().print(table)


def _by_photo(summary: Summary) -> Iterator[tuple[str, ...]]:
    for photo, rows in summary:
        for row in rows:
            yield photo.name, row.label, "yes" if row.found else "no", f"{row.score:.2f}", f"{row.area:.1%}"


def _by_prompt(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Means over the photos in which the prompt was found."""
    per_label: dict[str, list[Row]] = {}
    for _, rows in summary:
        for row in rows:
            per_label.setdefault(row.label, []).append(row)
    for label, rows in per_label.items():
        found = [row for row in rows if row.found]
        count = max(len(found), 1)
        score, area = sum(row.score for row in found) / count, sum(row.area for row in found) / count
        yield label, f"{len(found)} of {len(rows)}", f"{score:.2f}", f"{area:.1%}"

"""``promptseg data prepare``: what published data lacks before it can be read, made from the original downloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DataError
from .progress import progress_bar

CAPTIONS = ("cc3m", "cc12m", "yfcc", "redcaps")
QUESTIONS = ("interactive", "referring", "generalised", "instances", "lvis")

EPILOG = """[bold]What can be prepared[/bold]

    interactive, referring, generalised: the questions that PSALM is trained and tested on (COCO-Interactive, RefCOCO/+/g, gRefCOCO);
    instances, lvis: its authors' lists of photos with all their objects

    ade150, ade847, context59, context459, voc20, voc20b, coco-stuff: label maps of CAT-Seg's benchmarks, from the folder of the download

    cc3m, cc12m, yfcc, redcaps: published captions, cleaned up as GroupViT is trained on them; lists of addresses become tables that
    img2dataset downloads, YFCC's photos and captions become shards

[bold]Examples[/bold]

    promptseg data prepare interactive annotations/instances_train2017.json annotations/instances_val2017.json --output coco

    promptseg data prepare referring "refcoco/refs(unc).p" refcoco/instances.json --output refcoco

    promptseg data prepare ade847 ADE20K_2021_17_01

    promptseg data prepare cc3m Train_GCC-training.tsv --output lists

    promptseg data prepare redcaps annotations --parts 8 --output lists

    promptseg data prepare yfcc yfcc100m_subset_data.tsv yfcc100m_dataset.sql zips/*.zip --output shards"""

__all__ = ["EPILOG", "prepare"]


def prepare(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="See below.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What was downloaded: files, or a benchmark's folder.")],
    output: Annotated[Path, typer.Option(help="Folder to write into; benchmarks are written beside their download.")] = Path(),
    seed: Annotated[int, typer.Option(help="interactive: the same seed and files, in the same order, draw the same prompts.")] = 0,
    parts: Annotated[int, typer.Option(min=1, help="redcaps: tables to deal the captions out into.")] = 1,
) -> None:
    """Prepare published data as its users do.

    interactive takes COCO's instances, as published train, then val, and draws a point, a scribble, a box and a rough mask for every
    object, once for all time, into FILE_interactive.json; referring and generalised take references and their instances and write one
    SPLIT.json for every split; yfcc takes OpenAI's subset, YFCC's database and zip files of photos; redcaps takes a folder, too. Of a
    benchmark what is there already stays, so the same command goes on where an earlier one was stopped.
    """
    if what in QUESTIONS:
        _questions(what, files, output, seed)
    elif what in CAPTIONS:
        _captions(what, files, output, parts)
    else:
        _label_maps(what, files)


def _captions(what: str, files: list[Path], output: Path, parts: int) -> None:
    from ..data.caption_files import KINDS, redcaps

    written = redcaps(files, output, parts) if what == "redcaps" else KINDS[what](files, output)
    for place, count in written.items():
        typer.echo(f"{place}: {count} captions")


def _questions(what: str, files: list[Path], output: Path, seed: int) -> None:
    from random import Random

    from ..data.instructions import generalised, instances, interactive, lvis, read_refs, referring
    from ..data.samples import read_json

    if what in ("instances", "lvis"):
        for file in files:
            with _named(file):
                found = (instances if what == "instances" else lvis)(read_json(file))
            _keep(found, output / f"{file.stem}_{what}.json")
        return
    if what == "interactive":
        random = Random(seed)
        for file in files:
            with _named(file):
                found = interactive(read_json(file), random)
            _keep(found, output / f"{file.stem}_interactive.json")
        return
    if len(files) != 2:
        raise DataError(f"{what} takes two files, the references and the instances that they name, not {len(files)}.")
    refs, table = read_refs(files[0]), read_json(files[1])
    for split in sorted({str(ref["split"]) for ref in refs}):
        with _named(*files):
            found = (referring if what == "referring" else generalised)(refs, table, split)
        _keep(found, output / f"{split}.json")


@contextmanager
def _named(*files: Path) -> Iterator[None]:
    """Which files a mistake is in."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{' and '.join(map(str, files))}: {error}") from None


def _keep(entries: list[dict[str, Any]], target: Path) -> None:
    import json

    from ..errors import ExportError

    if target.exists():
        raise ExportError(f"{target} is there already, and what was drawn once stays; choose another --output.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(entries), encoding="utf-8")
    typer.echo(f"{target}: {sum(len(entry['anns']) for entry in entries)} objects in {len(entries)} entries")


def _label_maps(name: str, files: list[Path]) -> None:
    from ..data.preparation import PREPARATIONS
    from ..data.preparation import prepare as write
    from ..errors import nearest

    if name not in PREPARATIONS:
        known = (*QUESTIONS, *CAPTIONS, *PREPARATIONS)
        raise DataError(f"{name!r} cannot be prepared; {', '.join(known)} can.{nearest(name, known)}")
    if len(files) != 1:
        raise DataError(f"{name} takes one folder, the one of its original download, not {len(files)}.")
    with progress_bar() as progress:
        done = write(name, files[0], every=lambda jobs: progress.track(jobs, total=len(jobs), description="Writing"))
    kept = f", {done.kept} were there already" if done.kept else ""
    typer.echo(f"{', '.join(map(str, done.folders))}: {done.new} files written{kept}")

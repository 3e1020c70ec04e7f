"""``promptseg groups``: the segments that a model forms before anything is named, and what a single group stands for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ..contracts import MAX_PIXELS
from .options import Device, MaxPixels, Mode, Precision, Vocabulary, listed, ready, synonyms, vocabulary
from .outputs import OutputFolder
from .progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..concepts import Fired
    from ..errors import ImageError
    from ..maps import GroupMap
    from ..segmenter import Segmenter

INCOMPLETE = 3
EPILOG = """[bold]Examples[/bold]

    promptseg groups photo.jpg

    promptseg groups photos/ --token 36

    promptseg groups photo.jpg --vis final_group,input_pred_label -c dog -c grass

    promptseg groups photo.jpg --vis input_pred_label --vocabulary context60-groupvit --background 0.35 --mode whole

Exit code 3: some photos could not be read; the others are done."""

Failed: TypeAlias = "Callable[[Path, ImageError], None]"

__all__ = ["groups"]


def groups(
    arguments: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos, folders and globs.")],
    token: Annotated[
        int | None,
        typer.Option(min=0, help="Show the photos in which this group fires most, as one sheet, instead of every photo's groups."),
    ] = None,
    vis: Annotated[
        str | None,
        typer.Option(
            help="Instead, pictures in the authors' modes, joined by commas: input, first_group, final_group, all_groups; and, with "
            "classes, pred, input_pred, input_pred_label."
        ),
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", "-c", help="A class, for the modes that name. Repeatable.")] = None,
    listing: Vocabulary = None,
    background: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of these classes: pixels up to this probability stay unlabelled.")
    ] = None,
    mode: Mode = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Only this stage; of a token the default is the first.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Photos on the sheet.")] = 12,
    model: Annotated[str, typer.Option("--model", "-m", help="A model with groups, or a checkpoint folder.")] = "groupvit-gcc-yfcc",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("groups"),
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Show the segments of photos before they are named, stage by stage; or the photos in which one group fires most."""
    from .photos import sort_arguments

    if vis is not None and (token is not None or stage is not None):
        raise typer.BadParameter("--vis draws every photo by itself: leave --token and --stage away; its modes name the stages.")
    if vis is None and (classes or (listing, background, mode) != (None, None, None)):
        raise typer.BadParameter("Classes are named in the modes of --vis only, such as --vis input_pred_label; or see promptseg semantic.")
    photos = sort_arguments(arguments, output=output, need_prompt=False)
    if photos.prompts:
        raise typer.BadParameter(f"{photos.prompts[0]!r} is no photo, folder or glob; groups are found before anything is named.")

    from ..concepts import fired_most
    from ..visualisation import MODES

    modes = listed(vis, MODES, "mode") if vis is not None else []
    named = synonyms([*vocabulary(listing), *(classes or ())])
    segmenter = ready(model, "groups", device=device, precision=precision, max_pixels=max_pixels)
    folders = OutputFolder(output, {"command": "groups"})
    failures: list[str] = []

    def failed(photo: Path, error: ImageError) -> None:
        failures.append(str(error) if str(photo) in str(error) else f"{photo}: {error}")

    try:
        if modes:
            asked = {"classes": named, "background": background, "options": segmenter.options(mode=mode)}
            _drawn(segmenter, photos.photos, modes, asked, folders, failed)
        elif token is None:
            _each(segmenter, photos.photos, stage, folders, failed)
        else:
            with progress_bar() as progress:
                looked = progress.track(photos.photos, description="Looking")
                fired = fired_most(segmenter, looked, token, stage=stage or 1, count=count, failed=failed)
            if len(failures) < len(photos.photos):
                _sheet(fired, output / f"stage-{stage or 1}-group-{token}.png")
    finally:
        for failure in failures:
            typer.echo(f"promptseg: {failure}", err=True)
    if failures:
        raise typer.Exit(INCOMPLETE)


def _each(segmenter: Segmenter, photos: tuple[Path, ...], stage: int | None, folders: OutputFolder, failed: Failed) -> None:
    """OUTPUT/PHOTO/stage-1.png (the photo with its groups in colours) and stage-1-labels.png (indices, palette), one pair per stage."""
    from ..errors import ConfigError, ImageError
    from ..masks import png

    for photo in photos:
        try:
            stages = segmenter.groups(photo)
        except ImageError as error:
            failed(photo, error)
            continue
        if stage is not None and stage > len(stages):
            raise ConfigError(f"stage is 1 to {len(stages)} for this model, not {stage}.")
        shown = {number: found for number, found in enumerate(stages, 1) if stage in (None, number)}
        pictures = {f"stage-{number}": png(found.overlay(legend=False)) for number, found in shown.items()}
        folder = _written(folders, photo, pictures | {f"stage-{number}-labels": found.to_png() for number, found in shown.items()})
        typer.echo(f"{photo}: {', '.join(_told(stages))} -> {folder}")


def _told(stages: Sequence[GroupMap]) -> Iterator[str]:
    """``stage 1: 9 groups``, ``stage 2: 2 groups (0 of 1 5 8 23, 6 of 2 3 7 11 40)``: numbers of the groups that own pixels, and of what
    they became a part.
    """
    parts: dict[int, list[int]] = {}
    for number, found in enumerate(stages, 1):
        made = ", ".join(f"{whole} of {' '.join(map(str, of))}" for whole, of in sorted(parts.items()))
        shown = found.areas.nonzero()[0].tolist()
        yield f"stage {number}: {len(shown)} groups" + (f" ({made})" if made else "")
        parts = {}
        for part in shown if found.parents else ():
            parts.setdefault(found.parents[part], []).append(part)


def _drawn(
    segmenter: Segmenter, photos: tuple[Path, ...], modes: list[str], asked: dict[str, Any], folders: OutputFolder, failed: Failed
) -> None:
    """OUTPUT/PHOTO/MODE.png; of all_groups one per stage. ``asked``: the rest of what `visualise` is told."""
    from ..errors import ImageError
    from ..masks import png
    from ..visualisation import visualise

    for photo in photos:
        try:
            pictures = visualise(segmenter, photo, modes, **asked)
        except ImageError as error:
            failed(photo, error)
            continue
        folder = _written(folders, photo, {name: png(picture) for name, picture in pictures.items()})
        typer.echo(f"{photo}: {', '.join(pictures)} -> {folder}")


def _written(folders: OutputFolder, photo: Path, pictures: Mapping[str, bytes]) -> Path:
    """PNGs by name, in the photo's own folder."""

    def save(draft: Path) -> None:
        for name, picture in pictures.items():
            (draft / f"{name}.png").write_bytes(picture)

    return folders.write(photo, [], save)


def _sheet(fired: Sequence[Fired], place: Path) -> None:
    """The sheet, and a line for each photo on it."""
    from ..concepts import sheet

    picture = sheet(fired)
    place.parent.mkdir(parents=True, exist_ok=True)
    picture.save(place)
    for one in fired:
        typer.echo(f"{one.photo}: share {one.score:.2f}, {one.area:.1%} of the photo")
    typer.echo(f"-> {place}")

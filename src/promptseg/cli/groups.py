"""``promptseg groups``: the segments that a model forms before anything is named, and what a single group stands for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ..contracts import MAX_PIXELS
from .options import Device, MaxPixels, Mode, Overwrite, Precision, Vocabulary, listed, ready, synonyms, vocabulary
from .outputs import OutputFolder, Row, model_stamp, stamp
from .progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..errors import PromptSegError
    from ..maps import GroupMap
    from ..segmenter import Segmenter

EPILOG = """[bold]Examples[/bold]

    promptseg groups photo.jpg

    promptseg groups photos/ --token 36

    promptseg groups photo.jpg --vis final_group,input_pred_label -c dog -c grass

    promptseg groups photo.jpg --vis input_pred_label --vocabulary context60-groupvit --background 0.35 --mode whole

[bold]What is written[/bold]

    groups/PHOTO/stage-1.png, groups/PHOTO/input_pred.png and so on; groups/stage-1-group-36/sheet.png for --token 36.
    A picture that is already there is not made again.
    Exit code 3: some photos could not be read or written; the others are done."""

Pictures: TypeAlias = "dict[str, dict[str, bytes]]"  # PNGs by name, of each question
Draw: TypeAlias = "Callable[[Path, Sequence[str]], tuple[str, Pictures]]"  # a photo, questions -> what to say of it, and their pictures

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
    count: Annotated[int | None, typer.Option(min=1, help="Photos on the sheet of --token; default: 12.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A model with groups, or a checkpoint folder.")] = "groupvit-gcc-yfcc",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path("groups"),
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Overwrite = False,
) -> None:
    """Show the segments of photos before they are named, stage by stage; or the photos in which one group fires most."""
    from .photos import sort_arguments

    if vis is not None and (token is not None or stage is not None):
        raise typer.BadParameter("--vis draws every photo by itself: leave --token and --stage away; its modes name the stages.")
    if token is None and count is not None:
        raise typer.BadParameter("--count is of the sheet that --token makes; without it leave --count away.")
    naming = bool(classes) or (listing, background, mode) != (None, None, None)
    if vis is None and naming:
        raise typer.BadParameter("Classes are named in the modes of --vis only, such as --vis input_pred_label; or see promptseg semantic.")
    photos = sort_arguments(arguments, output=output, need_prompt=False)
    if photos.prompts:
        raise typer.BadParameter(f"{photos.prompts[0]!r} is no photo, folder or glob; groups are found before anything is named.")

    from ..concepts import require_group
    from ..visualisation import MODES, NAMED

    modes = listed(vis, MODES, "mode") if vis is not None else []
    if naming and not set(modes) & set(NAMED):
        raise typer.BadParameter(
            f"--vis {vis} names nothing: add one of {', '.join(NAMED)}, or leave classes and what is said of them away."
        )
    named = synonyms([*vocabulary(listing), *(classes or ())])
    segmenter = ready(model, "groups", device=device, precision=precision, max_pixels=max_pixels)
    stages = require_group(segmenter, stage or 1, token or 0)
    request = {"command": "groups", "model": model_stamp(model)}
    if token is not None:
        _sheet(segmenter, photos.photos, {"token": token, "stage": stage or 1, "count": count or 12}, output, request, overwrite)
    elif modes:
        told = {"classes": named, "background": background, "mode": mode}
        asked = {"classes": named, "background": background, "options": segmenter.options(mode=mode)}
        questions = {name: request | {"vis": name} | (told if name in NAMED else {}) for name in modes}
        _pictures(photos.photos, partial(_drawn, segmenter, asked), output, questions, overwrite)
    else:
        shown = range(1, stages + 1) if stage is None else (stage,)
        questions = {f"stage-{number}": request | {"stage": number} for number in shown}
        _pictures(photos.photos, partial(_of_stages, segmenter), output, questions, overwrite)


def _pictures(photos: Sequence[Path], draw: Draw, output: Path, questions: Mapping[str, dict[str, Any]], overwrite: bool) -> None:
    """OUTPUT/PHOTO/NAME.png. Each question is done or not by itself; pictures that answer others stay beside its own."""
    from .batch import each, finish, told

    parts = {name: OutputFolder(output, request, beside=True) for name, request in questions.items()}
    lines: list[str] = []
    earlier = 0

    def take(photo: Path) -> None:
        nonlocal earlier
        wanted = [name for name, part in parts.items() if overwrite or part.done(photo) is None]
        line, pictures = draw(photo, wanted) if wanted else (", ".join(parts), {})
        for name, files in pictures.items():
            parts[name].write(photo, [], partial(_save, files))
        lines.append(f"{photo}: {line} -> {OutputFolder(output, {}).place(photo)}")
        earlier += not wanted

    failures = each(photos, take)
    for line in lines:
        typer.echo(line)
    if lines:
        told(len(lines), output, earlier)
    finish(failures)


def _save(pictures: Mapping[str, bytes], folder: Path) -> None:
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture)


def _of_stages(segmenter: Segmenter, photo: Path, wanted: Sequence[str]) -> tuple[str, Pictures]:
    """stage-1.png (the photo with its groups in colours) and stage-1-labels.png (indices, palette), one pair per stage."""
    from ..masks import png

    stages = segmenter.groups(photo)
    shown = {name: found for number, found in enumerate(stages, 1) if (name := f"stage-{number}") in wanted}
    pictures = {name: {name: png(found.overlay(legend=False)), f"{name}-labels": found.to_png()} for name, found in shown.items()}
    return ", ".join(_told(stages)), pictures


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


def _drawn(segmenter: Segmenter, asked: dict[str, Any], photo: Path, wanted: Sequence[str]) -> tuple[str, Pictures]:
    """MODE.png; of all_groups one per stage. ``asked``: the rest of what `visualise` is told."""
    from ..masks import png
    from ..visualisation import visualise

    made = {name: png(picture) for name, picture in visualise(segmenter, photo, wanted, **asked).items()}
    of = {mode: [name for name in made if name == mode or name.startswith(f"{mode}_layer")] for mode in wanted}
    return ", ".join(made), {mode: {name: made[name] for name in names} for mode, names in of.items()}


def _sheet(
    segmenter: Segmenter, photos: Sequence[Path], asked: dict[str, int], output: Path, request: dict[str, Any], overwrite: bool
) -> None:
    """OUTPUT/stage-1-group-36/sheet.png, and a line for each photo on it. ``asked``: token, stage and count."""
    from ..concepts import fired_most, sheet
    from .batch import failure, finish

    place = output / f"stage-{asked['stage']}-group-{asked['token']}.png"  # stands for the photo in the record
    failures: dict[Path, str] = {}

    def folder(shown: Sequence[Path]) -> OutputFolder:
        return OutputFolder(output, request | asked | {"photos": [[str(photo.resolve()), *stamp(photo)] for photo in shown]})

    def failed(photo: Path, error: PromptSegError) -> None:
        failures[photo] = failure(photo, error)

    rows = None if overwrite else folder(photos).done(place)
    if rows is None:
        with progress_bar() as progress:
            fired = fired_most(segmenter, progress.track(photos, description="Looking"), **asked, failed=failed)
        if failures and not fired:
            finish([*failures.values(), f"No photo is left in which group {asked['token']} of stage {asked['stage']} owns a pixel."])
        rows = [Row(str(one.photo), True, one.score, one.area) for one in fired]
        picture = sheet(fired)
        folder([photo for photo in photos if photo not in failures]).write(place, rows, lambda draft: picture.save(draft / "sheet.png"))
    for row in rows:
        typer.echo(f"{row.label}: share {row.score:.2f}, {row.area:.1%} of the photo")
    typer.echo(f"-> {folder(photos).place(place) / 'sheet.png'}")
    finish(list(failures.values()))

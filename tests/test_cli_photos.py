"""Which arguments are photos, where their results go, and when they count as done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptseg import images
from promptseg.cli.outputs import OutputFolder, Row
from promptseg.cli.photos import sort_arguments
from promptseg.errors import ExportError, ImageError, PromptError

ROWS = [Row("a dog", True, 0.9, 0.25)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """b.jpg, a.PNG, notes.txt, deep/Ünï cödé.webp; the current folder."""
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/Ünï cödé.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "photos", "prompts"),
    [
        (["b.jpg", "a dog"], ["b.jpg"], ["a dog"]),
        (["a dog", "b.jpg", "the grass", "b.jpg"], ["b.jpg"], ["a dog", "the grass"]),
        ([".", "x"], ["a.PNG", "b.jpg", "deep/Ünï cödé.webp"], ["x"]),
        (["deep", "x"], ["deep/Ünï cödé.webp"], ["x"]),
        (["*.jpg", "x"], ["b.jpg"], ["x"]),
        (["**/*", "x"], ["a.PNG", "b.jpg", "deep/Ünï cödé.webp"], ["x"]),
        (["b.jpg", "where is the dog?"], ["b.jpg"], ["where is the dog?"]),
        (["b.jpg", "[a dog]"], ["b.jpg"], ["[a dog]"]),
        (["typo.jpg", "x"], ["typo.jpg"], ["x"]),
        (["notes.txt", "x"], ["notes.txt"], ["x"]),
        (["deep\\Ünï cödé.webp", "x"], ["deep/Ünï cödé.webp"], ["x"]),
    ],
)
def test_files_folders_and_globs_are_photos_and_the_rest_prompts(
    folder: Path, arguments: list[str], photos: list[str], prompts: list[str]
) -> None:
    given = sort_arguments(arguments)
    assert [path.as_posix() for path in given.photos] == photos
    assert list(given.prompts) == prompts


def test_an_explicit_prompt_may_look_like_a_file(folder: Path) -> None:
    assert sort_arguments(["b.jpg"], ["deep"]).prompts == ("deep",)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["a dog"], ImageError, "No photo"),
        (["b.jpg"], PromptError, "No prompt"),
        (["empty", "x"], ImageError, "empty holds no photo"),
        (["*.gif", "x"], ImageError, "holds no photo"),
        (["b.jpg", "nosuchdir/", "x"], ImageError, "no folder nosuchdir/"),
        (["b.jpg", "nosuchdir\\", "x"], ImageError, "no folder"),
    ],
)
def test_what_is_missing_is_said(folder: Path, arguments: list[str], error: type[Exception], says: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(error, match=says):
        sort_arguments(arguments)


@pytest.mark.parametrize("arguments", [["b.jpg", "deep"], ["b.jpg", "grass", "x"]])
def test_a_prompt_that_is_also_a_name_is_told_the_way_out(folder: Path, arguments: list[str]) -> None:
    (folder / "grass").mkdir()
    with pytest.raises((ImageError, PromptError), match=rf"is given as --prompt '{arguments[1]}'\."):
        sort_arguments(arguments, option="--prompt")
    with pytest.raises(ImageError, match=r"only by name\.$"):
        sort_arguments(["./grass", "x"], option="--prompt")


def test_pictures_that_cannot_be_read_are_found_in_folders_so_that_they_are_told(folder: Path) -> None:
    for name in ("phone.HEIC", "web.avif", "new.jxl"):
        (folder / "deep" / name).write_bytes(b"\0\0\0\x18ftypheic")
    found = sort_arguments(["deep", "x"]).photos
    assert [path.name for path in found] == ["new.jxl", "phone.HEIC", "web.avif", "Ünï cödé.webp"]
    with pytest.raises(ImageError, match=r"phone\.HEIC is not a picture that can be read; save it as JPEG"):
        images.load(found[1])


def write(output: OutputFolder, photo: Path, name: str = "overlay.png") -> Path:
    def save(draft: Path) -> None:
        (draft / "masks").mkdir()
        (draft / "masks" / "000.png").write_bytes(b"mask")
        (draft / name).write_bytes(photo.read_bytes())

    return output.write(photo, ROWS, save)


def test_done_is_the_same_question_about_the_same_file(folder: Path) -> None:
    request, photo, out = {"prompts": ("a dog",)}, Path("b.jpg"), folder / "out"
    assert OutputFolder(out, request).done(photo) is None
    place = write(OutputFolder(out, request), photo)
    assert sorted(path.name for path in place.iterdir()) == ["done.json", "masks", "overlay.png"]
    assert OutputFolder(out, request).done(photo) == ROWS
    assert OutputFolder(out, {"prompts": ("a cat",)}).done(photo) is None
    (place / "masks" / "000.png").unlink()
    assert OutputFolder(out, request).done(photo) is None
    write(OutputFolder(out, request), photo)
    os.utime(photo, (1, 1))
    assert OutputFolder(out, request).done(photo) is None
    photo.unlink()
    assert OutputFolder(out, request).done(photo) is None


def test_another_question_replaces_its_files_and_leaves_yours(folder: Path) -> None:
    photo, out = Path("b.jpg"), folder / "out"
    place = write(OutputFolder(out, {"formats": "a"}), photo)
    (place / "my notes.txt").write_text("keep")
    write(OutputFolder(out, {"formats": "b"}), photo, "coco.json")
    assert sorted(path.name for path in place.iterdir()) == ["coco.json", "done.json", "masks", "my notes.txt"]


def test_photos_of_one_name_do_not_meet(folder: Path) -> None:
    others = [folder / name for name in ("one/dog.jpg", "two/dog.jpg", "two/dog.png", "two/DOG.jpg")]
    for photo in others:
        photo.parent.mkdir(exist_ok=True)
        photo.write_text(str(photo))
    places = [write(OutputFolder(folder / "out", {}), photo) for photo in others]  # as separate runs
    assert len(set(places)) == 4
    together = OutputFolder(folder / "out", {})
    assert [together.place(photo) for photo in reversed(others)] == places[::-1]
    for photo, place in zip(others, places, strict=True):
        assert (place / "overlay.png").read_text() == str(photo)


def test_coco_ids_are_numbers_where_photos_are_numbered(folder: Path) -> None:
    output = OutputFolder(folder / "out", {})
    assert [output.image_id(Path(name)) for name in ("000000000139.jpg", "b.jpg", "²3.jpg")] == [139, "b", "²3"]


def test_a_failure_leaves_no_trace(folder: Path) -> None:
    output = OutputFolder(folder / "out", {})

    def save(draft: Path) -> None:
        (draft / "overlay.png").write_bytes(b"half")
        raise ImageError("damaged")

    with pytest.raises(ImageError):
        output.write(Path("b.jpg"), ROWS, save)
    assert output.done(Path("b.jpg")) is None
    assert [path for path in (folder / "out").rglob("*") if path.is_file()] == []


def test_an_impossible_place_is_said(folder: Path) -> None:
    with pytest.raises(ExportError, match="-o"):
        write(OutputFolder(folder / "notes.txt", {}), Path("b.jpg"))


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"photo": 1}'])
def test_a_damaged_record_is_no_record(folder: Path, content: str) -> None:
    output = OutputFolder(folder / "out", {})
    (write(output, Path("b.jpg")) / "done.json").write_text(content)
    assert OutputFolder(folder / "out", {}).done(Path("b.jpg")) is None


def test_an_empty_argument_is_not_this_folder(folder: Path) -> None:
    """What a script gives whose variable is not set."""
    with pytest.raises(PromptError, match="empty"):
        sort_arguments(["b.jpg", "", "a dog"], ())

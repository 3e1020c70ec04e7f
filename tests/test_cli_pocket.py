"""Every command once from end to end with the built-in model and a real photo. Figures belong to `promptseg eval`: here a weak or a strong
model passes alike, as long as the command line says and writes what the library answers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import promptseg
import small_photosets
from command_line import Cli
from promptseg import Exemplar, Masks, Segmenter, SemanticMap, zoo

DOG = Path(__file__).parents[1] / "examples" / "dog.jpg"
SIZE = (270, 480)
BOX = (165, 115, 320, 205)  # around the dog


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return promptseg.load()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The current folder holds dog.jpg, and in photos/ a copy of it, its mirror image one folder deeper, and a file that breaks off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Path("photos/more").mkdir(parents=True)
    shutil.copy(DOG, "dog.jpg")
    shutil.copy(DOG, "photos/a dog.jpg")
    Image.open(DOG).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("photos/more/mirrored.webp")
    Path("photos/half.jpg").write_bytes(DOG.read_bytes()[:9000])
    return Cli(monkeypatch, capsys)


def table(out: str) -> list[list[str]]:
    """The cells of a printed table, line by line, without its head."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]


def row(mask: Any) -> list[str]:
    """How the summary shows a mask."""
    share = mask.area / (SIZE[0] * SIZE[1])
    return [mask.label, "yes" if mask.present and mask.area else "no", f"{mask.score:.2f}", f"{share:.1%}"]


# --- segment ------------------------------------------------------------------------------------------------------------------------------


def test_segment_writes_in_every_format_what_the_library_answers(cli: Cli, segmenter: Segmenter) -> None:
    box = ",".join(map(str, BOX))
    asked = ("a dog", "the grass", "--exemplar", "dog.jpg", box, "--negative", "a dark forest", "--threshold", "0.3")
    code, out, err = cli("segment", "dog.jpg", *asked, "-f", "overlay,png,coco,geojson,yolo,npz")
    assert (code, err) == (0, "")
    prompts = ["a dog", "the grass", Exemplar("dog.jpg", box=BOX)]
    answer = segmenter("dog.jpg", prompts, negative="a dark forest", threshold=0.3)
    assert table(out) == [["dog.jpg", *row(mask)] for mask in answer]

    folder = Path("out/dog")
    for found in (Masks.load(folder), Masks.load(folder / "masks.npz")):
        np.testing.assert_array_equal(found.to_numpy(), answer.to_numpy())
        np.testing.assert_allclose(found.scores, answer.scores, atol=1e-6)
    pictures = [np.asarray(Image.open(path)) > 0 for path in sorted((folder / "masks").iterdir())]
    np.testing.assert_array_equal(np.stack(pictures), answer.to_numpy())
    assert Image.open(folder / "overlay.png").size == SIZE[::-1]
    assert json.loads((folder / "coco.json").read_text()) == answer.to_coco(image_id="dog")
    features = json.loads((folder / "masks.geojson").read_text())["features"]
    assert [feature["properties"]["area"] for feature in features] == answer.areas.tolist()
    assert (folder / "yolo.txt").read_text() == answer.to_yolo()


def test_an_interrupted_directory_goes_on_where_it_stopped(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(self: Segmenter, photo: Path, *arguments: Any, **options: Any) -> Any:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(photo.name)
        return original(self, photo, *arguments, **options)

    original = Segmenter.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "__call__", ask)
        assert cli("segment", "photos", "a dog")[0] == 130
    assert asked == ["a dog.jpg"]
    before = Path("out/a dog/done.json").stat().st_mtime_ns

    code, out, err = cli("segment", "photos", "a dog")
    assert code == 3
    assert "2 photos in out (1 from an earlier run" in out
    assert [cells[0] for cells in table(out)] == ["a dog.jpg", "mirrored.webp"]
    (line,) = err.splitlines()
    assert line.startswith(f"promptseg: {Path('photos/half.jpg')}")
    assert sorted(path.name for path in Path("out").iterdir()) == ["a dog", "mirrored"]
    assert Path("out/a dog/done.json").stat().st_mtime_ns == before


# --- semantic -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [None, "0", "a dark forest"])
def test_semantic_writes_what_the_library_answers(cli: Cli, segmenter: Segmenter, background: str | None) -> None:
    options = () if background is None else ("--background", background)
    code, out, err = cli("semantic", "dog.jpg", "a dog", "grass", "a giraffe", *options, "-f", "overlay,png,coco,geojson,yolo,npz")
    assert (code, err) == (0, "")
    answer = segmenter.semantic("dog.jpg", ["a dog", "grass", "a giraffe"], background=0 if background == "0" else background)
    found = SemanticMap.load("maps/dog")
    np.testing.assert_array_equal(found.labels, answer.labels)
    assert [cells[1] for cells in table(out)] == [name for name in answer.classes if name != background]
    assert json.loads(Path("maps/dog/coco.json").read_text()) == answer.to_coco(image_id="dog")
    if background == "0":
        assert found.labels.min() >= 0
    if background is None:  # the card's rule: nothing is where none of the masks is
        masks = segmenter("dog.jpg", ["a dog", "grass", "a giraffe"]).to_numpy()
        np.testing.assert_array_equal(found.labels >= 0, masks.any(axis=0))


# --- what is there ------------------------------------------------------------------------------------------------------------------------


def test_models_and_info_tell_the_size_of_what_is_here(cli: Cli) -> None:
    (folder,) = zoo.weights("pocket")
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    _, out, _ = cli("models")
    first, second = (cells for cells in table(out) if cells[0] == "pocket")
    assert (first[3], second[3], first[4]) == (f"{megabytes:.0f} MB", "on disk", "built in")
    assert "603 MB" in out
    code, out, _ = cli("info", "pocket")
    facts = dict(re.findall(r"^(\w+) +(.+)$", out, re.MULTILINE))
    assert code == 0
    assert facts["size"].endswith(f"million parameters, {megabytes:.1f} MB on disk")
    assert facts["here"] == str(folder)
    assert facts["background"].startswith(f"{zoo.card('pocket').background}: ")
    assert "float32" in cli("info", "clipseg-rd64")[1]
    assert re.search(rf"^tensors +{len(zoo.read_weights(folder))}$", cli("info", str(folder))[1], re.MULTILINE)


def test_doctor_finds_the_built_in_model_without_a_network(cli: Cli, segmenter: Segmenter) -> None:
    code, out, err = cli("doctor")
    facts = dict(re.findall(r"^(\S+(?: \S+)*) {2,}(.+)$", out, re.MULTILINE))
    assert (code, err) == (0, "")
    assert facts["models here"] == "pocket"
    assert facts["device"].split()[0] == str(segmenter.device)
    assert facts["precision"].split()[0] == segmenter.precision
    assert facts["network"].startswith("offline")


# --- weights ------------------------------------------------------------------------------------------------------------------------------


def test_its_own_files_convert_to_a_folder_that_answers_alike(cli: Cli) -> None:
    (folder,) = zoo.weights("pocket")
    file = str(folder / "model.safetensors")
    code, _, err = cli("convert", file, "--as", "pocket")
    assert code == 1
    assert "--output" in err
    code, out, err = cli("convert", file, "--as", "pocket", "-o", "mine")
    assert (code, err) == (0, "")
    assert "--model mine" in out
    for model, output in (("pocket", "a"), ("mine", "b")):
        assert cli("segment", "dog.jpg", "a dog", "--model", model, "-o", output)[0] == 0
    np.testing.assert_array_equal(Masks.load("a/dog").to_numpy(), Masks.load("b/dog").to_numpy())
    code, _, err = cli("convert", file, "--as", "clipseg-rd64", "-o", "wrong")
    assert code == 1
    assert "not part of this model" in err
    assert not Path("wrong").exists()


def test_pull_and_verify_without_a_network_say_what_to_do(cli: Cli) -> None:
    code, out, err = cli("pull", "pocket")
    assert (code, err) == (0, "")
    assert str(zoo.weights("pocket")[0]) in out
    code, _, err = cli("pull", "clipseg-rd64")
    assert code == 1
    assert re.search(r"HF_HUB_OFFLINE is set.*put into \S*clipseg-rd64 model\.safetensors \(https://", err)
    code, _, err = cli("verify", "pocket")
    assert code == 1
    assert re.search(r"No outputs of 'pocket' are published.*clipseg-rd64", err)
    code, _, err = cli("verify", "clipseg-rd64")
    assert code == 1
    assert "promptseg pull clipseg-rd64" in err


# --- train and eval -----------------------------------------------------------------------------------------------------------------------


def test_train_explains_itself_and_names_the_recipe_that_was_meant(cli: Cli) -> None:
    code, out, _ = cli("train", "--help")
    assert code == 0
    for option in ("--output", "--resume"):
        assert option in out
    code, _, err = cli("train", "pocket/flim-only")
    assert code == 1
    assert "Did you mean 'pocket/film-only'" in err
    assert len(err.splitlines()) == 1


def test_eval_prints_the_table_of_figures(cli: Cli, tmp_path: Path) -> None:
    data = small_photosets.write(tmp_path / "data")
    code, out, err = cli("eval", "pocket", "--data", str(data))
    assert (code, err) == (0, "")
    rows = table(out)
    assert [cells[0].split(",")[0] for cells in rows] == [*["MSRC"] * 4, *["COCO"] * 3, "coco_person", "DAVIS from its text prompt", "MSRC"]
    assert all(-1 <= float(cells[1]) <= 1 for cells in rows)
    assert all((verdict in ("met", "missed")) if floor else not verdict for _, _, _, floor, _, verdict in rows)
    code, _, err = cli("eval", "pocket", "--data", "photos")
    assert code == 1
    assert "msrc" in err

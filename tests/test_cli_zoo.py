"""The commands about models, with a sixth family in the catalogue: small enough to convert, keep and use in a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy_family
from command_line import Cli
from promptseg import load, zoo
from promptseg.cli import doctor
from promptseg.contracts import Published
from promptseg.errors import ConfigError, UnknownModel, WeightsError, WeightsNotFound
from promptseg.zoo import hub

pytestmark = pytest.mark.usefixtures("sixth_family")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The current folder holds toy.pth, the toy's published weights, and photo.png; nothing is in the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.save({"toy.gain": torch.tensor(20.0)}, "toy.pth")
    Image.fromarray(toy_family.photo()).save("photo.png")
    return Cli(monkeypatch, capsys)


def test_models_lists_every_card_and_whether_it_is_here(cli: Cli) -> None:
    code, out, _ = cli("models")
    assert code == 0
    for card in zoo.cards():
        assert card.name in out
    toy = next(line for line in out.splitlines() if "toy" in line)
    assert "Apache-2.0" in toy
    assert "no" in toy.split()
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if "groupvit-gcc-yfcc" in line)
    last = next(number for number in range(first, len(lines)) if "groupvit-gcc-redcap" in lines[number])
    licences = " ".join(line.split("│")[-2].strip() for line in lines[first:last] if line.count("│") > 1)
    assert licences.count("non-commercial") == 2, "of the code, and of the weights"


def test_a_converted_file_is_used_by_name(cli: Cli) -> None:
    assert cli("segment", "photo.png", "red", "--model", "toy")[0] == 1
    code, out, err = cli("convert", "toy.pth", "--as", "toy")
    assert (code, err) == (0, "")
    assert "--model toy" in out
    assert cli("segment", "photo.png", "red", "--model", "toy")[0] == 0
    assert (np.asarray(Image.open("out/photo/masks/000-red.png")) > 0)[:, :17].all()
    toy = next(line for line in cli("models")[1].splitlines() if "toy" in line)
    assert "yes" in toy.split()


def test_a_converted_file_is_used_by_folder(cli: Cli) -> None:
    code, out, _ = cli("convert", "toy.pth", "--as", "toy", "-o", "mine")
    assert code == 0
    assert "--model mine" in out
    assert sorted(path.name for path in Path("mine").iterdir()) == ["config.json", "model.safetensors"]
    assert cli("segment", "photo.png", "red", "--model", "mine")[0] == 0


def test_conversion_is_strict(cli: Cli) -> None:
    torch.save({"toy.gain": torch.tensor(20.0), "toy.extra": torch.tensor(1.0)}, "toy.pth")
    code, _, err = cli("convert", "toy.pth", "--as", "toy")
    assert code == 1
    assert "toy.extra" in err
    assert "did you mean 'toy'" in cli("convert", "toy.pth", "--as", "toi")[2].lower()


def test_load_takes_names_folders_and_bare_files(cli: Cli) -> None:
    with pytest.raises(WeightsNotFound):
        load("toy")
    with pytest.raises(ConfigError, match="card="):
        load("toy.pth")
    image = toy_family.photo()
    from_file = load("toy.pth", card="toy", precision="float32")(image, "red")[0].mask
    zoo.convert(["toy.pth"], "toy", "mine")
    np.testing.assert_array_equal(load(Path("mine"), precision="float32")(image, "red")[0].mask, from_file)
    with pytest.raises(UnknownModel, match="Did you mean 'toy'"):
        load("toys")


def test_info_of_models_and_files(cli: Cli) -> None:
    code, out, _ = cli("info", "toy")
    assert code == 0
    assert "nobody's paper" in out
    assert "toy.pth" in out  # how to get it
    code, out, _ = cli("info", "toy.pth")
    assert code == 0
    assert "toy.gain ()" in out
    assert "float32" in out
    code, _, err = cli("info", "toyy")
    assert code == 1
    assert "Did you mean 'toy'" in err


def test_pull_without_network_says_which_file_to_put_where(cli: Cli) -> None:
    code, _, err = cli("pull", "toy")
    assert code == 1
    assert "toy.pth" in err
    assert str(Path("cache", "models", "toy")) in err


@pytest.mark.parametrize(("name", "offered"), [("clipseg-rd64", True), ("groupvit-gcc-yfcc", False), ("pocket", False)])
def test_pull_offers_to_verify_what_can_be(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, offered: bool) -> None:
    def download(published: Published, file: str, force: bool) -> Path:
        return Path(str(published.hub), file)

    monkeypatch.setattr(hub, "_fetch", download)
    code, out, err = cli("pull", name)
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}: licence of the weights: {zoo.card(name).weights_license}\n") is (name != "pocket")
    assert f"{name}: " in out
    assert (f"promptseg verify {name}" in out) is offered
    assert ("model.safetensors" in out) is (name != "pocket")


def test_verify_needs_published_values(cli: Cli) -> None:
    code, _, err = cli("verify", "toy.pth", "--as", "toy")
    assert code == 1
    assert "clipseg-rd64" in err  # a model that has some


@pytest.mark.parametrize("passed", [True, False])
def test_verify_says_whether_it_is_the_model(cli: Cli, monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    found = zoo.Verification("toy", (zoo.Check("logits", "nobody", 1e-5 if passed else 0.7, 1e-3),))
    monkeypatch.setattr(zoo, "verify", lambda *_, **__: found)
    code, out, err = cli("verify", "toy")
    assert code == (0 if passed else 1)
    assert ("These are the published weights" in out) is passed
    assert ("not the published weights" in err) is not passed


def test_doctor_names_what_a_report_needs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = cli("doctor")
    assert code == 0
    for word in ("promptseg", "torch", torch.__version__, "device", "precision", "cache", "offline: HF_HUB_OFFLINE", "models here"):
        assert word in out
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for reachable, says in ((True, "can be reached"), (False, "built-in and converted models work")):
        monkeypatch.setattr(doctor, "_reachable", lambda reachable=reachable: reachable)
        assert says in cli("doctor")[1]


# --- a sixth family is one folder ---------------------------------------------------------------------------------------------------------


def test_the_sixth_family_exports_its_weights_both_ways(cli: Cli) -> None:
    model = zoo.from_official("toy", {"toy.gain": torch.tensor(3.0)})
    assert list(zoo.to_official(model)) == ["toy.gain"]
    assert list(zoo.to_official(model, "hf")) == ["model.gain"]
    with pytest.raises(WeightsError, match=r"toy\.gain"):
        zoo.from_official("toy", {})


def test_the_sixth_family_trains_and_what_it_learnt_segments(cli: Cli) -> None:
    code, out, err = cli("train", "toy", "-o", "trained", "--seed", "3")
    assert (code, err) == (0, "")
    assert "step      0  mask" in out
    assert "step      1  mask" in out
    assert float(load("trained", precision="float32").model.gain) != 20
    assert cli("segment", "photo.png", "red", "--model", "trained")[0] == 0
    assert "--resume" in cli("train", "toy", "-o", "trained")[2]


def test_the_sixth_family_is_evaluated(cli: Cli) -> None:
    """On photos and masks of one's own; the first of two shows every colour as it is labelled, the second is labelled wrongly."""
    for name, order in (("right", (1, 2, 3)), ("wrong", (2, 3, 1))):
        Path("data/images").mkdir(parents=True, exist_ok=True)
        Path("data/masks").mkdir(exist_ok=True)
        Image.fromarray(toy_family.photo()).save(f"data/images/{name}.png")
        labels = np.array(order, dtype=np.uint8)[toy_family.photo().argmax(axis=2)]
        Image.fromarray(labels).save(f"data/masks/{name}.png")
    Path("data/classes.txt").write_text("red\ngreen\nblue\n")
    zoo.convert(["toy.pth"], "toy", "mine")
    code, out, _ = cli("eval", "own", "--model", "mine", "--data", "data", "-o", "table.json")
    assert code == 0
    found = {row["name"]: row["value"] for row in json.loads(Path("table.json").read_text())["rows"]}
    assert found["present names: mean IoU"] == pytest.approx(0.5, abs=0.05)
    assert "present names: mean IoU" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("train", "toi"), 1, "Did you mean 'toy'"),
        (("eval", "pocket"), 2, "--data"),
        (("eval", "own", "--data", ".", "--model", "nothing-like-it"), 1, "promptseg models"),
        (("eval", "poket", "--data", "."), 1, "Did you mean 'pocket'"),
        (("eval", "pocket", "mine", "--data", "."), 1, "--model"),
    ],
)
def test_impossible_runs(cli: Cli, arguments: tuple[str, ...], code: int, says: str) -> None:
    found, _, err = cli(*arguments)
    assert found == code
    assert says in err


def test_licences_are_seen_on_a_narrow_terminal() -> None:
    """Some of them forbid commercial use."""
    from typer.testing import CliRunner

    from promptseg.cli import app

    assert "NVIDIA" in CliRunner().invoke(app, ["models"], env={"COLUMNS": "40"}).output

"""The catalogue, our folder format, and where weights are found."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import small_clipseg
from command_line import Cli
from promptseg import models, zoo
from promptseg.devices import cache_folder
from promptseg.errors import ConfigError, UnknownModel, UnsafeFile, WeightsError, WeightsNotFound
from promptseg.models.clipseg.config import ClipSegConfig
from promptseg.zoo import hub
from promptseg.zoo.configs import from_plain, to_plain

NAME = "clipseg-rd64"
CARD = zoo.card(NAME)


@pytest.fixture(autouse=True)
def _small_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The catalogue with small networks, and caches of this test alone."""
    monkeypatch.setattr(models.family("clipseg"), "CARDS", small_clipseg.cards())
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def weights_of(model: Any) -> dict[str, Tensor]:
    return dict(model.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- catalogue --------------------------------------------------------------------------------------------------------------------------


def test_names_are_unique_and_a_near_one_is_offered() -> None:
    names = [card.name for card in zoo.cards()]
    assert len(set(names)) == len(names)
    assert {"pocket", NAME, "clipseg-rd16", "clipseg-rd64-refined"} <= set(names)
    with pytest.raises(UnknownModel, match="Did you mean 'clipseg-rd64'"):
        zoo.card("clipseg-r64")
    with pytest.raises(UnknownModel, match="promptseg models"):
        zoo.load("clipseg64")


def test_cards_say_what_a_user_must_know() -> None:
    for card in zoo.cards():
        assert card.tasks
        assert card.prompts
        assert 0 < card.threshold < 1
        assert card.code_license
        assert card.weights_license
        assert card.embedded or card.published or "not published" in card.summary
        assert card.preprocess == card.config.preprocess
        assert all(0 <= value <= 1 for value in card.metrics.values())
        assert zoo.config(card.name) is card.config


def test_the_catalogue_needs_no_torch() -> None:
    program = "import sys; from promptseg import zoo; [zoo.here(card.name) for card in zoo.cards()]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- configurations as JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pocket", NAME, "clipseg-rd64-refined", "clip-deconv", "vitseg"])
def test_configurations_survive_json(name: str) -> None:
    config = zoo.config(name)
    assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduce_din": 64}, "Did you mean 'reduce_dim'"),
        ({"reduce_dim": "64"}, "config.reduce_dim must be of type int"),
        ({"reduce_dim": True}, "config.reduce_dim must be of type int"),
        ({"taps": [1, 2.5]}, r"config.taps\[1\]"),
        ({"taps": 3}, "config.taps must be a list"),
        ({"reduce_cond": "many"}, "config.reduce_cond"),
        ({"image": {"width": 32}}, "config.image is incomplete"),
        ({"image": {"widht": 32}}, "config.image has an unknown key 'widht'"),
        ({"preprocess": {"size": 352, "fit": "crop"}}, "config.preprocess.fit must be 'stretch' or"),
        ({"preprocess": {"size": 352, "mean": [0, 0]}}, "a list of 3"),
        ({"image": None}, "config.image is a table"),
    ],
)
def test_misspelt_and_mistyped_settings_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(ClipSegConfig, to_plain(ClipSegConfig()) | change)


# --- folders ----------------------------------------------------------------------------------------------------------------------------


def test_a_folder_holds_everything_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    model = small_clipseg.model()
    folder = zoo.save_folder(model, tmp_path / "mein Modell – ü", NAME)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert same(load_file(folder / "model.safetensors"), weights_of(model))
    for found, card in (zoo.load_folder(folder), zoo.load(folder), zoo.load(str(folder), card=NAME)):
        assert same(weights_of(found), weights_of(model))
        assert card.name == NAME
        assert card.config == model.config == found.config
        assert not found.training


@pytest.mark.parametrize(
    ("place", "stays"), [("safetensors.torch.save_file", True), ("pathlib.Path.write_text", False), ("pathlib.Path.replace", False)]
)
def test_a_folder_that_is_written_anew_is_the_old_one_the_new_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, stays: bool
) -> None:
    first, second = small_clipseg.model(), small_clipseg.build(NAME).eval()
    with torch.no_grad():
        next(second.parameters()).add_(1)
    zoo.save_folder(first, tmp_path, NAME)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(OSError, match="no space left"):
            zoo.save_folder(second, tmp_path, NAME, trained="a run")
    if stays:
        found, card = zoo.load(tmp_path)
        assert card.weights_license == zoo.card(NAME).weights_license
        assert same(weights_of(found), weights_of(first))
    else:
        with pytest.raises(WeightsNotFound):
            zoo.load(tmp_path)
    zoo.save_folder(second, tmp_path, NAME, trained="a run")
    assert same(weights_of(zoo.load(tmp_path)[0]), weights_of(second))


def test_a_folder_keeps_its_own_configuration(tmp_path: Path) -> None:
    config = replace(zoo.config(NAME), reduce_dim=4)
    package = models.family("clipseg")
    zoo.save_folder(package.Model(config), tmp_path, NAME)
    assert zoo.load(tmp_path)[1].config.reduce_dim == 4


def test_weights_that_were_trained_here_have_a_card_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    converted = zoo.card_of(zoo.save_folder(small_clipseg.model(), tmp_path / "converted", NAME))
    assert replace(converted, config=zoo.card(NAME).config) == zoo.card(NAME)
    folder = zoo.save_folder(small_clipseg.model(), tmp_path / "own", NAME, trained="clipseg/mine")
    for card in (zoo.card_of(folder), zoo.load(folder)[1]):
        assert not card.metrics
        assert card.weights_license.startswith("trained here (clipseg/mine)")
        assert card.summary == "trained here (clipseg/mine)"
        assert card.code_license.startswith("Apache-2.0")
        assert card.parameters == sum(part.numel() for part in small_clipseg.model().parameters()) != zoo.card(NAME).parameters
        assert (card.name, card.published) == (NAME, ())
    _, said, _ = Cli(monkeypatch, capsys)("info", str(folder))
    assert "weights       trained here (clipseg/mine)" in said


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_a_folder_may_be_read_by_whom_the_umask_lets(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "any file").touch()
        zoo.save_folder(small_clipseg.model(), tmp_path, NAME)
    finally:
        os.umask(before)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_the_size_on_disk_is_that_of_the_weight_files() -> None:
    assert zoo.size_on_disk(NAME) is None
    files = write_published(zoo.own_folder(NAME), "official")
    assert zoo.size_on_disk(NAME) == sum(file.stat().st_size for file in files)
    folder = zoo.save_folder(small_clipseg.model(), zoo.own_folder("clipseg-rd16"), "clipseg-rd16")
    assert zoo.size_on_disk("clipseg-rd16") == (folder / "model.safetensors").stat().st_size
    (folder / "model.safetensors").unlink()
    assert zoo.size_on_disk("clipseg-rd16") is None


def test_folders_that_are_damaged_or_of_another_say_so(tmp_path: Path) -> None:
    folder = zoo.save_folder(small_clipseg.model(), tmp_path / "m", NAME)
    with pytest.raises(ConfigError, match="holds 'clipseg-rd64'"):
        zoo.load(folder, card="clipseg-rd16")
    about = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != "logit_scale"}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="logit_scale"):
        zoo.load_folder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"model\.safetensors"):
        zoo.load_folder(folder)
    for text in ("{", "[]", "{}", json.dumps({"model_type": "clipseg"})):
        (folder / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json"):
            zoo.load_folder(folder)
    (folder / "config.json").write_text(json.dumps(about | {"card": "clipseg-rd65"}))
    with pytest.raises(UnknownModel):
        zoo.load_folder(folder)


# --- published files --------------------------------------------------------------------------------------------------------------------


def write_published(folder: Path, layout: str) -> list[Path]:
    """The files of a published layout, with a small network's weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model = small_clipseg.model()
    if layout == "hf":
        save_file({name: tensor.contiguous() for name, tensor in zoo.to_official(model, "hf").items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "clipseg"}))
        return [folder / "model.safetensors"]
    for name, part in (("rd64-uni.pth", "decoder"), ("ViT-B-16.pt", "clip")):
        torch.save(zoo.to_official(model, part), folder / name)
    return [folder / "rd64-uni.pth", folder / "ViT-B-16.pt"]


@pytest.mark.parametrize("layout", ["hf", "official"])
def test_convert_makes_a_folder_of_published_files(tmp_path: Path, layout: str) -> None:
    files = write_published(tmp_path / "theirs", layout)
    folder = zoo.convert(files[::-1], NAME, tmp_path / "ours")
    assert same(weights_of(zoo.load(folder)[0]), weights_of(small_clipseg.model()))


def test_convert_takes_hugging_face_folders_and_names_what_does_not_fit(tmp_path: Path) -> None:
    write_published(tmp_path / "theirs", "hf")
    zoo.convert([tmp_path / "theirs"], NAME, tmp_path / "ours")
    with pytest.raises(WeightsError, match=r"transposed_convolution\.weight"):
        zoo.convert([tmp_path / "theirs"], "clipseg-rd64-refined", tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(UnknownModel):
        zoo.convert([tmp_path / "theirs"], "clipseg", tmp_path / "wrong")
    with pytest.raises(WeightsNotFound):
        zoo.convert([], NAME, tmp_path / "wrong")


def test_a_bare_file_needs_its_card_and_finds_its_companion(tmp_path: Path) -> None:
    decoder, clip = write_published(tmp_path, "official")
    with pytest.raises(ConfigError, match="card='NAME'"):
        zoo.load(decoder)
    found, card = zoo.load(decoder, card=NAME)
    assert same(weights_of(found), weights_of(small_clipseg.model()))
    assert card is zoo.card(NAME)
    clip.unlink()
    with pytest.raises(WeightsError, match=r"rd64-uni.pth and ViT-B-16.pt") as caught:
        zoo.load(decoder, card=NAME)
    assert any("token_embedding.weight" in name for name in caught.value.missing)


def test_a_file_of_a_known_checksum_is_compared_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(published.sha256.keys() == {"ViT-B-16.pt"} for published in CARD.published)
    decoder, clip = write_published(tmp_path, "official")
    sums = {"ViT-B-16.pt": hashlib.sha256(clip.read_bytes()).hexdigest()}
    official = [published for published in zoo.card(NAME).published if published.layout == "official"]
    card = replace(zoo.card(NAME), published=tuple(replace(published, sha256=sums) for published in official))
    monkeypatch.setattr(models.family("clipseg"), "CARDS", (card,))
    zoo.load_files([decoder, clip], NAME)
    torch.save(torch.load(clip, weights_only=True) | {"logit_scale": torch.tensor(1.0)}, clip)
    for files in ([decoder, clip], [decoder]):  # the second finds its companion by itself
        with pytest.raises(WeightsError, match=r"(?s)not the published ViT-B-16\.pt: its SHA-256.*Get it again.*another name"):
            zoo.load_files(files, NAME)
    assert clip.is_file()
    zoo.load_files([decoder, clip.rename(tmp_path / "mine.pt")], NAME)


def test_paths_that_do_not_exist() -> None:
    for path in ("no/such/folder", "weights.pth"):
        with pytest.raises(WeightsNotFound, match="no file or folder"):
            zoo.load(path)


# --- places -----------------------------------------------------------------------------------------------------------------------------


def test_what_is_not_here_is_described_with_file_and_folder() -> None:
    assert not zoo.here(NAME)
    for call in (zoo.load, zoo.weights, zoo.pull):
        with pytest.raises(WeightsNotFound) as caught:
            call(NAME)
        message = str(caught.value)
        for part in (f"promptseg pull {NAME}", "model.safetensors", "rd64-uni.pth and ViT-B-16.pt", str(cache_folder() / "models" / NAME)):
            assert part in message


@pytest.mark.parametrize("layout", ["hf", "official"])
def test_published_files_put_by_hand_are_found_by_name(layout: str) -> None:
    files = write_published(zoo.own_folder(NAME), layout)
    assert zoo.weights(NAME) == tuple(files)
    model, card = zoo.load(NAME)
    assert same(weights_of(model), weights_of(small_clipseg.model()))
    assert card is zoo.card(NAME)
    assert not zoo.here("clipseg-rd64-refined")


def test_a_converted_folder_is_found_by_name() -> None:
    folder = zoo.save_folder(small_clipseg.model(), zoo.own_folder(NAME), NAME)
    assert zoo.weights(NAME) == (folder,)
    assert same(weights_of(zoo.load(NAME)[0]), weights_of(small_clipseg.model()))


# --- downloads --------------------------------------------------------------------------------------------------------------------------


def fake_hub(monkeypatch: pytest.MonkeyPatch, files: dict[str, Path | Exception]) -> list[str]:
    """A Hub that has some files; returns the list of what was asked for."""
    asked: list[str] = []
    knock(monkeypatch, lambda url, *, timeout: None)

    def download(repository: str, file: str, *, force_download: bool) -> str:
        asked.append(f"{repository}/{file}")
        answer = files[file]
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def knock(monkeypatch: pytest.MonkeyPatch, head: Callable[..., None]) -> None:
    """How the Hub replies when it is asked whether it is there."""
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=head))


def test_pull_tries_the_published_files_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    files = {"model.safetensors": OSError("404, no such entry\nsecond line"), "pytorch_model.bin": tmp_path / "pytorch_model.bin"}
    asked = fake_hub(monkeypatch, files)
    assert zoo.pull(NAME) == (tmp_path / "pytorch_model.bin",)
    assert asked == ["CIDAS/clipseg-rd64/model.safetensors", "CIDAS/clipseg-rd64/pytorch_model.bin"]


def test_pull_brings_the_shards_of_an_index_and_the_tokenizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    index, merges = tmp_path / "model.safetensors.index.json", tmp_path / "merges.txt"
    index.write_text(json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}))
    missing = EntryNotFoundError("404")
    files: dict[str, Path | Exception] = {"pytorch_model.bin.index.json": missing, index.name: index, "tokenizer.json": missing}
    for path in (merges, tmp_path / "a.safetensors", tmp_path / "b.safetensors"):
        path.write_bytes(b"content")
        files[path.name] = path
    asked = fake_hub(monkeypatch, files)
    assert zoo.pull("psalm") == (index,)
    order = ["pytorch_model.bin.index.json", index.name, "tokenizer.json", "merges.txt", "a.safetensors", "b.safetensors"]
    assert asked == [f"EnmingZhang/PSALM/{file}" for file in order]
    index.write_text(json.dumps({"weight_map": {"x": "../secret.bin"}}))
    with pytest.raises(UnsafeFile):
        zoo.pull("psalm")


def test_a_sharded_download_that_stopped_half_way_is_not_here(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--EnmingZhang--PSALM"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    (snapshot / "a.safetensors").write_bytes(b"content")
    assert not zoo.here("psalm")
    (snapshot / "b.safetensors").write_bytes(b"content")
    assert zoo.here("psalm")


def test_pull_says_why_it_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    for error, reason in ((LocalEntryNotFoundError("x"), "no network"), (ConnectionError("reset by peer"), "reset by peer")):
        asked = fake_hub(monkeypatch, {"model.safetensors": error, "pytorch_model.bin": error})
        with pytest.raises(WeightsNotFound, match=f"(?s){reason}.*By hand: put into"):
            zoo.pull(NAME)
        assert len(asked) == (1 if reason == "no network" else 2)


def test_pull_gives_up_at_once_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client on a machine that finds no address: one attempt, no waiting for the next."""
    attempts = []

    def look_up(*address: Any, **_: Any) -> None:
        attempts.append(address[0])
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    with pytest.raises(WeightsNotFound, match=r"cannot be reached \(.*Name or service not known.*By hand: put into"):
        zoo.pull(NAME)
    assert len(attempts) == 1


def test_pull_is_patient_with_a_hub_that_is_slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class ReadTimeout(Exception):
        """As httpx and requests call a connection that stands and stays silent."""

    def silent(url: str, *, timeout: float) -> None:
        assert 0 < timeout <= 5
        raise ReadTimeout

    (tmp_path / "model.safetensors").write_bytes(b"weights")
    asked = fake_hub(monkeypatch, {"model.safetensors": tmp_path / "model.safetensors"})
    knock(monkeypatch, silent)
    assert zoo.pull(NAME) == (tmp_path / "model.safetensors",)
    assert asked == ["CIDAS/clipseg-rd64/model.safetensors"]


def test_pull_fetches_nothing_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_hub(monkeypatch, {})
    files = write_published(zoo.own_folder(NAME), "hf")
    assert zoo.pull(NAME) == tuple(files)
    assert asked == []


def test_weights_in_the_hub_cache_are_found(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--CIDAS--clipseg-rd64"
    (file,) = write_published(repository / "snapshots" / "abc", "hf")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert zoo.weights(NAME) == (file,)
    assert same(weights_of(zoo.load(NAME)[0]), weights_of(small_clipseg.model()))
    assert not zoo.here("clipseg-rd16")


def test_damaged_downloads_are_noticed_and_removed(tmp_path: Path) -> None:
    good = hashlib.sha256(b"good").hexdigest()
    blob = tmp_path / good  # as the Hub's cache names large files
    blob.write_bytes(b"good")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    hub.check(link, {})
    blob.write_bytes(b"bad")
    with pytest.raises(WeightsError, match="SHA-256"):
        hub.check(link, {})
    assert not blob.exists()
    known = tmp_path / "ViT-B-16.pt"
    known.write_bytes(b"bad")
    with pytest.raises(WeightsError, match="Pull again"):
        hub.check(known, {"ViT-B-16.pt": good})

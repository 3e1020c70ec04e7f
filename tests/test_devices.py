"""Device and precision: chosen by a measurement that is made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from promptseg import devices
from promptseg.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Measurements find a gain of 3; every one is noted. The cache is empty."""
    notes: list[str] = []
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "_measure", lambda device: notes.append(str(device)) or 3.0)
    return notes


def test_the_gain_is_measured_once_and_remembered(measured: list[str]) -> None:
    assert [devices.bfloat16_gain(CPU) for _ in range(3)] == [3.0] * 3
    assert measured == ["cpu"]


def test_another_torch_is_measured_anew(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    devices.bfloat16_gain(CPU)
    monkeypatch.setattr(torch, "__version__", "9.9")
    devices.bfloat16_gain(CPU)
    assert len(measured) == 2
    assert len(json.loads((devices.cache_folder() / "bfloat16.json").read_text())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": "text"}', "\x00\xff"])
def test_a_damaged_file_is_forgotten(measured: list[str], content: str) -> None:
    devices.cache_folder().mkdir()
    (devices.cache_folder() / "bfloat16.json").write_text(content, encoding="latin-1")
    assert [devices.bfloat16_gain(CPU) for _ in range(2)] == [3.0, 3.0]
    assert len(measured) == 1


def test_a_place_that_cannot_be_written_only_costs_the_measurement(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "file" / "below"))
    assert [devices.bfloat16_gain(CPU) for _ in range(2)] == [3.0, 3.0]
    assert len(measured) == 2


@pytest.mark.parametrize(
    ("gain", "precision", "dtype"),
    [
        (3.0, "auto", torch.bfloat16),
        (1.1, "auto", torch.float32),
        (3.0, "float32", torch.float32),
        (1.1, "bfloat16", torch.bfloat16),
        (1.1, "float16", torch.float16),
    ],
)
def test_precision(monkeypatch: pytest.MonkeyPatch, gain: float, precision: str, dtype: torch.dtype) -> None:
    monkeypatch.setattr(devices, "bfloat16_gain", lambda device: gain)
    assert devices.choose_precision(precision, CPU) == dtype


def test_the_measurement_is_a_sensible_number() -> None:
    assert 0.001 < devices._measure(CPU) < 1000


def test_wrong_names_offer_the_right_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'bfloat16'"):
        devices.choose_precision("bfloat", CPU)
    with pytest.raises(ConfigError, match="'cuda:99' is not on this machine"):
        devices.choose_device("cuda:99")
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        devices.choose_device("gpu")
    assert devices.choose_device(torch.device("cpu")) == CPU


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTSEG_CACHE", "here")
    assert devices.cache_folder() == Path("here")
    monkeypatch.delenv("PROMPTSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "there")
    assert devices.cache_folder() == Path("there/promptseg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert devices.cache_folder() == Path.home() / ".cache" / "promptseg"

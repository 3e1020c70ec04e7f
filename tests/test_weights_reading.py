"""Every format that weights come in, read; every file that wants more than that, refused without running anything of it."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from promptseg.errors import PromptSegError, UnsafeFile, WeightsError, WeightsNotFound
from promptseg.zoo import read_weights, reading
from promptseg.zoo.pickles import parse


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(4), nn.Linear(4, 4)
        self.mask = torch.ones(3, 3)  # neither parameter nor buffer: not in a state dict

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.norm(x)) + self.mask[0, 0]


class Network(nn.Module):
    """With a scalar, a shared module and a buffer, as CLIP has them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x) * self.scale + self.input_resolution


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(Network().state_dict())


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def raw(module: str, name: str, argument: str) -> bytes:
    """A protocol-0 pickle that calls module.name(argument)."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def archived(index: bytes, **entries: bytes) -> bytes:
    """A torch zip file with this pickle as its index."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", index)
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name.removeprefix('_')}", data)
    return buffer.getvalue()


# --- formats ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_torch_save_of_any_age(tmp_path: Path, state: dict[str, Tensor], zipped: bool, protocol: int) -> None:
    path = tmp_path / "weights – β.pth"
    torch.save(OrderedDict(state), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_views_types_and_empty_tensors(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(24.0).reshape(6, 4)
    tensors = {
        "transposed": base.t(),
        "rows": base[2:4],
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3),
        **{
            str(dtype): torch.ones(3).to(dtype)
            for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool)
        },
    }
    torch.save(tensors, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "w.pt")
    assert_same(found, tensors)
    assert found["transposed"].stride() == (1, 4)


def pages(path: Path) -> float:
    """MB of a mapped file that are in this process's memory."""
    return sum(part.rss for part in psutil.Process().memory_maps(grouped=False) if part.path == str(path)) / 1e6


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_another_dtype_is_made_without_keeping_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    tensors = {str(place): torch.full((2**18,), float(place)) for place in range(24)} | {"count": torch.tensor(3)}
    path, held = tmp_path / "weights", list[float]()
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    convert = reading._converted

    def watched(stored: Tensor, dtype: torch.dtype) -> Tensor:
        result = convert(stored, dtype)
        held.append(pages(path))
        return result

    monkeypatch.setattr(reading, "_converted", watched)
    halves = read_weights(path, torch.bfloat16)
    assert_same(halves, {name: one.bfloat16() if one.is_floating_point() else one for name, one in tensors.items()})
    assert len(held) >= 24
    assert max(held) < 4  # of 25
    assert pages(path) < 2
    assert_same(read_weights(path, torch.float32), tensors)


def test_one_tensor_under_many_names_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Tied tensors have two or three names, a hostile file any number of them."""
    path, one = tmp_path / "tied.pt", torch.ones(500_000)
    torch.save({str(number): one for number in range(4)}, path)
    assert_same(read_weights(path, torch.bfloat16), {str(number): one.bfloat16() for number in range(4)})
    torch.save({str(number): one for number in range(4000)}, path)
    with pytest.raises(WeightsError, match="same values over and over"):
        read_weights(path, torch.bfloat16)
    assert len(read_weights(path)) == 4000, "views of the file take nothing"


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, torch.zeros(2, 4))], ids=["script", "trace"])
def test_torchscript_archives_give_their_state_dict(tmp_path: Path, make: Callable[[nn.Module], Any]) -> None:
    torch.manual_seed(0)
    model = Network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(model).save(str(tmp_path / "clip.pt"))
    assert_same(read_weights(tmp_path / "clip.pt"), dict(model.state_dict()))


class Settings(dict):  # type: ignore[type-arg]
    """A configuration object such as training programs put beside their weights."""


def test_training_checkpoints_with_configuration_objects(tmp_path: Path, state: dict[str, Tensor]) -> None:
    nested = Settings(lr=0.1)
    nested.extra = {1, 2}  # type: ignore[attr-defined]
    checkpoint = {
        "epoch": 3,
        "best": np.float64(0.5),
        "args": argparse.Namespace(data=Path("somewhere"), sizes=(1, 2)),
        "cfg": nested,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "state_dict": {
            f"module.{name}": nn.Parameter(tensor, False) if tensor.is_floating_point() else tensor for name, tensor in state.items()
        },
    }
    torch.save(checkpoint, tmp_path / "latest.pth")
    assert_same(read_weights(tmp_path / "latest.pth"), state)


def test_safetensors_shards_and_folders(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "model.safetensors")
    assert_same(read_weights(tmp_path / "model.safetensors"), state)
    assert_same(read_weights(tmp_path), state)
    names = sorted(state)
    shards = {"a.safetensors": names[:4], "b.bin": names[4:]}
    folder = tmp_path / "sharded"
    folder.mkdir()
    save_file({name: state[name] for name in names[:4]}, folder / "a.safetensors")
    torch.save({name: state[name] for name in names[4:]}, folder / "b.bin")
    index = {"weight_map": {name: file for file, inside in shards.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(read_weights(folder), state)
    index["weight_map"]["lost"] = "a.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="lost"):
        read_weights(folder)


@pytest.mark.parametrize("target", ["../outside.bin", "/etc/passwd", "..\\outside.bin", "model.safetensors.index.json", ""])
def test_an_index_cannot_point_out_of_its_folder(tmp_path: Path, target: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": target}}))
    with pytest.raises(UnsafeFile, match="beside their index"):
        read_weights(tmp_path)


# --- what is no checkpoint --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"{}", "no index"),
        (b"[[[[", "not a checkpoint"),
        (b"\x80\x02.", "not a checkpoint"),
        (archived(b"\x80\x02."), "not a readable checkpoint"),
        (pickle.dumps({"a": 1}), "not a checkpoint"),
        (b"PK\x03\x04 broken", "damaged archive"),
        (struct.pack("<Q", 2**60) + b'{"a":1}', "safetensors"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(tmp_path / "file.pth")
    assert "file.pth" in str(caught.value)


def test_missing_files_archives_of_files_and_whole_networks(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"nothing\.pth"):
        read_weights(tmp_path / "nothing.pth")
    with pytest.raises(WeightsNotFound, match=r"model\.safetensors"):
        read_weights(tmp_path)
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.writestr("weights/rd64-uni.pth", b"")
    with pytest.raises(WeightsError, match=r"rd64-uni\.pth.*Unpack"):
        read_weights(tmp_path / "weights.zip")
    torch.save(Block(), tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="state_dict"):
        read_weights(tmp_path / "whole.pt")
    torch.save({"a": torch.zeros(1), "b": "text"}, tmp_path / "mixed.pt")
    with pytest.raises(WeightsError, match="no tensors: b"):
        read_weights(tmp_path / "mixed.pt")


# --- malice -----------------------------------------------------------------------------------------------------------------------------


def marker(folder: Path) -> str:
    return f"touch {folder / 'executed'}"


@pytest.mark.parametrize(
    "pickled",
    [
        lambda command: pickle.dumps(Calls(os.system, command)),
        lambda command: pickle.dumps({"state_dict": {"a": Calls(os.system, command)}}),
        lambda command: pickle.dumps({Calls(os.system, command): 1}),
        lambda command: pickle.dumps(Calls(eval, f"__import__('os').system('{command}')"), 2),
        lambda command: pickle.dumps(Calls(exec, f"import os; os.system('{command}')"), 5),
        lambda command: raw("builtins", "getattr", command),
        lambda command: raw("posix", "system", command),
        lambda command: raw("nt", "system", command),
        lambda command: raw("subprocess", "check_output", command),
        lambda command: raw("__builtin__", "execfile", command),
        lambda command: raw("builtins", "__import__", "os"),
        lambda command: raw("torch.serialization", "load", command),
        lambda command: raw("torch", "serialization.os.system", command),
        lambda command: raw("collections", "OrderedDict.__class__", command),
        lambda command: raw("runpy", "run_path", command),
        lambda command: raw("operator", "methodcaller", command),
        lambda command: f"(S'{command}'\nios\nsystem\n.".encode(),  # INST
        lambda command: f"(cos\nsystem\nV{command}\no.".encode(),  # OBJ
        lambda command: b"\x80\x04\x8c\x02os\x8c\x06system\x93." + command.encode(),  # STACK_GLOBAL, not even called
        lambda command: b"\x80\x02cos\nsystem\n0}.",  # dropped again
        lambda command: b"\x80\x02}(X\x01\x00\x00\x00aX\x01\x00\x00\x00bu\x82\x01.",  # extension registry
        lambda command: b"\x80\x02c__main__\nSettings\n)\x81}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb.",  # BUILD with a method
    ],
)
def test_files_that_want_code_to_run_are_refused(tmp_path: Path, pickled: Callable[[str], bytes]) -> None:
    data = pickled(marker(tmp_path))
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    for content in (archived(data), data, magic + data, magic + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + data):
        (tmp_path / "evil.pth").write_bytes(content)
        with pytest.raises(UnsafeFile, match=r"evil\.pth"):
            read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_unknown_functions_become_placeholders_and_are_not_called(tmp_path: Path) -> None:
    witness = "promptseg.zoo.reading"
    root, _ = parse(raw(witness, "read_weights", str(tmp_path / "missing")))
    assert root.of == f"{witness}.read_weights"
    (tmp_path / "evil.pth").write_bytes(archived(raw(witness, "read_weights", "x")))
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(tmp_path / "evil.pth")


def test_only_the_index_is_unpickled(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        archive.writestr("w/extra.pkl", pickle.dumps(Calls(os.system, marker(tmp_path))))
        archive.writestr("../../escape", b"x")
    assert_same(read_weights(tmp_path / "w.pth"), {"a": torch.ones(2)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.pth"]


class Storage:
    """Pickles as a reference to tensor memory."""

    def __init__(self, key: Any = "0", numel: Any = 4, kind: Any = torch.FloatStorage) -> None:
        self.identity = ("storage", kind, key, "cpu", numel)


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, Storage) else None


def tensor_file(storage: Storage, offset: Any, size: Any, stride: Any, memory: bytes = bytes(16), also: Any = ()) -> bytes:
    """A state dict of one tensor ``a``, and what is there ``also``."""
    buffer = io.BytesIO()
    view = Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    TorchPickler(buffer, 2).dump({"a": view} | dict(also))
    return archived(buffer.getvalue(), _0=memory)


@pytest.mark.parametrize(
    "content",
    [
        tensor_file(Storage(numel=2**40), 0, (2**40,), (1,)),  # promises a terabyte
        tensor_file(Storage(numel=5), 0, (5,), (1,)),
        tensor_file(Storage(), 1, (4,), (1,)),  # leaves its memory
        tensor_file(Storage(), 0, (2, 2), (3, 1)),
        tensor_file(Storage(), -4, (1,), (1,)),
        tensor_file(Storage(), 0, (2**40,), (0,)),  # one value that claims to be a terabyte
        tensor_file(Storage(), 0, (-1,), (1,)),
        tensor_file(Storage(), 0, (2, 2), (1,)),
        tensor_file(Storage(), 0, (1,) * 40, (1,) * 40),
        tensor_file(Storage(), 10**5000, (1,), (1,)),
        tensor_file(Storage(key="1"), 0, (1,), (1,)),
        tensor_file(Storage(key=["0"]), 0, (1,), (1,)),
        tensor_file(Storage(numel=-1), 0, (1,), (1,)),
        tensor_file(Storage(numel="4"), 0, (1,), (1,)),
        tensor_file(Storage(kind=OrderedDict), 0, (1,), (1,)),
        tensor_file(Storage(), 0, (2**47, 2**47, 0), (1, 1, 1)),  # empty, and yet too large
        tensor_file(Storage(), "0", (1,), (1,)),
        tensor_file(Storage(), 0, None, (1,)),
    ],
)
def test_tensors_cannot_leave_their_memory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "w.pth")


def test_the_hand_made_file_is_otherwise_good(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(tensor_file(Storage(), 1, (3,), (1,), struct.pack("<4f", 1, 2, 3, 4)))
    assert read_weights(tmp_path / "w.pth")["a"].tolist() == [2, 3, 4]


def test_zip_tricks_are_refused(tmp_path: Path) -> None:
    index = pickle.dumps({})
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):  # bombs need compression
        with zipfile.ZipFile(tmp_path / "bomb.pth", "w", compression) as archive:
            archive.writestr("archive/data.pkl", index)
            archive.writestr("archive/data/0", bytes(10**6))
        with pytest.raises(WeightsError, match="compressed"):
            read_weights(tmp_path / "bomb.pth")
    with zipfile.ZipFile(tmp_path / "twice.pth", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", index)
        archive.writestr("archive/data.pkl", index)
    with pytest.raises(WeightsError, match="two entries"):
        read_weights(tmp_path / "twice.pth")
    overlapping = bytearray(archived(index, _0=b"1234", _1=b"5678"))
    first, second = (overlapping.rfind(b"PK\x01\x02", 0, end) for end in (overlapping.rfind(b"PK\x01\x02"), len(overlapping)))
    overlapping[second + 42 : second + 46] = overlapping[first + 42 : first + 46]  # both at the same place
    (tmp_path / "overlap.pth").write_bytes(overlapping)
    with pytest.raises(WeightsError, match=r"overlaps|damaged"):
        read_weights(tmp_path / "overlap.pth")


def scripted(attributes: bytes) -> bytes:
    """A TorchScript module with these attributes, names and values in turn; ``h\\x00`` is the module itself."""
    return b"\x80\x02c__torch__\nM\n)\x81q\x00}(" + attributes + b"ub."


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x02" + b"(" * 1000 + b".",
        b"\x80\x02]" + b"q\x00" + b"\x86h\x00" * 5000 + b".",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",  # a list in a list in a list ...
        b"\x80\x02)" + b"\x85" * 100_000 + b"}q\x000h\x00\x86.",
        b"\x80\x02}X\x01\x00\x00\x00a" + b"2\x86" * 60 + b"2\x86" * 4 + b"K\x01s.",  # a key that takes 2**64 steps to hash
        b"\x80\x02r\xff\xff\xff\xff.",  # a memo of 32 GB
        b"\x80\x02]r\xff\xff\xff\xff.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 8 exabytes
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"L" + b"9" * 10_000 + b"L\n.",
        scripted(b"".join(b"V%d\nh\x00" % name for name in range(20_000))),  # a module that lists itself again and again
        scripted(b"Va\nh\x00"),
        scripted(b"Va\nh\x00" + b"V" + b"b" * 2_000_000 + b"\nh\x00"),
        scripted(b"K\x01h\x00"),
        b"\x80\x02ccollections\nOrderedDict\nq\x00((" + b"K\x01K\x01\x86" * 10_000 + b"lt" + b"q\x01" + b"h\x00h\x01R" * 10_000 + b".",
    ],
    ids=range(16),
)
def test_bombs_end_quickly_in_one_of_our_errors(tmp_path: Path, bomb: bytes) -> None:
    (tmp_path / "bomb.pth").write_bytes(archived(bomb))
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "bomb.pth")


def test_keys_of_a_dictionary_do_not_hash_alike() -> None:
    numbers = [count * (2**61 - 1) for count in range(1000)]  # each of which Python hashes to 0
    keys, _ = parse(pickle.dumps(dict.fromkeys([*numbers, 7, "a"]), 2))
    assert len({hash(key) for key in keys}) == 1002
    assert {0, 7, "a"} <= keys.keys()


def test_places_in_the_memo_do_not_hash_alike() -> None:
    with pytest.raises(WeightsError, match="garbled"):
        parse(b"".join(b"Np%d\n" % (count * (2**61 - 1)) for count in range(1000)) + b".")


def test_numbers_of_a_million_digits_are_told_apart_from_names(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for numbers in ({10**6000: 1}, {-(10**6000): 1, 2**70: 1}):
        path.write_bytes(tensor_file(Storage(), 0, (1,), (1,), also=numbers))
        with pytest.raises(WeightsError, match=rf"{len(numbers)} entries that are no tensors: \(huge number\)"):
            read_weights(path)
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(*legacy_keys(path, 10**6000)))
    with pytest.raises(WeightsError, match="list of memories"):
        read_weights(path)


def legacy_keys(path: Path, key: int) -> tuple[bytes, bytes]:
    """The list of memories in a file of the old format, and the same with another key."""
    data = path.read_bytes()
    stream = io.BytesIO(data)
    for _ in range(4):
        parse(stream)
    first = stream.tell()
    parse(stream)
    return data[first : stream.tell()], pickle.dumps([key], 2)


def seeds() -> list[bytes]:
    buffers = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        buffer = io.BytesIO()
        torch.save({"w": torch.arange(4.0), "n": {"cfg": argparse.Namespace(a=1)}}, buffer, **options)
        buffers.append(buffer.getvalue())
    return [*buffers, tensor_file(Storage(), 0, (4,), (1,))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(seeds()), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6), st.floats(0, 1))
def test_garbled_files_give_tensors_or_one_of_our_errors(
    tmp_path: Path, seed: bytes, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path / "fuzzed.pth"
    path.write_bytes(data[: int(keep * len(data))] if keep > 0.3 else data)
    with suppress(PromptSegError):
        assert all(isinstance(tensor, Tensor) for tensor in read_weights(path).values())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_pickle_or_an_error(data: bytes) -> None:
    for prefix in (b"", b"\x80\x04", b"\x80\x02}(X\x01\x00\x00\x00a"):
        with suppress(WeightsError):
            parse(prefix + data + b".")

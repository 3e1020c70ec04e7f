"""Shards, augmentations, and what a data loader may rely on."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import replicas
from promptseg.data.augment import Augmentation
from promptseg.data.catalogue import read
from promptseg.data.checks import inspect
from promptseg.data.items import PromptSample
from promptseg.data.own import annotated, own
from promptseg.data.own_checks import label_findings
from promptseg.data.phrasecut import phrase_cut_plus, phrases
from promptseg.data.randomness import Draws
from promptseg.data.shards import ShardStream, class_list, shard_files, shards, write_shards
from promptseg.errors import ConfigError, DataError
from promptseg.models.pocket.photos import in_memory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos in three shards."""
    write_shards(own(replicas.own_yolo(tmp_path / "own")), tmp_path / "shards", per_shard=1)
    return tmp_path / "shards"


# --- shards -----------------------------------------------------------------------------------------------------------------------------


def test_shards_hold_what_was_written(folder: Path, tmp_path: Path) -> None:
    before, after = own(tmp_path / "own"), shards(folder)
    assert after.classes == ("cup", "spoon")
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.image(), new.image())
        (masks, unknown), (read_masks, read_unknown) = old.masks(), new.masks()
        assert masks.keys() == read_masks.keys()
        assert all((masks[name] == read_masks[name]).all() for name in masks)
        np.testing.assert_array_equal(unknown, read_unknown)
    assert inspect(after).ok
    mine = own(folder)
    assert [sample.id for sample in mine] == [f"own-00000{place}/00000000{place}" for place in range(3)]
    assert not label_findings(folder)
    for one, other in zip(annotated(mine), annotated(before), strict=True):
        assert (one.present, one.absent) == (other.present, other.absent)
        np.testing.assert_array_equal(one.image(), other.image())
        assert torch.equal(in_memory(one).masks, in_memory(other).masks)
    again = write_shards(before, tmp_path / "again", per_shard=1)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in shard_files(folder)]
    (whole,) = write_shards(after, tmp_path / "whole")
    assert len(shards(whole.parent)) == 3
    with pytest.raises(DataError, match=r"whole holds shards-000000\.tar already.* Give an empty folder"):
        write_shards(before, whole.parent)


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_every_sample_goes_to_one_reader(folder: Path, readers: int) -> None:
    streams = [ShardStream(shard_files(folder), class_list(folder), reader=reader, readers=readers, seed=5) for reader in range(readers)]
    seen = [sample.id for stream in streams for sample in stream]
    assert sorted(seen) == sorted(sample.id for sample in shards(folder))


def test_streams_repeat_and_resume(folder: Path, tmp_path: Path) -> None:
    many = shards(folder)
    write_shards(type(many)("m", many.classes, many.samples * 5), tmp_path / "many", per_shard=4)
    stream = ShardStream(shard_files(tmp_path / "many"), many.classes, window=3)
    first = [sample.id for sample in stream]
    assert first == [sample.id for sample in stream]
    assert len(set(first)) == 15
    for skip in range(16):
        assert [sample.id for sample in stream.after(skip)] == first[skip:]
    stream.epoch = 1
    assert [sample.id for sample in stream] != first
    ordered = ShardStream(shard_files(tmp_path / "many")[:1], many.classes, window=1)
    assert [sample.id for sample in ordered] == sorted(sample.id for sample in ordered)


def test_the_page_shows_a_loop_that_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    (shown,) = (part.partition("```")[0] for part in page.split("```python\n") if "ShardStream(" in part.partition("```")[0])
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(shown, names)
    assert names["photo"].shape[:2] == names["unknown"].shape == replicas.COCO_SIZE
    assert names["stream"].epoch == 2


def test_damaged_shards_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 shards cannot be dealt to 4 readers"):
        ShardStream(shard_files(folder), (), readers=4)
    with pytest.raises(DataError, match=r"holds no .tar files"):
        shards(tmp_path)
    file = shard_files(folder)[0]
    (sample, *_) = shards(folder)
    with tarfile.open(folder / "z.tar", "w") as tar:
        tar.add(folder / "classes.txt", "000.json")
    with pytest.raises(DataError, match=r"z.tar: 000 has no photo"):
        shards(folder)
    (folder / "z.tar").unlink()
    content = bytearray(file.read_bytes())
    content[sample.note[0]] = ord("x")
    content[sample.photo[0] : sample.photo[0] + 4] = b"none"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"the masks of .* cannot be read"):
        sample.masks()
    with pytest.raises(DataError, match=r"the photo of .* cannot be read"):
        sample.image()
    file.write_bytes(b"not a tar file")
    with pytest.raises(DataError, match="must be complete and not compressed"):
        shards(folder)


# --- loaders ----------------------------------------------------------------------------------------------------------------------------


def _as_it_is(sample: PromptSample) -> PromptSample:
    return sample


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.parametrize("workers", [1, 2])
def test_items_do_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    data = phrase_cut_plus(phrases(replicas.phrasecut(tmp_path), "train"), image_size=16, seed=1)
    for data.epoch in (0, 1):
        loaded = DataLoader(data, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
        for mine, theirs in zip(data, loaded, strict=True):
            assert (mine.id, mine.prompt, mine.text_weight) == (theirs.id, theirs.prompt, theirs.text_weight)
            assert torch.equal(mine.image, theirs.image)


REPLICAS = {
    "phrasecut": (replicas.phrasecut, "train"),
    "voc": (replicas.voc, "val"),
    "pascal5i": (replicas.voc, "val"),
    "pascal-zero-shot": (replicas.voc, "val"),
    "coco20i": (replicas.coco20i, "val-0"),
    "coco-instances": (replicas.coco_instances, "val2017"),
    "coco-stuff": (replicas.coco_stuff, "val2017"),
    "coco-panoptic": (replicas.coco_panoptic, "val2017"),
    "lvis": (replicas.lvis, "train"),
    "ade150": (replicas.ade150, "validation"),
    "ade847": (replicas.ade847, "validation"),
    "context59": (replicas.context, "validation"),
    "context459": (replicas.context, "validation"),
    "own": (replicas.own_yolo, "all"),
}


@pytest.mark.parametrize("name", REPLICAS)
def test_every_set_is_whole_and_travels_to_workers(tmp_path: Path, name: str) -> None:
    build, split = REPLICAS[name]
    photos = read(name, build(tmp_path), split)
    assert inspect(photos).ok
    sent = pickle.loads(pickle.dumps(photos))
    (masks, unknown), (there, _) = photos[0].masks(), sent[0].masks()
    assert masks.keys() == there.keys()
    assert unknown.shape == photos[0].image().shape[:2]
    assert set(masks) <= set(photos.classes)


# --- augmentations ----------------------------------------------------------------------------------------------------------------------


def blob(height: int = 40, width: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """A white ellipse on black and its mask."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    mask = ((x - 0.2) ** 2 / 0.3 + y**2 / 0.4) < 1
    return (mask * 255).to(torch.uint8).expand(3, -1, -1), mask[None]


def test_the_default_changes_nothing() -> None:
    image, masks = blob()
    image = torch.randint(0, 256, image.shape, dtype=torch.uint8)
    result = Augmentation(size=(40, 60))(image, masks, Draws(0))
    torch.testing.assert_close(result.image, image / 255, atol=1e-4, rtol=0)
    assert torch.equal(result.masks, masks)
    assert result.inside.all()
    assert torch.equal(Augmentation()(image, masks, Draws(0)).image, result.image)


def test_mirroring() -> None:
    image, masks = blob()
    result = Augmentation(size=(40, 60), flip=1)(image, masks, Draws(0))
    assert torch.equal(result.masks, masks.flip(-1))
    torch.testing.assert_close(result.image, image.flip(-1) / 255, atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([(32, 32), (24, 50), (60, 30)]))
def test_masks_follow_the_photo(seed: int, size: tuple[int, int]) -> None:
    image, masks = blob()
    augment = Augmentation(size=size, scale=(0.5, 1.4), stretch=1.5, rotation=30, flip=0.5)
    result, again = (augment(image, masks, Draws(seed)) for _ in range(2))
    assert torch.equal(result.image, again.image)
    assert result.image.shape == (3, *size)
    assert result.masks.shape == (1, *size)
    bright = result.image[0] > 0.5
    assert (bright == result.masks[0])[result.inside].float().mean() > 0.97  # all but the edge, where one is smooth
    assert not result.masks[:, ~result.inside].any()


def test_colours_change_the_photo_alone() -> None:
    image, masks = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8), torch.rand(2, 20, 20) > 0.5
    for options in ({"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, {"grey": 1.0}):
        result = Augmentation(size=(20, 20), **options)(image, masks, Draws(1))
        assert not torch.allclose(result.image, image / 255, atol=0.01)
        assert result.image.min() >= 0
        assert result.image.max() <= 1
        assert torch.equal(result.masks, masks)
    assert (result.image.amax(0) - result.image.amin(0)).max() < 1e-5  # the last one is grey


@pytest.mark.parametrize("wrong", [{"flip": 2.0}, {"brightness": -1.0}, {"scale": (2.0, 1.0)}, {"stretch": 0.5}, {"size": (0, 4)}])
def test_impossible_augmentations(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
        Augmentation(**{"size": (8, 8), **wrong})

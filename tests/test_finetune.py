"""Fine-tuning from labels to a model and a table, with `pocket` at toy size."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import promptseg
import replicas
import small_photosets
import small_pocket
from command_line import Cli
from promptseg import zoo
from promptseg.contracts import Recipe
from promptseg.data.own import own
from promptseg.data.own_names import asked_of
from promptseg.data.photosets import AnnotatedPhoto
from promptseg.errors import ConfigError, DataError
from promptseg.evaluation import evaluate, protocol
from promptseg.models.denseclip.run import labelled
from promptseg.models.pocket.finetune import PRESETS, FineTune, adapted_parts, other_names
from promptseg.models.pocket.network import Model
from promptseg.models.pocket.text import with_pieces
from promptseg.training import finetune, finetuning, recipe
from promptseg.training.before_after import ClassRow, Report, measure
from promptseg.training.distributed import moved
from promptseg.training.files import with_words
from promptseg.training.lora import adapt, merged
from promptseg.training.own_photos import asked_for, checked, divided
from promptseg.training.own_run import drift
from small_photosets import folders

SMALL = ("options.size=64", "options.prompts=3", "batch_size=2", "save_every_s=0")
SIZE = small_photosets.SIZE


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that reads a few words."""
    torch.manual_seed(0)
    model = Model(small_pocket.CONFIG)
    model.text = with_pieces(small_pocket.PIECES, small_pocket.CONFIG.text_width)
    model.text.store(torch.randn(len(small_pocket.PIECES), small_pocket.CONFIG.text_width))
    return zoo.save_folder(model.eval(), tmp_path_factory.mktemp("start"), "pocket")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_photosets.write(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def tune(start: Path, tmp_path: Path) -> Callable[..., Report]:
    def run(data: Path, output: str = "out", **options: Any) -> Report:
        values = {"model": start, "output": tmp_path / output, "steps": 2, "changes": SMALL, "log": lambda line: None, **options}
        return finetune(data, **values)

    return run


def yolo(root: Path) -> Path:
    """Four photos to train on, two that their owner holds out; class 1 is in the former only."""
    lines = {"train": ("0", "1", "0", "1"), "val": ("0", "0")}
    for part, classes in lines.items():
        (root / "labels" / part).mkdir(parents=True)
        for index, number in enumerate(classes):
            replicas.photo(root / "images" / part / f"{part}{index}.jpg", SIZE, index)
            (root / "labels" / part / f"{part}{index}.txt").write_text(f"{number} 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8\n")
    (root / "data.yaml").write_text("names: [dog, cat]\n")
    return root


# --- end to end -------------------------------------------------------------------------------------------------------------------------

CHANGED = {  # a part that learns, a part that does not
    "head": ("taught.0.decoder.join.weight", "decoder.join.weight"),
    "lora": ("tower.stages.5.0.expand.conv.weight", "tower.stem.conv.weight"),
    "full": ("tower.stem.conv.weight", "text.table"),
}


@pytest.mark.parametrize(("form", "preset"), [("maps", "head"), ("coco", "lora"), ("yolo", "full")])
def test_every_form_and_preset_gives_a_model_and_a_table(
    form: str, preset: str, sets: Path, start: Path, tune: Callable[..., Report], tmp_path: Path
) -> None:
    data = {"maps": sets / "ccp", "coco": sets / "coco" / "instances.json"}.get(form) or yolo(tmp_path / "yolo")
    report = tune(data, preset=preset, changes=(*SMALL, "pictures_every=2"))
    names = {"maps": ("hat", "shoes"), "coco": ("cat", "dog", "person"), "yolo": ("cat", "dog")}[form]
    assert tuple(row.name for row in report.classes) == names
    old, new = (load_file(folder / "model.safetensors") for folder in (start, report.folder))
    learned, still = CHANGED[preset]
    assert {name for name in new if not name.startswith("taught.")} == old.keys()
    assert (new.keys() == old.keys()) == (preset != "head")
    assert not torch.equal(old[learned.removeprefix("taught.0.")], new[learned])
    assert torch.equal(old[still], new[still])
    photo = next((data if data.is_dir() else data.parent).rglob("*.jpg"))
    assert promptseg.load(report.folder)(photo, list(names)).to_numpy().shape == (len(names), *SIZE)
    assert json.loads((report.folder / "report.json").read_text())["preset"] == preset
    with Image.open(report.folder / "before-after.png") as picture:
        assert picture.size[0] == 3 * 328 + 8
    with Image.open(report.folder / "pictures" / "0000002.png") as picture:
        assert picture.size[0] == min(4, 2 * report.held_out) * 328 + 8


def test_it_learns_what_it_is_shown_and_its_average_is_told(tune: Callable[..., Report], tmp_path: Path) -> None:
    report = tune(folders(tmp_path / "data"), steps=60, changes=(*SMALL, "lr=5e-3", "save_every_s=60", "ema=null"))
    (row,) = report.classes
    assert row.after is not None
    assert row.before is not None
    assert row.after > row.before + 0.2
    assert f"| dog | {row.trained} | {row.held_out} | {row.before:.3f} | {row.after:.3f} | {row.after - row.before:+.3f} |" in str(report)
    assert report.after - report.before == pytest.approx(row.after - row.before)


class StoppedError(Exception):
    pass


@contextmanager
def _dies_after_the_first_step(steps: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    def report(step: int, figures: Mapping[str, float]) -> None:
        if step == 1:  # the first step's checkpoint is written
            raise StoppedError

    yield report


def test_a_stopped_run_resumes_bit_for_bit(tune: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folders(tmp_path / "data", names=("dog", "cat"))
    whole = tune(data, "whole", preset="lora", steps=3)
    with pytest.raises(StoppedError):
        tune(data, "cut", preset="lora", steps=3, progress=_dies_after_the_first_step)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    other = "float32" if finetuning._precision() == "bfloat16" else "bfloat16"
    monkeypatch.setattr(finetuning, "_precision", lambda: other)  # another machine, or another measurement
    resumed = tune(data, "cut", preset="lora", steps=None, resume=True)
    assert resumed.steps == 3
    log = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert resumed.seconds == pytest.approx(sum(step["seconds"] for step in log)), "of both parts"
    assert len(log) == 3
    first, second = (load_file(report.folder / "model.safetensors") for report in (whole, resumed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert resumed.classes == whole.classes


def test_a_run_goes_on_with_its_own_settings_only(tune: Callable[..., Report], tmp_path: Path) -> None:
    data = folders(tmp_path / "data", names=("dog", "cat"))
    tune(data, steps=1)
    with pytest.raises(DataError, match="--resume"):
        tune(data, steps=1)
    for options, why in (
        ({"classes": ["dog"]}, r"names: .* begun with \['cat', 'dog'\], not \['dog'\]"),
        ({"classes": {"dog": ["dog", "cat"], "cat": ["cat"]}}, "photos: .* begun with other photos, labels or classes"),
        ({"seed": 5}, "seed: .* begun with 0, not 5"),
        ({"steps": 2}, "steps: .* begun with 1, not 2"),
        ({"steps": None, "minutes": 3}, "minutes: .* begun with None, not 3"),
        ({"changes": (*SMALL, "lr=1")}, "changes: .*, not .*'lr=1'"),
    ):
        with pytest.raises(ConfigError, match=why):
            tune(data, **{"resume": True, "steps": 1, **options})
    label = data / "masks" / "cat" / "1.png"
    before = label.read_bytes()
    replicas.labels(label, np.eye(*SIZE, dtype=np.uint8))
    with pytest.raises(ConfigError, match=r"photos: .* begun with other photos, labels or classes"):
        tune(data, steps=1, resume=True)
    label.write_bytes(before)
    (tmp_path / "out" / "finetune.json").write_text("{")
    with pytest.raises(DataError, match=r"finetune.json cannot be read"):
        tune(data, resume=True)


def test_minutes_become_steps(tune: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(_plan(), seconds=0.5)
    monkeypatch.setattr(finetuning, "measure_step", lambda recipe, run: plan)
    report = tune(folders(tmp_path / "data"), steps=None, minutes=2 / 60)
    assert report.steps == 4
    assert tune(tmp_path / "data", steps=None, minutes=2 / 60, resume=True).steps == 4


def _plan() -> Any:
    from promptseg.training.estimate import Plan

    return Plan(recipe=PRESETS["head"], total=1, groups=(), seconds=1.0, memory_mb=1.0, losses={})


def test_the_evaluation_asks_what_is_taught(start: Path, tmp_path: Path) -> None:
    data = folders(tmp_path / "data", names=("dog", "hot_dog", "cat"))
    classes = "hot dog=hot_dog, animal=dog+cat"
    photos = asked_for(checked(data, lambda line: None), asked_of(classes))
    segmenter = promptseg.load(start)
    table = evaluate(protocol("own", data, classes=classes), segmenter, resamples=0)
    told = measure(segmenter, photos, ("hot dog", "animal"))
    assert table.classes["IoU over the set"] == pytest.approx(told.classes)
    unsaid = evaluate(protocol("own", data), segmenter, resamples=0)
    assert {*unsaid.classes["IoU over the set"]} == {"cat", "dog", "hot dog"}
    with pytest.raises(ConfigError, match="no class 'horse'"):
        evaluate(protocol("own", data, classes=["horse"]), segmenter)


def test_names_and_folders_in_any_script(tune: Callable[..., Report], tmp_path: Path) -> None:
    data = folders(tmp_path / "Fötos 写真")
    (data / "masks" / "dog").rename(data / "masks" / "Hündchen_à")
    report = tune(data, "Ausgäbe 出力", classes={"dog": ["Hündchen_à"]}, steps=1)
    assert [row.name for row in report.classes] == ["dog"]
    assert promptseg.load(tmp_path / "Ausgäbe 出力").card.name == "pocket"


def test_a_fine_tuned_model_can_be_tuned_again(tune: Callable[..., Report], tmp_path: Path) -> None:
    data = folders(tmp_path / "data")
    first = tune(data, "first", steps=1)
    second = tune(data, "second", steps=1, model=first.folder)
    assert second.classes[0].before == first.classes[0].after


def test_what_is_not_taught_is_answered_as_before_to_the_last_bit(tune: Callable[..., Report], start: Path, tmp_path: Path) -> None:
    first = tune(folders(tmp_path / "dogs"), "first", changes=(*SMALL, "lr=1e-2"))
    second = tune(folders(tmp_path / "cats", names=("cat",)), "second", model=first.folder, changes=(*SMALL, "lr=1e-2"))
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = ["dog", "cat", "grass", "person"]
    with torch.no_grad():
        models = [zoo.load(folder)[0] for folder in (start, first.folder, second.folder)]
        old, one, two = ([model(pixels, [name]).logits for name in names] for model in models)
    assert [not torch.equal(*pair) for pair in zip(old, one, strict=True)] == [True, False, False, False]
    assert [not torch.equal(*pair) for pair in zip(one, two, strict=True)] == [False, True, False, False]
    assert first.kept == 1


def test_the_tower_does_not_move_below_what_was_taught_on_it(tune: Callable[..., Report], tmp_path: Path) -> None:
    data = folders(tmp_path / "data")
    first = tune(data, "first", steps=1)
    with pytest.raises(ConfigError, match="no other preset may change that now"):
        tune(data, "second", model=first.folder, preset="full")


# --- labels -----------------------------------------------------------------------------------------------------------------------------


def test_wrong_labels_stop_before_anything_is_trained(tune: Callable[..., Report], tmp_path: Path) -> None:
    data = replicas.own_maps(tmp_path / "own", values=(0, 2, 3))
    (data / "images" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"not fit for training: .*ids out of range.*a\.png holds \[3\]") as told:
        tune(data)
    assert "label maps without a photo in images" in str(told.value)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_classes_without_photos_are_told_and_left_out(sets: Path, tmp_path: Path) -> None:
    data = folders(tmp_path / "data", names=("dog", "cat"))
    table = tmp_path / "labels.json"
    replicas.write_json(table, {**json.loads((sets / "coco" / "instances.json").read_text()), "categories": [
        {"id": 1, "name": "person"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 4, "name": "horse"},
    ]})  # fmt: skip
    (tmp_path / "images").symlink_to(sets / "coco" / "images")
    notes: list[str] = []
    parts = divided(asked_for(checked(table, notes.append), None), table)
    assert parts.names == ("cat", "dog", "person")
    assert any("classes that no photo shows: horse" in note for note in notes)
    (data / "masks" / "horse").mkdir()
    with pytest.raises(DataError, match="classes whose folder is empty: horse"):
        checked(data, notes.append)


def test_a_class_that_no_held_out_photo_shows_has_no_figures(tune: Callable[..., Report], tmp_path: Path) -> None:
    report = tune(yolo(tmp_path / "data"), steps=1)
    cat, dog = report.classes
    assert (cat.before, cat.after, cat.held_out) == (None, None, 0)
    assert dog.before is not None
    assert report.before == dog.before
    assert "| cat | 2 | 0 | - | - | - |" in str(report)


def _photo(name: str, *present: str) -> AnnotatedPhoto:
    absent = tuple({"a", "b", "c"} - {*present})
    masks = {one: np.full((2, 2), one == "a") for one in present}
    return AnnotatedPhoto("own", name, Path(name), present, absent, lambda: (masks, np.zeros((2, 2), bool)))


@pytest.mark.parametrize(("after", "told"), [((0.9, 0.4), False), ((0.84, 0.4), True), ((0.1, 0.2), True)])
def test_classes_that_lost_are_named(after: tuple[float, float], told: bool, tmp_path: Path) -> None:
    rows = [ClassRow("dog", 3, 2, 0.9, after[0]), ClassRow("cat", 3, 2, 0.2, after[1]), ClassRow("cow", 3, 0, None, None)]
    report = Report(tmp_path, "pocket", "head", 5, 1.0, 9, 4, tuple(rows), ())
    assert ("\n\nWorse than before: dog. " in str(report)) == told


def test_the_division_is_the_same_in_any_order_and_leaves_every_class_to_learn() -> None:
    photos = [_photo(f"p{index}", *"ab" if index % 3 else "a") for index in range(19)] + [_photo("rare", "c")]
    parts = divided(photos, Path())
    assert len(parts.held_out) == 5
    assert parts.names == ("a", "b", "c")
    assert "rare" in {photo.id for photo in parts.train}
    assert {photo.id for photo in divided(photos[::-1], Path()).held_out} == {photo.id for photo in parts.held_out}
    own = divided([*photos, _photo("val/x", "a")], Path())
    assert [photo.id for photo in own.held_out] == ["val/x"]


@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_photos_of_a_folder_test_are_not_trained_on(form: str, tmp_path: Path) -> None:
    data = yolo(tmp_path / "test" / "data")  # a folder above the data is no part of it
    replicas.photo(data / "images" / "test" / "x.jpg", SIZE, 9)
    (data / "labels" / "test").mkdir()
    (data / "labels" / "test" / "x.txt").write_text("1 0.25 0.2 0.75 0.2 0.75 0.8\n")
    if form == "coco":
        data = as_coco(data, tmp_path / "test" / "labels.json")
    notes: list[str] = []
    parts = divided(asked_for(checked(data, notes.append), None), data)
    assert [photo.path.parent.name for photo in (*parts.train, *parts.held_out)] == ["train"] * 4 + ["val"] * 2
    assert notes[-1] == "note: photos in a folder test, which are left out, for you to measure on afterwards: 1"
    assert [photo.path.name for photo in own(data, "test")] == ["x.jpg"]


def as_coco(data: Path, file: Path) -> Path:
    """The same in one COCO file for all parts."""
    photos = enumerate(own(data))
    images = [{"id": n, "file_name": str(one.path.relative_to(file.parent)), "height": SIZE[0], "width": SIZE[1]} for n, one in photos]
    things = [{"id": one["id"], "image_id": one["id"], "category_id": 1, "iscrowd": 0, "segmentation": replicas.POLYGON} for one in images]
    replicas.write_json(file, {"images": images, "annotations": things, "categories": [{"id": 1, "name": "dog"}]})
    return file


@pytest.mark.parametrize("photos", [[], [_photo("one", "a")], [_photo("one"), _photo("two")]])
def test_too_little_to_learn_from(photos: list[AnnotatedPhoto]) -> None:
    with pytest.raises(DataError, match="two photos at least"):
        divided(photos, Path())


def test_classes_are_joined_chosen_and_said_in_words() -> None:
    (photo,) = asked_for([_photo("x", "a", "b")], {"both": ["a", "b"], "third": ["c"], "one_or_none": ["b", "c"]})
    masks, _ = photo.masks()
    assert (photo.present, photo.absent) == (("both", "one_or_none"), ("third",))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"both": 4, "one_or_none": 0}
    named = AnnotatedPhoto("own", "y", Path("y"), ("wine-glass_2",), (), lambda: ({}, np.zeros((1, 1), bool)))
    assert asked_for([named], None)[0].present == ("wine glass 2",)
    assert asked_for([_photo("x", "a")], ["a"])[0].present == ("a",)
    twins = replace(
        named,
        present=("wine-glass", "wine_glass"),
        read_masks=lambda: ({"wine-glass": np.eye(2) > 0, "wine_glass": np.eye(2) < 1}, np.eye(2) > 2),
    )
    assert asked_for([twins], None)[0].masks()[0]["wine glass"].all()
    with pytest.raises(ConfigError, match=r"no class 'd'.*It has: a, b, c"):
        asked_for([_photo("x", "a")], ["d"])


# --- the family's part ------------------------------------------------------------------------------------------------------------------


def _run(start: Path, tmp_path: Path, names: tuple[str, ...]) -> FineTune:
    recipe = with_words(PRESETS["head"], ["options.size=64"])
    photos = checked(folders(tmp_path / "data"), lambda line: None)
    model = zoo.load(start)[0]
    assert isinstance(model, Model)
    return FineTune(recipe, model, photos, names)


def test_names_must_be_words_that_differ(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"knows none in '\?\?'.*--classes"):
        _run(start, tmp_path / "1", ("dog", "??"))
    with pytest.raises(ConfigError, match=r"'DOG' and 'dog' alike"):
        _run(start, tmp_path / "2", ("dog", "DOG"))


def test_other_names_mean_nothing_of_the_data_and_some_are_never_trained(start: Path, tmp_path: Path) -> None:
    run = _run(start, tmp_path, ("dog", "grass"))
    assert {*run.found} <= {*run.others}
    assert run.unasked
    assert run.others
    assert not {*run.unasked} & {*run.others}
    assert not {"dog", "grass"} & {*run.unasked, *run.others}
    assert {*run.unasked, *run.others} == {*other_names(run.model.text, ("dog", "grass"))}


def test_names_that_pocket_knew_are_not_the_heads_though_they_are_near(tmp_path: Path) -> None:
    photos = checked(folders(tmp_path / "data", names=("cars", "tree")), lambda line: None)
    model = zoo.load("pocket")[0]
    assert isinstance(model, Model)
    FineTune(PRESETS["head"], model, photos, ("cars", "tree"))
    prompts = ("cars", "car", "a parked car", "trees", "truck", "potted plant", "flower")
    assert model._answering(model.text(prompts)).tolist() == [0, 0, 0, 0, -1, -1, -1]


def test_a_head_of_its_own_is_asked_no_other_names(tune: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"options\.others=0"):
        tune(folders(tmp_path / "data"), changes=(*SMALL, "options.others=1"))


def test_the_penalty_for_change_is_nothing_at_first_and_grows() -> None:
    before = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 5
    assert drift(before, before).item() == pytest.approx(0, abs=1e-6)
    assert 0 < drift(before + 0.1, before) < drift(before + 1, before)


def test_adapters_change_nothing_at_first_and_disappear_when_merged(start: Path) -> None:
    model = zoo.load(start)[0]
    assert isinstance(model, Model)
    pixels, names = torch.randn(1, 3, 64, 64), list(model.state_dict())
    with torch.no_grad():
        plain = model(pixels, ["dog"]).logits
        adapt(model, adapted_parts(model), 2)
        assert torch.allclose(model(pixels, ["dog"]).logits, plain)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.add_(0.02)
        changed, whole = model(pixels, ["dog"]).logits, merged(model)
        assert not torch.allclose(changed, plain)
        assert list(whole.state_dict()) == names
        assert torch.allclose(whole(pixels, ["dog"]).logits, changed, atol=1e-3)
    assert any("lora_A" in name for name, _ in model.named_parameters())


def test_batches_go_to_the_device_whole(start: Path, tmp_path: Path) -> None:
    photos = checked(folders(tmp_path / "data", names=("dog", "cat")), lambda line: None)
    recipe = with_words(PRESETS["full"], ["options.size=64", "options.prompts=3", "options.others=2"])
    run = FineTune(recipe, zoo.load(start)[0], photos, ("cat", "dog"))  # type: ignore[arg-type]
    batch = run.collate([run.example(number) for number in range(4)])
    assert [len(names) for names in batch.names] == [5] * 4
    assert batch.targets.shape == (4, 3, 64, 64)
    assert torch.equal(batch.present, batch.targets.flatten(2).any(-1))
    assert {len({*names[:3]}) for names in batch.names} == {2}, "with two names one is asked for again"
    assert moved(batch, torch.device("meta")).known.device.type == "meta"
    assert moved(batch, torch.device("meta")).photos == batch.photos


def test_a_name_that_few_photos_show_is_denied_as_seldom(start: Path, tmp_path: Path) -> None:
    photos = checked(folders(tmp_path / "data", names=("grass", "dog", "cat", "cat", "cat", "cat"), count=12), lambda line: None)
    recipe = with_words(PRESETS["head"], ["options.size=64", "options.prompts=2", "options.others=0"])
    run = FineTune(recipe, zoo.load(start)[0], photos, ("cat", "dog", "grass"))  # type: ignore[arg-type]
    asked = [run.example(number) for number in range(160)]
    denied = Counter(example.names[1] for example in asked if example.names[0] == "grass" and example.present[0])
    assert denied["cat"] > 2 * denied["dog"] > 0, "eight photos show a cat, two a dog"


@pytest.mark.parametrize(("prompts", "others"), [(1, 0), (4, 1)])
def test_any_number_of_names_may_be_asked(prompts: int, others: int, start: Path, tmp_path: Path) -> None:
    photos = checked(folders(tmp_path / "data"), lambda line: None)
    recipe = with_words(PRESETS["full"], ["options.size=64", f"options.prompts={prompts}", f"options.others={others}"])
    run = FineTune(recipe, zoo.load(start)[0], photos, ("dog",))  # type: ignore[arg-type]
    losses = run.losses(run.collate([run.example(number) for number in range(2)]))
    assert ("kept" in losses) == bool(others)
    assert all(torch.isfinite(value) for value in losses.values())
    assert not others or losses["kept"].abs() < 1e-5, "nothing has changed yet"


# --- refusals and the command line ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "why"), [("catseg-base", "COCO-Stuff"), ("denseclip-fpn-r50", "part of its network"), ("groupvit-gcc-yfcc", "captions"),
                       ("psalm", "files of questions")]
)  # fmt: skip
def test_what_cannot_be_tuned_says_why_and_what_can(model: str, why: str, tune: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"'{model}' cannot be fine-tuned.*{why}.*Families that can be: clipseg, pocket\.") as told:
        tune(tmp_path, model=model)
    command = re.search(r"`promptseg train ([\w/-]+)", str(told.value))
    assert command is not None
    assert family_of(recipe(command[1])) == zoo.card(model).family


def family_of(named: Recipe) -> str:
    return zoo.card(named.card).family


def test_the_recipe_for_label_maps_of_ones_own_reads_them(sets: Path) -> None:
    told = with_words(recipe("denseclip/msrc"), ["options.config.classes=[hat, shoes]"])
    photos = [labelled(sets / "ccp", told.options, split) for split in ("training", "validation")]
    assert photos[0][0].classes == ("hat", "shoes")
    assert sum(map(len, photos)) == 10


@pytest.mark.parametrize(
    ("change", "argument"),
    [("data=x", "DATA"), ("output=x", "--output"), ("card=clipseg-rd64", "--model"), ("name=x", "--model"), ("steps=3", "--steps"),
     ("seed=1", "--seed")],
)  # fmt: skip
def test_arguments_are_no_settings(change: str, argument: str, tune: Callable[..., Report], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{change.partition('=')[0]} is no setting of the preset: say it by {argument}"):
        tune(tmp_path / "data", changes=(*SMALL, change))
    assert not (tmp_path / "out").exists()


def test_the_model_to_begin_with_is_not_written_over(start: Path, tune: Callable[..., Report], tmp_path: Path) -> None:
    weights = (start / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="holds the model to begin with"):
        tune(folders(tmp_path / "data"), output=str(start))
    assert (start / "model.safetensors").read_bytes() == weights


def test_what_a_preset_lacks_is_told(tune: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no preset 'heed'.*head"):
        tune(tmp_path, preset="heed")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"promptseg\[lora\]"):
        tune(folders(tmp_path / "data"), preset="lora")


@pytest.mark.parametrize("name", ["finetune.json", "report.json", "before-after.png"])
def test_a_full_disk_is_told(name: str, tune: Callable[..., Report], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{name}.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=rf"{name} could not be written: the disk is full"):
        tune(folders(tmp_path / "data"), steps=1)
    assert not (tmp_path / "out" / name).exists()


def test_the_command_line(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(monkeypatch, capsys)
    data = folders(tmp_path / "data", names=("dog", "cat"))
    given = ("--model", str(start), "-o", str(tmp_path / "out"), "--classes", "dog, animal = cat+dog", "--steps", "1", *SMALL)
    code, out, err = cli("finetune", str(data), *given)
    assert code == 0, err
    assert "2 held out; 2 classes: animal, dog" in out
    assert "| class | trained on | held out | IoU before | after | change |" in out
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8").strip() in out
    code, _, err = cli("finetune", str(data), "--steps", "1", "--minutes", "1")
    assert (code, err) == (1, "promptseg: Give --steps or --minutes, not both.\n")


def test_the_help_shows_how(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = Cli(monkeypatch, capsys)("finetune", "--help")
    assert code == 0
    assert all(word in out for word in ("--preset", "head", "lora", "full", "--classes", "--minutes", "--resume", "COCO JSON"))


@pytest.mark.parametrize("words", ["", "a,,b", "=b", "a=", "a=b+", "a,a"])
def test_classes_on_the_command_line_must_be_readable(words: str) -> None:
    with pytest.raises(ConfigError, match="WORDS=NAME"):
        asked_of(words)


def test_classes_on_the_command_line() -> None:
    assert asked_of("hair, trousers=pants+jeans") == {"hair": ("hair",), "trousers": ("pants", "jeans")}

"""`pocket` from photographs to weights and back, at toy size: batches, a run that is stopped and resumed, loading, the protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils._pytree import tree_map

import other_device
import promptseg
import small_photosets
import small_pocket
from promptseg.contracts import Recipe
from promptseg.data import photosets
from promptseg.data.asked_crops import Batch, collate
from promptseg.data.captions import Captioned
from promptseg.errors import ConfigError
from promptseg.evaluation import Pocket, evaluate
from promptseg.evaluation.pocket import exemplars_of
from promptseg.models.pocket import recipes, start
from promptseg.models.pocket import run as pocket_run
from promptseg.models.pocket.batches import Examples
from promptseg.models.pocket.losses import alignment_loss, mask_losses
from promptseg.models.pocket.photos import DISTINCT, _with_riders, in_memory
from promptseg.models.pocket.vocabulary import COMPOSED, ELSEWHERE, RARE_WITH_PEOPLE, overlapping, own_wordings, wordings
from promptseg.training import checkpoints, stages, train
from promptseg.training.distributed import moved
from promptseg.training.schedules import Cosine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_photosets.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pocket.stand_in(monkeypatch)


def _recipe(data: Path, output: Path, **changes: Any) -> Recipe:
    options = replace(recipes.first().options, config=small_pocket.CONFIG, size=64, first_steps=0, prompts=4)
    values = {"steps": 4, "batch_size": 4, "save_every_s": 0.0, "schedule": Cosine(), **changes}
    return replace(recipes.first(), data=str(data), output=str(output), options=options, **values)


class StoppedError(Exception):
    pass


def _stop_after(wanted: int) -> Any:
    def report(step: int, figures: Mapping[str, float]) -> None:
        assert set(figures) - {"rate", "seconds", "memory_mb"} == {"mask", "dice", "presence", "alignment"}
        if step == wanted:
            raise StoppedError

    return report


def test_a_stopped_run_resumes_bit_for_bit_and_loads(data: Path, tmp_path: Path) -> None:
    whole = train(_recipe(data, tmp_path / "whole", pictures_every=4), log=lambda line: None)
    with Image.open(whole / "pictures" / "0000004.png") as sheet:
        assert sheet.size[0] == 4 * 328 + 8
    with pytest.raises(StoppedError):
        train(_recipe(data, tmp_path / "cut"), report=_stop_after(1), log=lambda line: None)
    resumed = train(_recipe(data, tmp_path / "cut"), resume=True, log=lambda line: None)
    first, second = load_file(whole / "model.safetensors"), load_file(resumed / "model.safetensors")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    segmenter = promptseg.load(resumed)
    photo = data / "coco" / "images" / "0.jpg"
    masks = segmenter(photo, ["dog", "the grass"])
    assert masks.to_numpy().shape == (2, 48, 64)
    assert promptseg.load(whole)(photo, "dog").scores == pytest.approx(masks.scores[:1])


def test_a_further_training_goes_on_from_the_one_before_with_what_that_one_finds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People and dogs that captions speak of; weights, words and all else of the network before, which is trained unless it is there."""
    small = _recipe(data, tmp_path, steps=1)
    shares = recipes.second().options.shares
    further = replace(small, name="pocket/further", options=replace(small.options, after="pocket/first", shares=shares), seed=3)
    monkeypatch.setitem(recipes.RECIPES, "pocket/first", lambda: small)
    monkeypatch.setitem(recipes.RECIPES, "pocket/further", lambda: further)
    monkeypatch.setattr(start, "SCORE", 0.0)
    monkeypatch.setattr(start, "SURE", 0.0)
    options = replace(further.options, after="pocket/further")
    recipe = replace(further, options=options, seed=1)
    with pytest.raises(ConfigError, match="promptseg train pocket/further"):
        pocket_run.PocketRun(recipe, log=lambda _: None)
    folder = tmp_path / "further"
    assert [(Path(stage.output), stage.seed) for stage in stages(recipe)] == [(folder / "first", 0), (folder, 0), (tmp_path, 1)]
    seen: list[int] = []
    assert (train(recipe, report=lambda step, _: seen.append(step), log=lambda line: None) / "model.safetensors").is_file()
    assert seen == [0, 0, 0]
    assert stages(recipe) == [recipe], "the others are done"
    run = pocket_run.PocketRun(recipe, log=lambda _: None)
    for name, value in promptseg.load(folder, precision="float32").model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name
    found = [photo for photo in run.examples.photos if photo.source == "flickr8k"]
    assert [photo.id for photo in found] == [str(index) for index in range(6) if not photosets.is_validation(str(index))]
    assert all((photo.names, photo.absent) == (("dog",), ("person",)) for photo in found)
    other = replace(options, config=replace(options.config, blocks=2))
    with pytest.raises(ConfigError, match="another form"):
        pocket_run.PocketRun(replace(recipe, options=other), log=lambda _: None)
    with pytest.raises(ConfigError, match=r"no recipe 'pocket/frist'.*pocket/first"):
        stages(replace(recipe, options=replace(options, after="pocket/frist")))


def test_the_published_weights_come_of_four_trainings(tmp_path: Path) -> None:
    listed = stages(replace(recipes.pocket(), output=str(tmp_path)))
    assert [stage.name for stage in listed] == ["pocket/first", "pocket/second", "pocket/third", "pocket"]
    assert [stage.seed for stage in listed] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("captions", "level", "score", "names"),
    [
        (("A man runs .", "Somebody outside .", "A dog .", "His dogs ."), 0.9, 0.9, ("person", "dog")),
        (("A man runs .", "A boy .", "The sea ."), 0.9, 0.9, ("person",)),
        (("A man runs .", "The sea ."), 0.9, 0.9, None),  # one caption may be wrong
        (("The sea .", "Waves ."), 0.9, 0.9, None),
        (("A man runs .", "A boy ."), 0.5, 0.9, None),  # sure of nothing
        (("A man runs .", "A boy ."), 0.9, 0.7, None),
    ],
)
def test_what_captions_say_is_taken_where_the_network_is_sure(
    captions: tuple[str, ...], level: float, score: float, names: tuple[str, ...] | None, data: Path
) -> None:
    shown = Captioned("0", data / "flickr8k" / "images" / "0.jpg", captions)
    maps = np.zeros((48, 64), np.float32)
    maps[:10], maps[10:20] = level, 0.4

    def answer(photo: np.ndarray, wanted: list[str]) -> list[Any]:
        return [SimpleNamespace(probabilities=maps, score=score) for _ in wanted]

    found = start.labelled([shown], answer)  # type: ignore[arg-type]
    assert [photo.names for photo in found] == ([] if names is None else [names])
    for photo in found:
        assert photo.masks[0].float().mean() == pytest.approx(10 / 48)
        assert photo.unknown.float().mean() == pytest.approx(10 / 48)
        assert photo.absent == tuple(name for name in start.SAID if name not in photo.names)


def test_it_trains_on_another_device_than_the_cpu(data: Path, tmp_path: Path) -> None:
    """The same losses there, with words, and with regions of other photos, remembered or given back by a checkpoint."""
    recipe = _recipe(data, tmp_path, ema=None)
    recipe = replace(recipe, options=replace(recipe.options, exemplars=1.0))
    runs = [pocket_run.PocketRun(recipe, log=lambda _: None) for _ in range(2)]
    other_device.moved(runs[1].model)
    shown = 0
    for step in range(3):
        batch = runs[0].collate([runs[0].example(number) for number in range(4 * step, 4 * step + 4)])
        found = []
        with other_device.there():
            for run, part in zip(runs, (batch, moved(batch, other_device.DEVICE)), strict=True):
                found.append({name: other_device.here(value.detach()) for name, value in run.losses(part).items()})
        torch.testing.assert_close(found[1], found[0])
        shown += sum(len(photos) > 1 for photos in runs[0].bank.values())
        if step == 1:
            checkpoints.save(tmp_path / "bank.safetensors", tree_map(other_device.here, runs[1].state()))
            runs[1].load_state(checkpoints.load(tmp_path / "bank.safetensors"))
    assert shown, "some names were shown by another photo"


def test_the_protocol_measures_every_row(data: Path, tmp_path: Path) -> None:
    folder = train(_recipe(data, tmp_path, steps=1), log=lambda line: None)
    seen: list[str] = []
    rows = evaluate(Pocket(data), promptseg.load(folder), lambda what, done, total: seen.append(what))
    assert len(rows) == 10
    assert all(-1 <= row.value <= 1 for row in rows)
    assert set(seen) == {"MSRC", "COCO", "people", "DAVIS", "one-shot"}
    limited = [row for row in rows if row.floor is not None]
    assert len(limited) == 8
    assert all(row.passed == (row.value <= row.floor if row.smaller else row.value >= row.floor) for row in limited)


def _examples(data: Path, shares: Mapping[str, float]) -> Examples:
    photos = [in_memory(photo) for photo in pocket_run.training_photos(data)]
    names = {name for photo in photos for name in (*photo.names, *photo.absent)}
    generator = torch.Generator().manual_seed(0)
    vectors = {
        name: torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
        for name in sorted(names | {*ELSEWHERE, *RARE_WITH_PEOPLE})
    }
    return Examples(photos, shares, vectors, size=96, first_size=64, first_steps=30, batch_size=6, prompts=5, paste=0.5, seed=0)


@pytest.fixture
def examples(data: Path) -> Examples:
    return _examples(data, recipes.first().options.shares)


def _batch(examples: Examples, step: int) -> Batch:
    return collate([examples(number) for number in range(step * 6, step * 6 + 6)])


def test_an_example_depends_on_its_number_alone(examples: Examples) -> None:
    later, first, again = _batch(examples, 5), _batch(examples, 0), _batch(examples, 5)
    assert torch.equal(later.pixels, again.pixels)
    assert later.names == again.names
    assert torch.equal(later.targets, again.targets)
    assert not torch.equal(later.pixels, first.pixels)


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [
        ({"coco": 1.0}, "nothing of .*msrc"),
        (dict.fromkeys(recipes.first().options.shares, 0.0), "lets 0 photographs be drawn"),
        ({**recipes.first().options.shares, "coco": -1.0}, "options.shares lets"),
        ({**recipes.first().options.shares, "coco": float("nan")}, "options.shares lets"),
    ],
)
def test_shares_that_draw_nothing_are_refused(data: Path, shares: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        _examples(data, shares)


def test_crops_grow_and_photos_come_in_the_stated_shares(examples: Examples) -> None:
    assert [_batch(examples, step).pixels.shape[-1] for step in (29, 30)] == [64, 96]
    drawn = Counter(photo.source for photo in (examples.photo(number) for number in range(3000)))
    expected = {photo.source: recipes.first().options.shares[photo.source] for photo in examples.photos}
    for source, share in expected.items():
        assert drawn[source] / 3000 == pytest.approx(share / sum(expected.values()), abs=0.12)


@pytest.mark.parametrize("step", range(20))
def test_every_batch_is_sound(examples: Examples, step: int) -> None:
    batch = _batch(examples, step)
    assert batch.pixels.shape == (6, 3, 64, 64)
    assert batch.pixels.min() >= 0
    assert batch.pixels.max() <= 1
    assert batch.targets.shape == (6, 5, 64, 64)
    assert set(batch.targets.unique().tolist()) <= {0.0, 1.0}
    for b, photo in enumerate(batch.photos):
        source = photo.split("/")[0]
        for k, name in enumerate(batch.names[b]):
            assert batch.present[b, k] or not batch.targets[b, k].any(), "an absent name has no pixels"
            clash = [other for j, other in enumerate(batch.names[b]) if batch.present[b, j] and not batch.present[b, k]]
            assert not any(overlapping(name, other, source in DISTINCT) for other in clash)
        shown = [name for k, name in enumerate(batch.names[b]) if batch.present[b, k]]
        denied = [name for k, name in enumerate(batch.names[b]) if not batch.present[b, k]]
        assert not set(shown) & set(denied)


def test_people_are_made_of_their_parts(data: Path) -> None:
    photos = photosets.label_maps(data / "ccp", "ccp", zero_is_known=True)
    loaded = in_memory(photos[0])
    person = loaded.masks[loaded.names.index("person")]
    assert torch.equal(person, loaded.masks.amax(0))


def test_a_photo_of_a_person_denies_nothing_that_its_annotators_did_not_look_for(data: Path, examples: Examples) -> None:
    photo = in_memory(photosets.people(data / "coco_person")[0])
    assert photo.names == ("person",)
    assert photo.absent == ()
    rng = np.random.default_rng(0)
    for _ in range(20):
        asked, truth = examples.ask(photo, photo.names, [0], [0], set(), rng)
        assert {name for name, index in zip(asked, truth, strict=True) if index is None} <= {*RARE_WITH_PEOPLE}
        assert truth.count(0) >= 1


def test_photos_without_parts_of_people_deny_people(data: Path) -> None:
    for photo in photosets.label_maps(data / "msrc", "msrc", drop=("horse",)):
        loaded = in_memory(photo)
        assert ("person" in loaded.names) == bool({"face", "body"} & {*photo.present})
        assert ("person" in loaded.absent) != ("person" in loaded.names)


def test_a_phrase_for_two_things_is_both_where_they_touch() -> None:
    rider, wheel, stranger, parked = (np.zeros((40, 60), bool) for _ in range(4))
    rider[5:20, 10:20], wheel[20:30, 5:25], stranger[5:30, 40:45], parked[10:30, 52:58] = True, True, True, True
    masks, absent = _with_riders({"person": rider | stranger, "bicycle": wheel | parked}, ("horse",))
    assert np.array_equal(masks["person riding a bicycle"], rider | wheel)
    assert "person riding a horse" in absent
    assert "person riding a bicycle" not in absent
    apart, absent = _with_riders({"person": stranger, "bicycle": wheel}, ())
    assert {*apart, *absent} & {*COMPOSED} == set(), "a person beside a bicycle may or may not be its rider"


def test_mask_losses_ignore_the_unknown() -> None:
    logits = torch.randn(2, 3, 8, 8)
    targets = (torch.rand(2, 3, 8, 8) > 0.5).float()
    known = torch.ones(2, 8, 8, dtype=torch.bool)
    known[:, :4] = False
    present = torch.ones(2, 3, dtype=torch.bool)
    changed = targets.clone()
    changed[:, :, :4] = 1 - changed[:, :, :4]
    for a, b in zip(mask_losses(logits, targets, known, present), mask_losses(logits, changed, known, present), strict=True):
        assert torch.equal(a, b)
    perfect = mask_losses((targets - 0.5) * 100, targets, known, present)
    assert max(perfect).item() < 0.01
    nothing = mask_losses(logits, targets, torch.zeros_like(known), torch.zeros_like(present))
    assert all(torch.isfinite(value) for value in nothing)


def test_alignment_prefers_the_right_name_and_takes_none() -> None:
    names = torch.eye(4)
    assert alignment_loss(names[:2], names, torch.tensor([0, 1])) < 0.01
    assert alignment_loss(names[:2], names, torch.tensor([1, 0])) > 5
    assert alignment_loss(torch.zeros(0, 4), names, torch.zeros(0, dtype=torch.long)) == 0


def test_exemplars_come_from_training_photos_and_cover_enough(data: Path) -> None:
    photos = photosets.label_maps(data / "msrc", "msrc")
    for name, exemplar in exemplars_of(photos).items():
        (photo,) = [p for p in photos if p.path == exemplar.image]  # type: ignore[union-attr]
        assert not photo.validation
        assert np.asarray(exemplar.mask).mean() >= 0.05  # type: ignore[union-attr]
        assert name in photo.present


def test_what_two_names_are_called_is_the_wording_of_neither() -> None:
    assert {"gown", "a skirt", "skirt"} <= {*own_wordings("dress", ("dress", "coat"))}
    alone = own_wordings("dress", ("dress", "skirt"))
    assert alone[0] == "dress"
    assert "a gown" in alone
    assert not any("skirt" in said for said in alone)
    assert "puppy" in own_wordings("dog", ("dog",))
    assert not any("animal" in said for said in own_wordings("dog", ("dog",))), "cats are animals too"
    assert own_wordings("loose strap", ("loose strap",)) == wordings("loose strap")


def test_wordings_start_with_the_raw_name() -> None:
    said = wordings("dog")
    assert said[0] == "dog"
    assert {"puppy", "a dog", "a photo of a puppy", "dogs"} <= set(said)

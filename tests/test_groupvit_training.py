"""GroupViT's training: taggers, augmentation, recipes against the published figures, and a run in miniature."""

from __future__ import annotations

import builtins
import json
import signal
import subprocess
import sys
import tarfile
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import promptseg
import small_captions
from promptseg import training
from promptseg.data.randomness import Draws
from promptseg.errors import ConfigError, DataError
from promptseg.models.groupvit import RECIPES, GroupVitConfig, GroupVitImageConfig, Model, Run, tagging
from promptseg.models.groupvit.augment import OPERATIONS, CaptionAugmentation
from promptseg.models.groupvit.photos import MEAN, STD
from promptseg.models.groupvit.recipes import NOT_DECAYED, CaptionOptions, decays
from promptseg.models.groupvit.run import hits, interval
from promptseg.models.groupvit.tagging import tagger
from promptseg.models.groupvit.words import candidates
from promptseg.training.journal import LOG
from small_captions import GENTLE, recipe
from small_groupvit import CONFIG

ROOT = Path(__file__).parents[1]


# --- words --------------------------------------------------------------------------------------------------------------------------------


def test_a_tagger_that_needs_no_download_finds_nouns_and_verbs() -> None:
    name, tag = tagger("pattern")
    assert name == "pattern"
    assert candidates(tag("A child in a pink dress is climbing up the stairs .")) == ["child", "dress", "is", "climbing", "stairs"]
    assert candidates(tag("A black dog sees the small bird now"), "noun_phrase") == ["black dog", "small bird"]
    assert not {"n", "t", "'", "ca"} & set(candidates(tag("The dog isn't old, it can't bark")))
    assert candidates(tag("")) == []


def test_nltk_comes_first_where_it_has_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    tagger.cache_clear()
    monkeypatch.setattr(tagging, "_nltk", lambda: lambda caption: [(word, "NN") for word in caption.split()])
    assert tagger()[0] == tagger("nltk")[0] == "nltk"
    assert candidates(tagger()[1]("so it is")) == ["so", "it", "is"]
    tagger.cache_clear()
    monkeypatch.setattr(tagging, "_nltk", lambda: None)
    assert tagger()[0] == "pattern"
    with pytest.raises(ConfigError, match=r"nltk\.downloader punkt_tab"):
        tagger("nltk")
    tagger.cache_clear()


def test_nltk_is_asked_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words, then their tags; where its data is not there, which NLTK says so, it is as if it were not installed."""
    asked: list[Any] = []

    def tagged(words: list[str]) -> list[tuple[str, str]]:
        asked.append(words)
        return [(word, "NN" if word == "dog" else "DT") for word in words]

    tagger("pattern")  # TextBlob is built on NLTK, the real one
    module = SimpleNamespace(word_tokenize=lambda caption: caption.replace(".", " .").split(), pos_tag=tagged)
    monkeypatch.setitem(sys.modules, "nltk", module)
    tagger.cache_clear()
    name, tag = tagger()
    assert name == "nltk"
    assert candidates(tag("the dog.")) == ["dog"]
    assert asked[-1] == ["the", "dog", "."]

    def lacking(_: str) -> list[str]:
        raise LookupError("Resource punkt_tab not found.")

    module.word_tokenize = lacking
    tagger.cache_clear()
    assert tagger()[0] == "pattern"
    tagger.cache_clear()


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("nltk", "textblob"):
            raise ImportError(name)
        return original(name, *rest, **named)

    tagger.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"promptseg\[captions\]"):
        tagger()
    with pytest.raises(ConfigError, match="'auto', 'nltk' or 'pattern', not 'spacy'"):
        tagger("spacy")  # type: ignore[arg-type]


# --- augmentation -------------------------------------------------------------------------------------------------------------------------

PHOTO = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)


def test_the_same_draws_give_the_same_photo_and_others_another() -> None:
    shown = [CaptionAugmentation()(PHOTO, 32, Draws(0, seed)) for seed in range(8)]
    assert all(one.shape == (3, 32, 32) and bool(one.isfinite().all()) for one in shown)
    assert all(torch.equal(one, CaptionAugmentation()(PHOTO, 32, Draws(0, seed))) for seed, one in enumerate(shown))
    assert not any(torch.equal(shown[0], other) for other in shown[1:])


def test_without_any_change_it_is_the_photo_normalised() -> None:
    square = PHOTO[:40, :40]
    still = CaptionAugmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, operations=0)
    expected = (torch.from_numpy(square.copy()).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(still(square, 40, Draws(1)), expected.permute(2, 0, 1))
    mirrored = CaptionAugmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0, operations=0)
    torch.testing.assert_close(mirrored(square, 40, Draws(1)), expected.permute(2, 0, 1).flip(2))


def test_crops_keep_their_bounds() -> None:
    augmentation, draws = CaptionAugmentation(), Draws(2)
    shares, ratios = [], []
    for _ in range(300):
        left, top, width, height = augmentation._window((84, 60), draws)
        assert left >= 0 <= top
        assert left + width <= 84 >= top + height - 24
        shares.append(width * height / (84 * 60))
        ratios.append(width / height)
    assert 0.06 < min(shares) < 0.2 < 0.8 < max(shares) <= 1
    assert 0.7 < min(ratios) < 0.8 < 1.25 < max(ratios) < 1.45
    assert augmentation._window((900, 10), draws)[1:] == (0, 13, 10), "where none fits, the middle"


def test_a_rectangle_is_erased_in_a_quarter_of_the_photos() -> None:
    plain = CaptionAugmentation(erase=0.25)
    erased = [bool((plain._erased(torch.zeros(3, 24, 24), Draws(3, seed)) != 0).any()) for seed in range(400)]
    assert 0.18 < np.mean(erased) < 0.32
    always = [CaptionAugmentation(erase=1.0)._erased(torch.zeros(3, 24, 24), Draws(4, seed)) != 0 for seed in range(50)]
    shares = [float(one.float().mean()) for one in always]
    assert 0.01 < min(shares) < max(shares) < 0.36


def test_fifteen_operations_change_a_photo_and_stronger_ones_more() -> None:
    from PIL import Image

    picture = Image.fromarray((PHOTO // 2 + 40).astype(np.uint8))  # neither black nor white, so that contrast can be stretched

    def change(operation: Any, level: float) -> float:
        shown = operation(picture, level, 1.0)
        assert (shown.size, shown.mode) == (picture.size, "RGB")
        return float(np.abs(np.asarray(shown).astype(int) - np.asarray(picture).astype(int)).mean())

    assert len(OPERATIONS) == 15
    assert all(change(operation, 0.9) > 0 for operation in OPERATIONS)
    for place in (3, 6, 7, 8, 9, 10, 11, 12, 13, 14):
        assert change(OPERATIONS[place], 0.0) == 0
        assert change(OPERATIONS[place], 0.9) > change(OPERATIONS[place], 0.2), place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.5, 0.1)}, "scale is a rising pair"),
        ({"scale": (0.5, 1.5)}, "at most 1"),
        ({"flip": 2.0}, "shares"),
        ({"magnitude": 11.0}, "magnitude is 0 to 10"),
    ],
)
def test_impossible_augmentations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CaptionAugmentation(**options)


# --- recipes ------------------------------------------------------------------------------------------------------------------------------

PUBLISHED = {  # steps of an epoch, prompts, group tokens, segments, hard
    "groupvit/gcc-yfcc": (6997, 3, (64, 8, 0), (64, 8), True),
    "groupvit/gcc-redcap": (6326, 0, (64, 8, 0), (64, 8), True),
    "groupvit/ablation-hard": (2723, 0, (64, 0), (8,), True),
    "groupvit/ablation-soft": (2723, 0, (64, 0), (8,), False),
    "groupvit/ablation-hard-multilabel": (2723, 3, (64, 0), (8,), True),
    "groupvit/ablation-soft-multilabel": (2723, 3, (64, 0), (8,), False),
    "groupvit/ablation-tokens16": (2723, 3, (16, 0), (8,), True),
    "groupvit/ablation-tokens32": (2723, 3, (32, 0), (8,), True),
    "groupvit/ablation-outputs4": (2723, 3, (64, 0), (4,), True),
    "groupvit/ablation-outputs16": (2723, 3, (64, 0), (16,), True),
    "groupvit/ablation-two-stages": (2723, 3, (64, 8, 0), (64, 8), True),
}


def test_every_run_has_its_recipe() -> None:
    assert RECIPES.keys() == {*PUBLISHED, "groupvit/flickr8k"}
    assert PUBLISHED.keys() <= training.recipes().keys()
    page = (ROOT / "docs" / "groupvit.md").read_text(encoding="utf-8")
    assert not [name for name in RECIPES if f"`{name}`" not in page]


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_as_published(name: str) -> None:
    made, (per_epoch, prompts, tokens, segments, hard) = training.recipe(name), PUBLISHED[name]
    config = made.options.config
    assert (made.steps, config.multi_label) == (30 * per_epoch, prompts)
    assert (config.image.group_tokens, config.image.output_groups, config.image.hard) == (tokens, segments, hard)
    assert (made.batch_size, made.lr, made.weight_decay, made.betas, made.epsilon) == (4096, 1.6e-3, 0.05, (0.9, 0.999), 1e-8)
    assert (made.clip, made.ema, made.accumulate, made.precision, made.workers) == (5.0, None, 1, "float16", 6)
    rates = [made.schedule.rate(made.lr, step, made.steps) for step in (0, 2 * per_epoch - 1, made.steps)]
    assert rates == pytest.approx([4e-6, 1.6e-3, 4e-5], rel=1e-3)
    assert made.options.augmentation == CaptionAugmentation()


WIDENING = GroupVitImageConfig(
    size=32, width=16, factors=(1, 2, 2), depths=(1, 1, 1), heads=(2, 2, 2), group_tokens=(4, 3, 0), output_groups=(4, 3)
)


@pytest.mark.parametrize("config", [GroupVitConfig(), GroupVitConfig(image=WIDENING, projector_layers=4)], ids=["published", "widening"])
def test_weight_decay_leaves_out_vectors_and_biases(config: GroupVitConfig) -> None:
    """The recipe's names mean what the published rule means, which looks at dimensions."""
    with torch.device("meta"):
        parameters = dict(Model(config).named_parameters())
    free = {name for name in parameters if any(fnmatchcase(name, pattern) for pattern in NOT_DECAYED.pattern.split("|"))}
    assert free == {name for name, parameter in parameters.items() if not decays(name, parameter.ndim)}
    assert "logit_scale" not in free


# --- a run, in miniature ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_captions.folder(tmp_path_factory.mktemp("captioned"))


def test_training_lowers_both_losses_and_finds_captions(tmp_path: Path) -> None:
    """On photos that it has not seen, of colours that it has."""
    root = small_captions.folder(tmp_path / "photos", each=5)
    options = {"augmentation": GENTLE, "held_out": 4}
    made = recipe(root, tmp_path / "out", steps=40, batch_size=12, lr=2e-3, validate_every=40, options=options)
    untrained = Run(made, log=lambda _: None)
    untrained.model.eval()
    before = untrained.validate()
    folder = training.train(made, log=lambda _: None)
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    for name in ("loss", "multi_label_loss"):
        losses = [line[name] for line in lines if name in line]
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10]), name
    assert lines[-1]["validation/recall@5"] > before["recall@5"]
    (trained,) = promptseg.load(folder).semantic(root / "images" / "000.png", ["tomato"]).labels.shape[:1]
    assert trained == 40


def test_a_killed_run_goes_on_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    """With noise, drop path and chance in every example; it is killed in its third epoch."""
    whole = training.train(recipe(photos, tmp_path / "whole"), log=lambda _: None)
    program = [sys.executable, str(ROOT / "tests" / "small_captions.py"), str(photos), str(tmp_path / "cut"), "5"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = training.train(recipe(photos, tmp_path / "cut"), resume=True, log=lambda _: None)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_examples_depend_on_their_number_alone(photos: Path, tmp_path: Path) -> None:
    a, b = (Run(recipe(photos, tmp_path), log=lambda _: None) for _ in range(2))
    state = torch.get_rng_state()
    first = [a.example(number) for number in range(24)]
    assert torch.equal(torch.get_rng_state(), state)
    for number in (23, 9, 4, 0):
        again = b.example(number)
        assert torch.equal(again.pixels, first[number].pixels)
        assert again.texts == first[number].texts
    assert all(len(one.texts) == 3 for one in first), "the caption and two prompts, whatever words it has"
    assert {one.texts[0].split()[1].strip(",") for one in first[:8]} == set(small_captions.COLOURS), "an epoch shows every photo once"
    assert [a.describe(number)[:3] for number in range(8)] != [a.describe(number)[:3] for number in range(8, 16)], "epochs differ in order"
    assert a.describe(17).endswith(", epoch 2")
    assert {one.texts[0].startswith("the ") for one in first} == {True, False}, "each of a photo's captions has its turn"


def test_prompts_of_nouns_or_of_whole_phrases(tmp_path: Path) -> None:
    """`options.word_type` reaches the examples that the losses see."""
    root = small_captions.folder(tmp_path / "photos")
    lines = [f"{number:03d}.png,A black dog sees the small bird now" for number in range(8)]
    (root / "captions.csv").write_text("\n".join(["image,caption", *lines]) + "\n", encoding="utf-8")
    for word_type, words in (("noun", {"dog", "sees", "bird"}), ("noun_phrase", {"black dog", "small bird"})):
        run = Run(recipe(root, tmp_path, options={"word_type": word_type}), log=lambda _: None)
        examples = [run.example(number) for number in range(8)]
        prompts = [prompt for one in examples for prompt in one.texts[1:]]
        assert all(any(word in prompt for word in words) for prompt in prompts)
        assert any("black dog" in prompt for prompt in prompts) == (word_type == "noun_phrase")
        assert run.losses(run.collate(examples[:2])).keys() == {"loss", "multi_label_loss"}


def test_shards_train_like_a_folder_and_need_no_tagger_without_prompts(tmp_path: Path) -> None:
    root = small_captions.shards(tmp_path / "shards")
    config = GroupVitConfig(image=CONFIG.image, text=CONFIG.text, embed=16, multi_label=0, preprocess=CONFIG.preprocess)
    told: list[str] = []
    run = Run(recipe(root, tmp_path, options={"config": config}), log=told.append)
    assert told == [f"data: 8 photos with captions in {root}, 0 held out; tagger: none"]
    batch = run.collate([run.example(number) for number in range(4)])
    assert all(len(texts) == 1 for texts in batch.texts)
    assert run.losses(batch).keys() == {"loss"}


def test_damaged_photos_are_left_out_with_a_warning(tmp_path: Path) -> None:
    root = small_captions.folder(tmp_path / "photos")
    run = Run(recipe(root, tmp_path), log=lambda _: None)
    wrong = next(number for number in range(8) if run.describe(number).startswith("003"))
    expected = run._place(wrong + 1)[1]
    (root / "images" / "003.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="A photo is left out: .*003.png"):
        assert run.example(wrong).texts[0] in run.photos[expected].captions
    for file in (root / "images").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="20 photos in a row"), pytest.warns(UserWarning, match="left out"):
        run.example(0)


def test_a_caption_that_cannot_be_read_is_left_out_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for key, text in (("1", "Tür".encode("latin-1")), ("2", b"the plum")):
            small_captions.add(tar, f"{key}.jpg", small_captions.encoded("plum", 2))
            small_captions.add(tar, f"{key}.txt", text)
    run = Run(recipe(tmp_path, tmp_path), log=lambda _: None)
    assert sorted(run.describe(number) for number in range(2)) == ["00000/1, epoch 0", "00000/2, epoch 0"]
    wrong = next(number for number in range(2) if run.describe(number).startswith("00000/1"))
    with pytest.warns(UserWarning, match="the caption of 00000/1 cannot be read"):
        assert run.example(wrong).texts[0] == "the plum"


def test_long_captions_are_cut_without_a_word(photos: Path, tmp_path: Path) -> None:
    run = Run(recipe(photos, tmp_path), log=lambda _: None)
    batch = run.collate([run.example(number) for number in range(2)])
    long = tuple((f"{texts[0]} {'and on ' * 60}", *texts[1:]) for texts in batch.texts)
    assert all(bool(value.isfinite()) for value in run.losses(type(batch)(batch.pixels, long)).values())


def test_the_weight_of_prompts(photos: Path, tmp_path: Path) -> None:
    runs = [Run(recipe(photos, tmp_path, options={"multi_label_weight": weight}), log=lambda _: None) for weight in (1.0, 0.25)]
    found = []
    for run in runs:
        run.model.eval()
        found.append(run.losses(run.collate([run.example(number) for number in range(4)])))
    torch.testing.assert_close(found[1]["multi_label_loss"], found[0]["multi_label_loss"] / 4)
    torch.testing.assert_close(found[1]["loss"], found[0]["loss"])


def test_recall_counts_ties_against_the_model() -> None:
    assert hits(torch.eye(4), 1).tolist() == [1, 1, 1, 1]
    assert hits(torch.zeros(4, 4), 3).tolist() == [0, 0, 0, 0]
    similar = torch.tensor([[0.5, 0.9, 0.1], [0.2, 0.1, 0.3], [0.0, 0.1, 0.9]])
    assert [hits(similar, count).mean() for count in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_mistakes_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no photos are kept for validation; choose options\.held_out"):
        Run(recipe(photos, tmp_path, validate_every=5), log=lambda _: None)
    with pytest.raises(ConfigError, match="held_out is at least 2"):
        CaptionOptions(held_out=1)
    with pytest.raises(DataError, match="holds no photos with captions"):
        Run(recipe(tmp_path, tmp_path), log=lambda _: None)


def test_intervals_hold_the_mean_and_shrink_with_photos() -> None:
    few, many = (interval(np.resize([0.0, 0.5, 1.0, 0.0], count)) for count in (20, 2000))
    assert few[0] < many[0] < 0.375 < many[1] < few[1]
    assert interval(np.ones(5)) == (1.0, 1.0)


def test_the_small_run_builds() -> None:
    made = training.recipe("groupvit/flickr8k")
    with torch.device("meta"):
        model = Model(made.options.config)
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 5e7
    assert made.options.held_out == 5

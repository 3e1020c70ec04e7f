"""CLIPSeg's published runs: every recipe against the table of experiments, and one of them carried out in miniature."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import promptseg
import replicas
import small_clipseg
import small_phrasecut
from command_line import Cli
from promptseg import training, zoo
from promptseg.data.items import PromptSample, Support
from promptseg.data.randomness import Draws
from promptseg.errors import ConfigError, WeightsNotFound
from promptseg.models.clipseg import RECIPES, Run, run, start
from promptseg.models.clipseg.batches import Example, Teller, answers, collate, conditions
from promptseg.models.clipseg.config import ClipDeconvConfig, VitConfig
from promptseg.models.clipseg.mixing import Mixing
from promptseg.models.clipseg.recipes import Categories, Episodes
from promptseg.training.files import with_words
from promptseg.training.journal import LOG
from promptseg.training.schedules import Cosine
from small_phrasecut import recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_phrasecut.photos(tmp_path_factory.mktemp("phrasecut"))


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO-20i with a training list of fold 1: every class borrows the photos of one that the replica has."""
    root = replicas.coco20i(tmp_path_factory.mktemp("coco"))
    there = pickle.loads((root / "splits" / "val" / "fold0.pkl").read_bytes())
    (root / "splits" / "trn").mkdir()
    (root / "splits" / "trn" / "fold1.pkl").write_bytes(pickle.dumps({number: there[number - number % 4] for number in range(80)}))
    return root


# --- the table of experiments -------------------------------------------------------------------------------------------------------------

# name: card, condition, negatives, (low, high) of the text's weight, rate, steps, removed
PLAIN: dict[str, tuple[Any, ...]] = {
    "clipseg/pc-plus": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, None),
    "clipseg/pc-plus-refined": ("clipseg-rd64-refined", "mixed", 0.2, 0.5, 1e-3, 50_000, None),
    "clipseg/pc": ("clipseg-rd64", "text", 0.2, None, 1e-3, 20_000, None),
    "clipseg/pc-d128": ("clipseg-rd64", "text", 0, None, 1e-3, 20_000, None),
    "deconv/pc": ("clip-deconv", "text", 0, None, 1e-3, 20_000, None),
    "vitseg/pc-plus": ("vitseg", "picture", 0.2, None, 3e-4, 20_000, None),
    "vitseg/pc": ("vitseg", "text", 0, None, 1e-4, 20_000, None),
    "clipseg/ablation-no-pretraining": ("clipseg-rd64", "mixed", 0.2, 0.5, 3e-4, 20_000, None),
    "clipseg/ablation-no-negatives": ("clipseg-rd64", "mixed", 0, 0.5, 1e-3, 20_000, None),
    "clipseg/ablation-half-negatives": ("clipseg-rd64", "mixed", 0.5, 0.5, 1e-3, 20_000, None),
    "clipseg/ablation-no-visual": ("clipseg-rd64", "text", 0.2, None, 1e-3, 20_000, None),
    "clipseg/ablation-d16": ("clipseg-rd16", "mixed", 0.2, 0.5, 1e-3, 20_000, None),
    "clipseg/ablation-layer3": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, None),
    "clipseg/ablation-highlight": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, None),
    "clipseg/zero-shot-unseen10": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, "zs-5"),
    "clipseg/zero-shot-unseen4": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, "zs-2"),
    "clipseg/generalisation": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, "aff"),
    "deconv/generalisation": ("clip-deconv", "mixed", 0.2, 0.5, 1e-3, 20_000, "aff"),
    "vitseg/generalisation": ("vitseg", "mixed", 0.2, 0.5, 1e-4, 20_000, "aff"),
}
FOLDED: dict[str, tuple[Any, ...]] = {
    "clipseg/pascal-fold": ("clipseg-rd64", "mixed", 0.2, 0.5, 1e-3, 20_000, "pas5i-"),
    "clipseg/pascal-pc-fold": ("clipseg-rd64", "mixed", 0, 1, 1e-3, 20_000, "pas5i-"),
    "deconv/pascal-fold": ("clip-deconv", "mixed", 0, 1, 1e-3, 20_000, "pas5i-"),
    "vitseg/pascal-fold": ("vitseg", "mixed", 0.2, 0.5, 1e-4, 20_000, "pas5i-"),
    "clipseg/coco-fold": ("clipseg-rd64", "mixed", 0, 1, 1e-3, 7_000, None),
    "clipseg/coco-negatives-fold": ("clipseg-rd64", "mixed", 0.2, 1, 1e-3, 7_000, None),
    "vitseg/coco-fold": ("vitseg", "mixed", 0, 1, 1e-4, 7_000, None),
    "deconv/coco-fold": ("clip-deconv", "mixed", 0.2, 1, 1e-3, 7_000, None),
}
TABLE = PLAIN | {f"{name}{k}": (*facts[:-1], facts[-1] and f"{facts[-1]}{k}") for name, facts in FOLDED.items() for k in range(4)}
LVIS = "clipseg/generalisation-lvis"
NETWORKS = {  # fields of the network in which a recipe's differs from the card's as it is trained
    "clipseg/pc-d128": {"reduce_dim": 128},
    "clipseg/ablation-layer3": {"taps": (3,)},
    "clipseg/ablation-highlight": {"technique": "blur_highlight"},
}


def test_there_is_one_for_every_experiment() -> None:
    assert RECIPES.keys() == {*TABLE, LVIS}
    assert TABLE.keys() <= training.recipes().keys()


@pytest.mark.parametrize("name", TABLE)
def test_recipes_say_what_the_table_says(name: str) -> None:
    made, (card, condition, negatives, high, lr, steps, removed) = training.recipe(name), TABLE[name]
    options = made.options
    assert (made.name, made.card, made.output, made.lr, made.steps) == (name, card, f"runs/{name}", lr, steps)
    assert (options.condition, options.items.negatives) == (condition, negatives)
    assert high is None or (options.mixing.low, options.mixing.high, options.mixing.templates) == (0, high, "shuffle+")
    if isinstance(options.items, Episodes):
        assert (options.items.fold, made.data) == (int(name[-1]), "data/coco20i")
    else:
        assert (options.items.removed, options.items.only_supported) == (removed, name == "vitseg/pc-plus")
    assert options.clip == (None if name.endswith("no-pretraining") else "clipseg-rd64")
    known = zoo.config(card)
    trained = known if isinstance(known, ClipDeconvConfig) else replace(known, taps=(3, 7, 9))
    assert options.config == replace(trained, **NETWORKS.get(name, {}))


@pytest.mark.parametrize("name", TABLE)
def test_what_is_common_to_all_is_as_published(name: str) -> None:
    made = training.recipe(name)
    assert (made.batch_size, made.schedule, made.weight_decay, made.betas, made.epsilon) == (
        64,
        Cosine(minimum=1e-4),
        0.01,
        (0.9, 0.999),
        1e-8,
    )
    assert (made.clip, made.ema, made.precision, made.options.size, made.accumulate) == (None, None, "float16", 352, 1)


def test_the_one_on_lvis_differs_in_its_items() -> None:
    made, base = training.recipe(LVIS), training.recipe("clipseg/pc-plus")
    options = replace(base.options, items=Categories(removed="aff"), mixing=Mixing())
    assert made == replace(base, name=LVIS, data="data/lvis", output=f"runs/{LVIS}", options=options)


def test_all_are_listed_in_the_documentation() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert not [name for name in (*PLAIN, LVIS, *(f"{name}{{0..3}}" for name in FOLDED)) if f"`{name}`" not in page]


# --- a run, in miniature ------------------------------------------------------------------------------------------------------------------


def test_training_by_the_command_line_learns(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = recipe("clipseg/pc-plus", photos, tmp_path, options={"clip": str(small_phrasecut.clip(tmp_path / "clip"))}).options
    file = tmp_path / "mini.yaml"
    file.write_text(f"base: clipseg/pc-plus\noptions: {json.dumps(asdict(options))}\n")
    words = ["steps=70", "batch_size=4", "lr=1e-2", "precision=float32", "workers=0", "validate_every=70", "pictures_every=70"]
    untrained = Run(replace(training.recipe("clipseg/pc-plus"), data=str(photos), options=options, validate_every=1))
    untrained.model.eval()
    before = untrained.validate()
    code, _, err = Cli(monkeypatch, capsys)("train", str(file), *words, "--data", str(photos), "--output", str(tmp_path / "out"))
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]
    losses = [line["mask"] for line in lines if "mask" in line]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])
    after = lines[-1]
    assert after["validation/mIoU"] > before["mIoU"] + 0.15
    assert after["validation/AP"] > before["AP"] + 0.15
    assert (tmp_path / "out" / "pictures" / "0000070.png").stat().st_size > 1000
    segmenter = promptseg.load(tmp_path / "out")
    assert segmenter(photos / "images" / "1.jpg", "red box")[0].mask.shape == (40, 48)


def test_a_killed_run_goes_on_bit_for_bit(photos: Path, tmp_path: Path) -> None:
    """With dropout and chance in every item; it is killed in its fourth epoch."""
    whole = training.train(recipe("clipseg/pc-plus", photos, tmp_path / "whole"), log=lambda _: None)
    program = [sys.executable, str(ROOT / "tests" / "small_phrasecut.py"), str(photos), str(tmp_path / "cut"), "5"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = training.train(recipe("clipseg/pc-plus", photos, tmp_path / "cut"), resume=True, log=lambda _: None)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


KINDS = (
    "clipseg/pc-plus-refined",
    "clipseg/pc",
    "clipseg/ablation-layer3",
    "deconv/pc",
    "vitseg/pc-plus",
    "vitseg/pc",
    "vitseg/coco-fold1",
    LVIS,
)


@pytest.mark.parametrize("name", KINDS)
def test_only_what_is_published_as_trained_moves(name: str, photos: Path, episodes: Path, tmp_path: Path) -> None:
    """The decoder; in ViTSeg the text tower, too, where texts are asked."""
    root = episodes if "coco" in name else replicas.lvis(tmp_path / "lvis") if name == LVIS else photos
    made = recipe(name, root, tmp_path, steps=2)
    before = start.starting_network(made.options, made.seed).state_dict()
    after = zoo.load(training.train(made, log=lambda _: None))[0].state_dict()
    moved = {key.partition(".")[0] for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved == ({"decoder", "text"} if name.startswith("vitseg") and made.options.condition != "picture" else {"decoder"})


def test_examples_depend_on_their_number_alone(photos: Path, tmp_path: Path) -> None:
    options = {"config": replace(small_clipseg.smaller(zoo.config("clipseg-rd64")), technique="blur_highlight_random")}
    a, b = (Run(recipe("clipseg/pc-plus", photos, tmp_path, options=options), log=lambda _: None) for _ in range(2))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = [a.example(number) for number in range(18)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(_same(first[number], b.example(number)) for number in (17, 3, 9, 0))
    assert not any(_same(first[number], first[number + len(a.items)]) for number in range(6)), "epochs differ"
    assert a.describe(7) == f"{a.items.describe(1)}, epoch 1"


def test_photos_and_targets_are_changed_together_and_by_their_number_alone(photos: Path, tmp_path: Path) -> None:
    made = recipe("clipseg/pc", photos, tmp_path)
    plain = Run(made, log=lambda _: None)
    mirrored = Run(with_words(made, ["options.augmentation.flip=1"]), log=lambda _: None)
    turned = Run(with_words(made, ["options.augmentation={rotation: 90, brightness: 0.5}"]), log=lambda _: None)
    for number in (0, 7):
        before, after = plain.example(number), mirrored.example(number)
        torch.testing.assert_close(after.pixels, before.pixels.flip(-1), atol=1e-3, rtol=0)
        assert torch.equal(after.target, before.target.flip(-1))
        assert _same(turned.example(number), turned.example(number))
        assert not torch.allclose(turned.example(number).pixels, before.pixels, atol=0.1)
    with pytest.raises(ConfigError, match=r"augmentation\.size is that of the photos, 64"):
        with_words(made, ["options.augmentation.size=[32, 32]"])


def _same(a: Example, b: Example) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Example)]
    return all(torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x is y or x == y for x, y in pairs)


def test_processes_validate_parts_of_the_whole(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Run(recipe("clipseg/pc-plus", photos, tmp_path, validate_every=1), log=lambda _: None)
    mine.model.eval()
    whole, parts = mine.validate(), []
    monkeypatch.setattr(run, "my_part", lambda count: range(len(parts), count, 2))
    monkeypatch.setattr(run, "everybodys", lambda sweep: parts.append(sweep) or parts)
    mine.validate()
    assert mine.validate() == whole
    assert whole.keys() == {"mIoU", "IoU_FG", "IoU_BIN", "AP"}


# --- what the network is told -------------------------------------------------------------------------------------------------------------


def _item(*, support: bool, weight: float = 0.25) -> PromptSample:
    torch.manual_seed(support)
    image, mask = torch.randn(3, 32, 32), torch.zeros(32, 32)
    mask[8:20, 8:20] = 1
    shown = Support(torch.randn(3, 32, 32), mask) if support else None
    return PromptSample(id="x", image=image, target=mask[None], phrase="dog", prompt="a dog", group=0, support=shown, text_weight=weight)


def test_conditions_are_mixed_where_there_is_an_example() -> None:
    model, tell = small_clipseg.model(), Teller("mixed", "highlight", 4)
    both = [tell(_item(support=support), Draws(0)) for support in (False, True)]
    with torch.no_grad():
        mixed = conditions(model, collate(both))
        text = model.embed_texts(["a dog"])[0]
        assert both[1].picture is not None
        torch.testing.assert_close(mixed[0], text)
        torch.testing.assert_close(mixed[1], 0.25 * text + 0.75 * model.embed_images(both[1].picture[None])[0])
        assert answers(model, collate(both)).shape == (2, 1, 32, 32)


def test_text_alone_and_pictures_alone() -> None:
    model = small_clipseg.model()
    texts = collate([Teller("text", "highlight", 4)(_item(support=True), Draws(0))])
    pictures = collate([Teller("picture", "blur_highlight", 4)(_item(support=support), Draws(0)) for support in (False, True)])
    assert texts.pictures is None
    assert pictures.prompts == ()
    assert pictures.pictures is not None
    assert not pictures.pictures[0].any(), "published: a phrase without example is told by an empty picture"
    with torch.no_grad():
        torch.testing.assert_close(conditions(model, texts), model.embed_texts(["a dog"]))
        torch.testing.assert_close(conditions(model, pictures), model.embed_images(pictures.pictures))


# --- mistakes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 50}, ConfigError, "a multiple of the patch \\(16\\), not 50"),
        ({"validation": 0}, ConfigError, "at least 1"),
        ({"clip": "clipseg-rd16"}, WeightsNotFound, "promptseg pull clipseg-rd16.*options.clip=ViT-B-16.pt"),
        ({"clip": "clipsegrd64"}, WeightsNotFound, "Did you mean 'clipseg-rd64'"),
        ({"clip": "gone/ViT-B-16.pt"}, WeightsNotFound, "no file or folder 'gone/ViT-B-16.pt'"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], error: type[Exception], message: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        Run(recipe("clipseg/pc-plus", photos, tmp_path, options=options), log=lambda _: None)


def test_networks_that_cannot_be_trained_so_are_refused(photos: Path, tmp_path: Path) -> None:
    config = small_clipseg.smaller(zoo.config("clipseg-rd64"))
    for changed, message in (({"head_kernel": 8}, "64x64 photos by 32x32 maps"), ({"technique": "attention_cls"}, "restricts attention")):
        with pytest.raises(ConfigError, match=message):
            Run(recipe("clipseg/pc-plus", photos, tmp_path, options={"config": replace(config, **changed)}), log=lambda _: None)
    made = recipe("vitseg/pc", photos, tmp_path, options={"clip": "clipseg-rd64"})
    assert isinstance(made.options.config.image, VitConfig)
    with pytest.raises(ConfigError, match=r"vit_base_patch16_384.*options\.vit=FILE"):
        Run(made, log=lambda _: None)

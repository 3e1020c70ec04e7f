"""PSALM's runs: the table of recipes, the examples, and a run over all four kinds of questions in miniature."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import replicas
import small_psalm_training
from promptseg import Box, load, training, zoo
from promptseg.contracts import Rename
from promptseg.data.samples import IGNORE
from promptseg.data.vocabularies import names
from promptseg.errors import ConfigError, DataError, PromptError, WeightsError
from promptseg.models.psalm import keys, validation
from promptseg.models.psalm.conditions import class_ends, sentence_end
from promptseg.models.psalm.config import MaskConfig, PsalmConfig
from promptseg.models.psalm.model import Model
from promptseg.models.psalm.predictor import Head
from promptseg.models.psalm.questions import Conversations, Interactive, Referring
from promptseg.models.psalm.recipes import RECIPES, PsalmTraining, Source
from promptseg.models.psalm.run import PsalmRun
from promptseg.models.psalm.start import MASK2FORMER, load_language, load_masks, load_projector
from promptseg.models.psalm.tokens import Tokenizer
from promptseg.nn import conversion
from promptseg.nn.conversion import to_official
from promptseg.training.groups import arrange

KINDS = {"psalm/ablation-panoptic-only": ("panoptic",), "psalm/ablation-referring-only": ("referring",)}
KINDS |= {"psalm/ablation-interactive-only": ("interactive",), "psalm/stage1": ("conversation",)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_psalm_training.photos(tmp_path_factory.mktemp("psalm"))


def quiet(recipe: object) -> PsalmRun:
    return PsalmRun(recipe, lambda _: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"psalm/handful"}))
def test_recipes_say_what_the_paper_says(name: str) -> None:
    made = RECIPES[name]()
    assert (made.name, made.card, made.output, made.weight_decay, made.ema) == (name, "psalm", f"runs/{name}", 0, None)
    if name == "psalm/stage1":
        assert (made.steps, made.batch_size, made.lr) == (4361, 128, 2e-3)
    else:
        assert (made.steps, made.batch_size, made.lr, made.clip) == (56_000, 64, 6e-5, None)
        assert made.schedule.rate(6e-5, 1680, made.steps) == pytest.approx(6e-5)
        assert made.schedule.rate(6e-5, 28_000, made.steps) == pytest.approx(3.1456866663433454e-05)
    kinds = KINDS.get(name, ("panoptic", "referring", "interactive", "conversation"))
    assert tuple(source.kind for source in made.options.sources) == kinds
    assert made.options.every % (made.batch_size // made.accumulate) == 0
    assert made.options.config.masks.queries == (1 if name == "psalm/ablation-one-proposal" else 100)


@pytest.mark.parametrize(("name", "learning"), [("psalm/stage1", "projector"), ("psalm/stage2", "")])
def test_what_learns(name: str, learning: str) -> None:
    """In alignment the projector, in joint training all but the image encoder."""
    with torch.device("meta"):
        model = Model(small_psalm_training.SMALL)
    names = {name for group in arrange(model, RECIPES[name]()) for name in group.names}
    wanted = {name for name, _ in model.named_parameters() if name.startswith(learning) and not name.startswith("vision.")}
    assert names == wanted


def test_examples_come_in_turns_and_the_same_again(root: Path, tmp_path: Path) -> None:
    run = quiet(small_psalm_training.recipe(root, tmp_path))
    assert [run.describe(number).partition(":")[0] for number in range(9)] == [
        "panoptic", "panoptic", "referring", "referring", "interactive", "interactive", "conversation", "conversation", "panoptic",
    ]  # fmt: skip
    for number in range(8):
        one, again = run.example(number), run.example(number)
        assert one.prompt == again.prompt
        assert torch.equal(one.pixels, again.pixels)
    panoptic, referring, interactive, talk = (run.example(number) for number in (0, 2, 4, 6))
    assert panoptic.targets is not None
    assert panoptic.targets.labels.tolist() == [0, 1]
    assert panoptic.places is not None
    assert sorted(panoptic.places.tolist()) == [0, 1, 2]
    assert referring.targets is not None
    assert referring.targets.masks.shape == (1, 64, 64)
    assert referring.targets.masks.sum() == pytest.approx(300 * 1.6**2, rel=0.1)
    assert interactive.regions is not None
    assert interactive.targets is not None
    assert len(interactive.regions) == len(interactive.targets.masks)
    assert (talk.targets, talk.regions) == (None, None)
    assert len(run.sources[3]) == 1  # what has no photo, or one that is gone, is left out


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (Conversations, {"image": "x"}),
        (Conversations, ["image"]),
        (Conversations, [{"image": "000000000001.jpg"}]),
        (Interactive, [{"image": "000000000001.jpg", "anns": ["one"]}]),
        (Interactive, [{"image": "000000000001.jpg", "anns": [{"box_visual_prompt_mask": {"size": [1, 1]}}]}]),
        (Referring, [{"image": "000000000001.jpg", "anns": [], "instruction": [{"said": "a man"}]}]),
        (Referring, [{"image": "000000000001.jpg", "anns": [{}], "instruction": []}]),
    ],
)
def test_questions_that_lack_something_name_their_file(kind: Any, entries: object, root: Path, tmp_path: Path) -> None:
    replicas.write_json(tmp_path / "asked.json", entries)
    with pytest.raises(DataError, match=r"asked\.json"):
        kind(tmp_path / "asked.json", root / "val2017", Tokenizer(), 64).example(0, Random(0))


def test_a_batch_is_of_one_kind(root: Path, tmp_path: Path) -> None:
    run = quiet(small_psalm_training.recipe(root, tmp_path))
    with pytest.raises(ConfigError, match="next source's turn"):
        run.collate([run.example(1), run.example(2)])


def test_killed_and_resumed_it_ends_as_one_that_ran_through(root: Path, tmp_path: Path) -> None:
    recipe, named = small_psalm_training.recipe(root, tmp_path / "whole"), set[str]()
    before = {name: tensor.clone() for name, tensor in quiet(recipe).model.state_dict().items()}
    whole = training.train(recipe, report=lambda _, figures: named.update(figures), log=lambda _: None)
    assert {"mask", "dice", "classes", "sentence", "regions", "language"} <= named
    program = [sys.executable, small_psalm_training.__file__, str(root), str(tmp_path / "cut"), "5"]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = training.train(small_psalm_training.recipe(root, tmp_path / "cut"), resume=True, log=lambda _: None)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert zoo.load(whole)[0].words.encode("dog") == quiet(recipe).tokenizer.encode("dog")
    after = load_file(whole / "model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not [name for name in changed if name.startswith("vision.")]
    assert {"mask_tokens", "to_region.weight", "language.head.weight", "predictor.of_sentence.layers.0.weight"} <= changed


def test_alignment_teaches_the_projector_alone(root: Path, tmp_path: Path) -> None:
    talk = {"sources": small_psalm_training.SOURCES[3:]}
    recipe = small_psalm_training.recipe(root, tmp_path, name="psalm/stage1", options=talk, steps=2)
    before = {name: tensor.clone() for name, tensor in quiet(recipe).model.state_dict().items()}
    after = load_file(training.train(recipe, log=lambda _: None) / "model.safetensors")
    assert {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])} == {"projector"}
    joint = small_psalm_training.recipe(root, tmp_path / "two", options={"projector": str(tmp_path / "model.safetensors")})
    assert torch.equal(quiet(joint).model.projector.conv1.weight, after["projector.conv1.weight"])


def test_published_projectors_have_no_statistics() -> None:
    model = Model(small_psalm_training.SMALL)
    block = "model.mm_projector.layer1.0."
    ours = {"conv1": "conv1", "conv2": "conv2", "downsample.0": "shortcut"}
    theirs = {f"{block}{their}.weight": model.projector.get_submodule(our).weight + 1 for their, our in ours.items()}
    for their, our in {"bn1": "norm1", "bn2": "norm2", "downsample.1": "shortcut_norm"}.items():
        norm = model.projector.get_submodule(our)
        theirs |= {f"{block}{their}.weight": norm.weight + 1, f"{block}{their}.bias": norm.bias + 1}
    theirs |= {f"model.mm_projector.fc.{kind}": getattr(model.projector.out, kind) + 1 for kind in ("weight", "bias")}
    load_projector(model, {name: tensor.detach().clone() for name, tensor in theirs.items()})
    assert torch.equal(model.projector.out.bias, theirs["model.mm_projector.fc.bias"])
    assert model.projector.norm1.running_mean.abs().max() == 0


def test_phi_with_separate_and_fused_projections() -> None:
    """Its rows for tokens that PSALM does not have are left out, its head's bias, too."""
    source, config = Model(small_psalm_training.SMALL), small_psalm_training.SMALL.language
    official = {name: tensor.clone() for name, tensor in to_official(keys.OFFICIAL, source.state_dict()).items()}
    ours = ("model.embed_tokens.", "model.layers.", "model.final_layernorm.", "lm_head.")
    fused = {name: tensor for name, tensor in official.items() if name.startswith(ours)} | {"lm_head.bias": torch.zeros(9)}
    fused["model.embed_tokens.weight"] = torch.cat([fused["model.embed_tokens.weight"], torch.ones(7, config.width)])
    separate = {name: tensor for name, tensor in fused.items() if "query_key_value" not in name}
    for name in fused.keys() - separate.keys():
        parts = fused[name].unflatten(0, (config.heads, 3, -1)).unbind(1)
        separate |= {name.replace("query_key_value", f"{kind}_proj"): part.flatten(0, 1) for kind, part in zip("qkv", parts, strict=True)}
    for theirs in (fused, separate):
        target = Model(small_psalm_training.SMALL)
        load_language(target, theirs)
        assert all(torch.equal(one, two) for one, two in zip(target.language.parameters(), source.language.parameters(), strict=True))
    with pytest.raises(WeightsError, match="q_proj"):
        load_language(source, {"model.layers.0.self_attn.nothing.q_proj.weight": torch.zeros(1)})


def test_mask2former_gives_the_parts_that_it_has() -> None:
    """Names as published; more queries than ours are cut, the classifier is dropped, convolutions without bias begin with 0."""
    source = Model(small_psalm_training.SMALL)
    parts = {"model.vision_tower.": "backbone.", "pixel_decoder.": "sem_seg_head.pixel_decoder.", "predictor.": "sem_seg_head.predictor."}
    theirs = {
        f"{new}{name.removeprefix(old)}": tensor.clone()
        for name, tensor in to_official(keys.OFFICIAL, source.state_dict()).items()
        for old, new in parts.items()
        if name.startswith(old) and not any(word in name for word in ("SEG_", "CLASS_proj", "REGION_proj"))
    }
    for conv in ("adapter_1", "layer_1"):
        place = f"sem_seg_head.pixel_decoder.{conv}"
        del theirs[f"{place}.0.bias"]
        theirs |= {f"{place}.weight": theirs.pop(f"{place}.0.weight")}
        theirs |= {f"{place}.norm.{kind}": theirs.pop(f"{place}.1.{kind}") for kind in ("weight", "bias")}
    tables = ("sem_seg_head.predictor.query_embed.weight", "sem_seg_head.predictor.query_feat.weight")
    theirs |= {name: torch.cat([theirs[name]] * 2) for name in tables} | {"sem_seg_head.predictor.class_embed.weight": torch.zeros(3)}
    old = {name: tensor for name, tensor in theirs.items() if name != tables[1]} | {
        "sem_seg_head.predictor.static_query.weight": theirs[tables[1]]
    }
    for tensors in (theirs, old):
        target = Model(small_psalm_training.SMALL)
        load_masks(target, tensors)
        for name in ("vision.stages.1.1.attn.bias", "predictor.query_features.weight", "pixel_decoder.smooth.1.weight"):
            assert torch.equal(target.state_dict()[name], source.state_dict()[name])
        assert target.pixel_decoder.smooth[0].bias.abs().max() == 0
    del theirs["backbone.norm0.weight"]
    with pytest.raises(WeightsError, match=r"backbone\.norm0\.weight"):
        load_masks(target, theirs)


@pytest.mark.parametrize(
    "names",
    [  # as published in Mask2Former's file, and in PSALM's (without "model.")
        ("backbone.patch_embed.norm.bias", "vision_tower.patch_embed.norm.bias"),
        (
            "backbone.layers.2.blocks.17.attn.qkv.bias",
            "vision_tower.layers.2.blocks.17.attn.qkv.bias",
        ),
        ("backbone.layers.1.downsample.reduction.weight", "vision_tower.layers.1.downsample.reduction.weight"),
        ("backbone.norm3.weight", "vision_tower.norm3.weight"),
        ("sem_seg_head.pixel_decoder.input_proj.2.0.weight", "pixel_decoder.input_proj.2.0.weight"),
        ("sem_seg_head.pixel_decoder.transformer.level_embed", "pixel_decoder.transformer.level_embed"),
        (
            "sem_seg_head.pixel_decoder.transformer.encoder.layers.5.self_attn.sampling_offsets.bias",
            "pixel_decoder.transformer.encoder.layers.5.self_attn.sampling_offsets.bias",
        ),
        ("sem_seg_head.pixel_decoder.adapter_1.weight", "pixel_decoder.adapter_1.0.weight"),
        ("sem_seg_head.pixel_decoder.adapter_1.norm.bias", "pixel_decoder.adapter_1.1.bias"),
        ("sem_seg_head.pixel_decoder.layer_1.norm.weight", "pixel_decoder.layer_1.1.weight"),
        (
            "sem_seg_head.predictor.transformer_cross_attention_layers.8.multihead_attn.in_proj_weight",
            "predictor.transformer_cross_attention_layers.8.multihead_attn.in_proj_weight",
        ),
        ("sem_seg_head.predictor.transformer_ffn_layers.4.linear2.bias", "predictor.transformer_ffn_layers.4.linear2.bias"),
        ("sem_seg_head.predictor.static_query.weight", "predictor.query_feat.weight"),
        ("sem_seg_head.predictor.query_embed.weight", "predictor.query_embed.weight"),
        ("sem_seg_head.predictor.mask_embed.layers.2.weight", "predictor.mask_embed.layers.2.weight"),
    ],
)
def test_mask2former_fills_the_published_places(names: tuple[str, str]) -> None:
    """Both names mean one tensor of ours."""
    start, whole = names[0], names[1] if not names[1].startswith("vision_tower") else f"model.{names[1]}"
    ours = []
    for rules, name in ((MASK2FORMER, start), (keys.OFFICIAL, whole)):
        rule = conversion._find(rules, name)
        assert isinstance(rule, Rename), name
        ours.append(conversion._translate(rule.theirs, rule.ours, name))
    assert ours[0] == ours[1] is not None


def test_adapters_are_merged_and_leave_everything_its_name(root: Path, tmp_path: Path) -> None:
    """With half precision and activations computed again, as on small machines."""
    less = {"sources": small_psalm_training.SOURCES[:1], "lora": 2}
    recipe = replace(small_psalm_training.recipe(root, tmp_path, name="psalm/stage2-lora", options=less, steps=2, precision="bfloat16"))
    recipe = replace(recipe, checkpointing=("language.blocks.*",))
    run = quiet(recipe)
    learning = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad and name.startswith("language.")}
    assert learning
    assert all("lora_" in name for name in learning)
    after = load_file(training.train(recipe, log=lambda _: None) / "model.safetensors")
    assert after.keys() == Model(small_psalm_training.SMALL).state_dict().keys()
    adapted = dict(run.model.named_modules())
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    layers = {name: one for name, one in adapted.items() if hasattr(one, "lora_A") and len(one.lora_A)}
    assert layers
    products = {
        name: one.base_layer.weight + one.scaling["default"] * one.lora_B["default"].weight @ one.lora_A["default"].weight
        for name, one in layers.items()
    }
    whole = run.finished(run.model).state_dict()
    for name, product in products.items():
        torch.testing.assert_close(whole[f"{name}.weight"], product)


@pytest.mark.parametrize("changed", [{"queries": "table"}, {"condition": "last"}])
def test_ablations_change_what_is_read_from_the_language_model(root: Path, tmp_path: Path, changed: dict[str, str]) -> None:
    """Mask tokens that bypass it get no gradient; of a name its last state alone counts."""
    config = replace(small_psalm_training.SMALL, **changed)
    run = quiet(small_psalm_training.recipe(root, tmp_path, options={"config": config, "sources": small_psalm_training.SOURCES[:2]}))
    sum(run.losses(run.collate([run.example(0), run.example(1)])).values()).backward()  # type: ignore[union-attr]
    bypassed = changed.get("queries") == "table"
    assert (run.model.mask_tokens.grad is None or run.model.mask_tokens.grad.abs().max() == 0) == bypassed
    assert (run.model.predictor.query_features.weight.grad is not None) == bypassed
    states = torch.arange(12.0).view(1, 6, 2)
    classes = torch.tensor([[0, 1, 1, 2, 2, 2]])
    assert class_ends(states, classes).tolist() == [[[4, 5], [10, 11]]]
    assert sentence_end(states, classes == 1).tolist() == [[[4, 5]]]


def test_held_out_questions_are_asked_between_steps(root: Path, tmp_path: Path) -> None:
    """One figure per kind; training goes on as if it had not been interrupted."""
    given = {"validation": small_psalm_training.SOURCES, "validated": 2}
    looking = replace(small_psalm_training.recipe(root, tmp_path / "a", options=given, steps=3), validate_every=2, best="mIoU, referring")
    blind = small_psalm_training.recipe(root, tmp_path / "b", steps=3)
    folder, other = (training.train(recipe, log=lambda _: None) for recipe in (looking, blind))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    figures = [{key: value for key, value in line.items() if key.startswith("validation/")} for line in lines]
    figures = [line for line in figures if line]
    assert len(figures) == 2
    kinds = ("mIoU, panoptic", "mIoU, referring", "mIoU, interactive", "likelihood, conversation")
    assert all(line.keys() == {f"validation/{kind}" for kind in kinds} for line in figures)
    assert all(0 <= line[f"validation/{kind}"] <= 1 for line in figures for kind in kinds[:3])
    assert all(line["validation/likelihood, conversation"] < 0 for line in figures)
    assert (folder / "best" / "model.safetensors").is_file()
    for name, tensor in load_file(other / "model.safetensors").items():
        assert torch.equal(tensor, load_file(folder / "model.safetensors")[name]), name
    with pytest.raises(ConfigError, match=r"options\.validation"):
        quiet(replace(blind, validate_every=1))
    with pytest.raises(ConfigError, match="one source of each kind"):
        PsalmTraining(sources=small_psalm_training.SOURCES, validation=small_psalm_training.SOURCES[:1] * 2)
    with pytest.raises(ConfigError, match="validated"):
        PsalmTraining(sources=small_psalm_training.SOURCES, validated=0)


def test_validation_measures_masks(root: Path, tmp_path: Path) -> None:
    """A network that knows the truth gets everything."""
    run = quiet(small_psalm_training.recipe(root, tmp_path))
    for number, kind in ((0, "panoptic"), (2, "referring"), (4, "interactive")):
        example = run.example(number)
        assert example.targets is not None
        masks = example.targets.masks.float() * 40 - 20
        count = len(masks)
        classes = 99 * torch.nn.functional.one_hot(example.targets.labels, 3).float()[None] if kind == "panoptic" else None
        regions = (99 * torch.eye(count),) if kind == "interactive" else None
        sentence = torch.zeros(1, count, 1) if kind == "referring" else None
        head = Head(masks[None], classes, sentence, regions)
        if kind == "panoptic":
            answered, truth = validation._maps(head, example.targets)
            known = truth != IGNORE
            assert torch.equal(answered[known], truth[known])
            assert known.any()
        else:
            pairs = validation._masks(head, example)
            assert len(pairs) == (count if kind == "interactive" else 1)
            assert all(torch.equal(found, wanted > 0) for found, wanted in pairs)


BASE = RECIPES["psalm/stage2"]()
DIFFERENCES: dict[str, dict[str, Any]] = {
    "psalm/stage2-bf16": {"precision": "bfloat16"},
    "psalm/stage2-lora": {"precision": "bfloat16", "lora": 16},
    "psalm/ablation-no-alignment": {"projector": None},
    "psalm/ablation-no-mask-tokens": {"config": PsalmConfig(queries="table")},
    "psalm/ablation-reference-token": {"config": PsalmConfig(condition="last")},
    "psalm/ablation-coupled-classes": {"config": PsalmConfig(classes=names("coco-panoptic133"))},
    "psalm/ablation-one-proposal": {"config": PsalmConfig(masks=MaskConfig(queries=1))},
    "psalm/ablation-panoptic-only": {"sources": BASE.options.sources[:1]},
    "psalm/ablation-referring-only": {"sources": BASE.options.sources[1:2]},
    "psalm/ablation-interactive-only": {"sources": BASE.options.sources[2:3]},
}


def test_recipes_differ_in_what_their_names_say() -> None:
    assert RECIPES.keys() - DIFFERENCES.keys() == {"psalm/stage1", "psalm/stage2", "psalm/handful"}
    for name, changes in DIFFERENCES.items():
        options = {key: value for key, value in changes.items() if key != "precision"}
        precision = changes.get("precision", "float16")
        wanted = replace(BASE, name=name, output=f"runs/{name}", precision=precision, options=replace(BASE.options, **options))
        assert RECIPES[name]() == wanted
    for made in (BASE, RECIPES["psalm/stage1"]()):
        assert (made.options.language, made.options.masks) == (("phi-1_5_dev/model.safetensors",), "model_final_54b88a.pkl")
        assert made.checkpointing == ("language.blocks.*",)
    assert (BASE.precision, BASE.options.projector) == ("float16", "runs/psalm/stage1/model.safetensors")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("psalm/ablation-no-mask-tokens", 0),
        ("psalm/ablation-reference-token", 0),
        ("psalm/ablation-one-proposal", 0),
        ("psalm/ablation-referring-only", 1),
        ("psalm/ablation-interactive-only", 2),
    ],
)
def test_ablations_are_trained_kept_and_asked(name: str, kinds: int, root: Path, tmp_path: Path) -> None:
    """One step each; what was trained is read again, and answers by the rule that it was trained with."""
    wanted = RECIPES[name]().options.config
    queries = min(wanted.masks.queries, small_psalm_training.SMALL.masks.queries)
    masks = replace(small_psalm_training.SMALL.masks, queries=queries)
    config = replace(small_psalm_training.SMALL, queries=wanted.queries, condition=wanted.condition, masks=masks)
    options = {"config": config, "sources": small_psalm_training.SOURCES[kinds : kinds + 1]}
    folder = training.train(small_psalm_training.recipe(root, tmp_path, name=name, options=options, steps=1), log=lambda _: None)
    segmenter = load(folder, precision="float32")
    assert segmenter.model.config == config
    found = segmenter(np.zeros((20, 30, 3), np.uint8), ["a dog", Box(2, 2, 9, 9)])
    assert [mask.mask.shape for mask in found] == [(20, 30)] * 2


def test_coupled_classes_are_learned_by_number(root: Path, tmp_path: Path) -> None:
    """The classifier learns, the names' way to the scores does not; asked are its own classes, any of them, in any order."""
    config = replace(small_psalm_training.SMALL, classes=("person", "grass-merged"))
    options = {"config": config, "sources": small_psalm_training.SOURCES[:1]}
    recipe = small_psalm_training.recipe(root, tmp_path, name="psalm/ablation-coupled-classes", options=options, steps=1)
    run = quiet(recipe)
    sum(run.losses(run.collate([run.example(0), run.example(1)])).values()).backward()  # type: ignore[union-attr]
    assert run.model.predictor.classifier.weight.grad.abs().max() > 0
    assert run.model.to_class.weight.grad is None
    segmenter = load(training.train(recipe, log=lambda _: None), precision="float32")
    photo = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    both = segmenter.semantic(photo, background=0.0)
    assert both.classes == ("person", "grass-merged")
    turned = segmenter.semantic(photo, ["grass-merged", ["human", "person"]], background=0.0)
    assert np.array_equal(both.labels, 1 - turned.labels)
    assert (segmenter.model.things, segmenter.model.stuff) == (("person",), ("grass-merged",))
    assert segmenter(photo, "a dog")[0].mask.shape == (20, 30)  # sentences are compared as ever
    with pytest.raises(PromptError, match="knows no 'dragon'"):
        segmenter.instances(photo, ["person", "dragon"])
    with pytest.raises(WeightsError):
        zoo.to_official(segmenter.model)
    wrong = replace(recipe, options=replace(recipe.options, config=replace(config, classes=("grass-merged", "person"))))
    with pytest.raises(ConfigError, match="in their order"):
        quiet(wrong)
    with pytest.raises(ConfigError, match="all different"):
        replace(config, classes=("person", "person"))


def test_what_does_not_fit(root: Path, tmp_path: Path) -> None:
    fine = small_psalm_training.recipe(root, tmp_path)
    small = replace(small_psalm_training.SMALL, language=replace(small_psalm_training.SMALL.language, vocabulary=100))
    with pytest.raises(WeightsError, match="297 tokens, the language model 100"):
        quiet(replace(fine, options=replace(fine.options, config=small)))
    gone = Source(kind="referring", path=("nothing.json",))
    with pytest.raises(DataError, match=r"nothing\.json"):
        quiet(replace(fine, options=replace(fine.options, sources=(gone,))))
    with pytest.raises(DataError, match="no list of entries"):
        quiet(replace(fine, options=replace(fine.options, sources=(Source(kind="referring", path=("talk.json",)),))))
    with pytest.raises(ConfigError, match="kind of a source"):
        Source(kind="video", path=("x",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one source"):
        PsalmTraining(sources=())
    with pytest.raises(ConfigError, match="rank"):
        PsalmTraining(sources=(gone,), lora=0)

"""DenseCLIP's segmenters: every published tensor has its place, names guide, and other names than the trained ones get an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from typer.testing import CliRunner

from promptseg import zoo
from promptseg.cli import app
from promptseg.contracts import Options
from promptseg.data import vocabularies
from promptseg.drawing import heat
from promptseg.errors import ConfigError, ImageError, PromptError, UnsupportedTask, WeightsError
from promptseg.images import resized_8bit, to_pixels
from promptseg.maps import SemanticMap
from promptseg.models.catseg import CatSegOptions
from promptseg.models.denseclip import LAYOUTS, DenseClipOptions, DetectionOptions, Model
from promptseg.models.denseclip.cards import baseline
from promptseg.models.denseclip.context import visual_context
from promptseg.models.denseclip.start import start_from_clip
from promptseg.models.denseclip.text import class_tokens
from promptseg.models.denseclip.vit import drop_path
from promptseg.nn import conversion
from promptseg.nn.clip_config import AttentionPoolConfig
from promptseg.nn.clip_resnet import AttentionPool
from promptseg.nn.fpn import FeaturePyramid
from promptseg.prompts import Box, Text, plain
from promptseg.score_maps import draw_score_maps, score_maps
from promptseg.segmenter import Segmenter
from small_denseclip import CLASSES, CONFIGS, LAYOUTS_PUBLISHED, RESNET, VIT, build, check_card, layout
from test_denseclip_imagenet import TINY
from test_denseclip_small import SMALL
from toy_family import photo

GOLDEN = Path(__file__).parent / "golden" / "denseclip"
INVENTORIES = {
    "denseclip-fpn-r50": "inventory_denseclip_fpn_res50_512x512_80k",
    "denseclip-fpn-vitb": "inventory_denseclip_fpn_vit-b_640x640_80k",
}
CARD = "denseclip-fpn-r50"


@pytest.fixture(scope="module")
def ask() -> Segmenter:
    return Segmenter(build(), replace(zoo.card(CARD), preprocess=RESNET.preprocess), device="cpu", precision="float32")


# --- weights ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", INVENTORIES)
def test_every_published_name_has_its_place(card: str) -> None:
    entries = json.loads((GOLDEN / f"{INVENTORIES[card]}.json").read_text(encoding="utf-8"))["entries"]
    theirs = {entry["name"]: torch.zeros(()).expand(entry["shape"]) for entry in entries}
    with torch.device("meta"):
        full = Model(zoo.config(card))
    expected = conversion.shapes_of(full)
    ours = conversion.from_official(LAYOUTS["official"], theirs, expected)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == expected
    back = conversion.to_official(LAYOUTS["official"], ours)
    assert {name: tensor.shape for name, tensor in back.items()} == {name: tensor.shape for name, tensor in theirs.items()}
    assert layout(theirs) == LAYOUTS_PUBLISHED[card]
    with pytest.raises(WeightsError, match="conv_seg"):
        conversion.from_official(LAYOUTS["official"], {name: theirs[name] for name in theirs if "conv_seg" not in name}, expected)


@pytest.mark.parametrize("card", [card.name for card in zoo.cards() if card.name.startswith(("denseclip-fpn", "denseclip-baseline-fpn"))])
def test_cards_have_the_published_layout(card: str) -> None:
    check_card(card)


@pytest.mark.parametrize("kind", CONFIGS)
def test_there_and_back_is_bit_exact(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(CONFIGS[kind])
    with monkeypatch.context() as small:
        small.setattr("promptseg.zoo.checkpoints.find_card", lambda name: replace(zoo.card(name), config=CONFIGS[kind]))
        again = zoo.from_official(CARD, zoo.to_official(model)).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    folder, card = zoo.load(zoo.save_folder(model, tmp_path, CARD))
    assert card.config == CONFIGS[kind]
    assert all(torch.equal(folder.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def clip_of(model: Model) -> dict[str, Tensor]:
    """CLIP's file with the towers of a network, other positions, and what it holds besides."""
    theirs = zoo.to_official(model)
    towers = {name.replace("backbone.", "visual.").removeprefix("text_encoder."): tensor for name, tensor in theirs.items()
              if name.startswith(("backbone.", "text_encoder.")) and "backbone.fpn" not in name}  # fmt: skip
    text = torch.cat([towers["positional_embedding"], torch.randn(70, 16)])
    return {**towers, "positional_embedding": text, "logit_scale": torch.tensor(4.6), "vocab_size": torch.tensor(49408)}


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_training_starts_from_clip(config: Any) -> None:
    source, model = build(config), Model(config)
    found = start_from_clip(model, clip_of(source))
    assert all("fpn" in name for name in found.missing)
    assert not found.unexpected
    for name, tensor in source.state_dict().items():
        if name.startswith(("image.", "text.")) and not name.startswith(("image.levels", "text.contexts")) and "num_batches" not in name:
            assert torch.equal(model.state_dict()[name], tensor), name
    other = replace(config, language=replace(config.language, text=replace(config.language.text, layers=2)))
    with pytest.raises(WeightsError, match="not the CLIP"):
        start_from_clip(Model(other), clip_of(source))


def test_training_starts_from_the_file_of_transformers() -> None:
    """Names are then embedded as there; a residual network, which no such file holds, is not left at random."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 64, "projection_dim": 16, "num_attention_heads": 2}
    parts = {"text_config": sizes | {"num_hidden_layers": 1}, "vision_config": sizes | {"patch_size": 16, "image_size": 96}}
    parts["vision_config"]["num_hidden_layers"] = 4
    theirs = CLIPModel(CLIPConfig(**parts, projection_dim=16)).eval()
    file = theirs.state_dict() | {"text_model.embeddings.position_ids": torch.arange(77)[None]}  # as older versions write it
    for config in (VIT, baseline(VIT)):
        model = build(config)
        assert all("fpn" in name for name in start_from_clip(model, file).missing)
        first, queries = model.image.blocks[0], theirs.vision_model.encoder.layers[0].self_attn.q_proj
        assert torch.equal(model.image.patch_embedding.weight, theirs.vision_model.embeddings.patch_embedding.weight)
        assert torch.equal(first.attn.qkv.weight[:16], queries.weight)
        assert model.image.position_embedding.shape == (17, 16)  # a grid of 4 x 4 made of one of 6 x 6
        assert torch.equal(model.image.position_embedding[0], theirs.vision_model.embeddings.position_embedding.weight[0])
    model, ids = build(VIT), class_tokens(CLASSES)
    start_from_clip(model, file)
    with torch.no_grad():
        torch.testing.assert_close(model.text(ids), theirs.text_projection(theirs.text_model(ids).pooler_output), rtol=1e-4, atol=1e-5)
        assert torch.equal(model.image.projection, theirs.visual_projection.weight.T)
    with pytest.raises(WeightsError, match=r"not the CLIP .*: visual\.conv1\.weight"):
        start_from_clip(build(RESNET), file)
    with pytest.raises(WeightsError, match=r"vision_model.*instead of"):
        start_from_clip(build(replace(VIT, backbone=replace(VIT.backbone, width=32))), file)


# --- network ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_any_size_gives_logits_at_stride_four(kind: str) -> None:
    model = build(CONFIGS[kind])
    with torch.no_grad():
        logits, scores = model(torch.randn(2, 3, 75, 98))
    assert logits.shape[:2] == (2, 3)
    assert logits.isfinite().all()
    assert (scores is None) == ("baseline" in kind)
    assert scores is None or scores.abs().max() <= 1


def test_names_change_the_answer_and_images_change_the_names() -> None:
    model = build()
    with torch.no_grad():
        image = model.encode_image(torch.randn(2, 3, 64, 96))
        base = model.class_embeddings()
        found = model.guide(image, base)
        unheard = model.classify(image, torch.zeros_like(found.scores))
    assert not torch.equal(found.texts[0], found.texts[1])
    assert not torch.allclose(model.classify(image, found.scores), unheard)
    alone = replace(RESNET, language=replace(RESNET.language, prompting="none"))
    with torch.no_grad():
        bare = build(alone)
        assert torch.equal(
            bare.guide(bare.encode_image(torch.randn(1, 3, 64, 64)), bare.class_embeddings()).texts[0], bare.class_embeddings()
        )


def test_with_pre_model_prompting_every_image_reads_the_names_anew() -> None:
    """The contexts are the image's, with no residual, and the whole learns; a segmenter asks as usual."""
    model = build(replace(RESNET, language=replace(RESNET.language, prompting="pre")))
    pixels = torch.randn(2, 3, 64, 96)
    logits, scores = model(pixels)
    alone = model(pixels[1:])
    assert torch.allclose(alone[0], logits[1:], atol=1e-4)
    image = model.encode_image(pixels)
    found = model.guide(image, model.class_embeddings())
    assert not torch.allclose(found.texts[0], found.texts[1])
    contexts = model.context_decoder(model.queries.expand(2, -1, -1), visual_context(image.embedding, image.local))
    assert contexts.shape == (2, 2, 16)
    assert torch.allclose(model.text.embed(model.class_embeddings(), contexts[:1])[0], found.texts[0], atol=1e-5)
    (logits.square().mean() + scores.square().mean()).backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "queries" in name or "context_decoder" in name)
    asked = Segmenter(model, zoo.card(CARD), device="cpu", precision="float32")
    assert list(asked.semantic(photo()).classes) == list(CLASSES)
    assert list(asked.semantic(photo(), ["dog", "cat"]).classes) == ["dog", "cat"]
    with pytest.raises(WeightsError, match="queries"):
        zoo.to_official(model)


def test_small_images_and_far_positions_are_refused() -> None:
    with pytest.raises(ImageError, match="32 and more"):
        build(VIT)(torch.randn(1, 3, 31, 64))
    pool = AttentionPool(16, AttentionPoolConfig(embed=4, grid=2, heads=2, resize=False))
    assert pool(torch.randn(1, 16, 2, 1))[1].shape == (1, 4, 2, 1)
    with pytest.raises(ImageError, match="grid of 2x2"):
        pool(torch.randn(1, 16, 3, 2))


NARROW = {"clip": (RESNET, True), "vit": (VIT, True), "lite": (SMALL, True)} | {
    name: (replace(RESNET, backbone=backbone), False) for name, backbone in TINY.items()
}


@pytest.mark.parametrize(("config", "refused"), NARROW.values(), ids=NARROW)
def test_narrow_photos_are_answered_or_refused_unless_they_are_stretched(config: Any, refused: bool) -> None:
    ask = Segmenter(build(config), replace(zoo.card(CARD), preprocess=config.preprocess), device="cpu", precision="float32")
    long = 200 if refused else 40  # one that is answered takes a window for every few pixels
    for narrow in (photo(10, long), photo(long, 10)):
        with pytest.raises(ImageError, match="fit='stretch'") if refused else nullcontext():
            assert ask.semantic(narrow).size == narrow.shape[:2]
        assert ask.semantic(narrow, options=Options(fit="stretch")).size == narrow.shape[:2]
    if config is RESNET:
        assert ask.model.encode_image(torch.zeros(1, 3, 31, 40)).maps[-1].shape[-2:] == (1, 1)


def test_pyramids_of_detectors() -> None:
    levels = [torch.randn(1, 4 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)]
    retina = FeaturePyramid([8, 16, 32], 6, start=1, outputs=5, extra="convs_on_input")(levels)
    assert [level.shape[-1] for level in retina] == [16, 8, 4, 2, 1]
    mask = FeaturePyramid([4, 8, 16, 32], 6, outputs=5, extra="max_pool")(levels)
    assert torch.equal(mask[4], mask[3][..., ::2, ::2])


def test_dropped_paths_keep_the_mean() -> None:
    torch.manual_seed(0)
    kept = drop_path(torch.ones(20000, 2), 0.25)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert kept.mean() == pytest.approx(1.0, abs=0.02)


# --- use --------------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def by_hand(model: Model, pixels: np.ndarray, looks: Sequence[tuple[tuple[int, int], bool]]) -> np.ndarray:
    """mmsegmentation's order. Of each look, (H, W) and whether mirrored: the photo resized, turned, in windows of 64 pixels, 42 apart;
    logits averaged, enlarged, squashed, turned back. The mean of all."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.preprocess.mean, model.config.preprocess.std))
    total = torch.zeros(3, *pixels.shape[:2])
    for (height, width), mirrored in looks:
        shown = (torch.from_numpy(resized_8bit(pixels, (height, width))).permute(2, 0, 1) / 255 - mean) / std
        shown = shown[None].flip(-1) if mirrored else shown[None]
        logits, times = torch.zeros(1, 3, height, width), torch.zeros(height, width)
        for x in dict.fromkeys(min(start, max(width - 64, 0)) for start in range(0, max(width - 64, 0) + 42, 42)):
            part = shown[..., x : x + 64]
            logits[..., x : x + 64] += F.interpolate(model(part)[0], part.shape[-2:], mode="bilinear")
            times[:, x : x + 64] += 1
        shares = F.interpolate(logits / times, pixels.shape[:2], mode="bilinear")[0].softmax(0)
        total += shares.flip(-1) if mirrored else shares
    return (total / len(looks)).numpy()


def same(found: SemanticMap, shares: np.ndarray) -> None:
    assert (found.labels == shares.argmax(0)).mean() > 0.999
    for index in np.flatnonzero(found.areas):
        assert found.scores[index] == pytest.approx(shares[index][found.labels == index].mean(), rel=1e-3)


def test_the_trained_classes_are_asked_unless_others_are_named(ask: Segmenter) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = ask.semantic(pixels)
    assert tuple(found.classes) == CLASSES
    same(found, by_hand(ask.model, pixels, [((64, 96), False)]))
    assert (ask.semantic(pixels, list(CLASSES)).labels == found.labels).all()


def test_several_scales_and_mirrored_as_published(ask: Segmenter) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (50, 90, 3), np.uint8)
    looks = {0.5: (32, 58), 1.0: (64, 115)}
    for scales, flip in (((0.5, 1.0), True), ((0.5,), False)):
        found = ask.semantic(pixels, options=DenseClipOptions(scales=scales, flip=flip))
        wanted = [(looks[scale], mirrored) for scale in scales for mirrored in (False, True)[: 1 + flip]]
        same(found, by_hand(ask.model, pixels, wanted))
    whole = DenseClipOptions(mode="whole", scales=(0.5, 1.0), flip=True)
    assert [(view.content, view.window, view.mirrored) for view in ask.model.views((50, 90), whole)] == [
        (content, None, mirrored) for content in looks.values() for mirrored in (False, True)
    ]
    kept = ask.embed_image(pixels, options=whole)
    assert (ask.semantic(kept).labels == ask.semantic(pixels, options=whole).labels).all()


def test_blanks_and_capitals_change_no_answer(ask: Segmenter) -> None:
    """The names are what CLIP reads; the authors' own list of ADE20K has a "bed "."""
    wanted = ask.semantic(photo())
    for names in (["cat ", "Traffic  light", "SKY"], [" cat", "traffic light", "sky"]):
        found = ask.semantic(photo(), names)
        assert tuple(found.classes) == tuple(names)
        assert (found.labels == wanted.labels).all()
    published = list(vocabularies.names("ade150"))
    assert published != [plain(name) for name in published] == list(zoo.config(CARD).classes)


def test_other_names_are_answered_by_the_score_map(ask: Segmenter) -> None:
    names = ["dog", "cat"]
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    found = ask.semantic(pixels, names)
    mean, std = (torch.tensor(values)[:, None, None] for values in (RESNET.preprocess.mean, RESNET.preprocess.std))
    with torch.no_grad():
        image = ask.model.encode_image(((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None])
        scores = ask.model.guide(image, ask.model.class_embeddings(names)).scores
    wanted = F.interpolate(scores / 0.07, (64, 64), mode="bilinear")[0].argmax(0).numpy()
    assert (found.labels == wanted).mean() > 0.999
    assert list(found.classes) == names


def test_score_maps_are_drawn(ask: Segmenter) -> None:
    """The picture is brightest where the cosine is highest; the numbers are those that the network guides itself by."""
    names = ["cat", "a dog", "sky"]
    scores, pictures = score_maps(ask, photo(), names), draw_score_maps(ask, photo(), names)
    assert scores.shape[0] == 3
    assert np.abs(scores).max() <= 1
    assert list(pictures) == names
    assert {picture.size for picture in pictures.values()} == {(60, 40)}
    view = ask.model.whole_view((40, 60), Options())
    with torch.no_grad():
        image = ask.model.encode_image(to_pixels(photo(), view, ask.model.config.preprocess)[None])
        expected = ask.model.guide(image, ask.model.class_embeddings(names)).scores[0]
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)
    assert list(draw_score_maps(ask, photo())) == list(CLASSES)
    with pytest.raises(UnsupportedTask, match="denseclip-fpn-r50"):
        score_maps(Segmenter(build(CONFIGS["resnet-baseline"]), zoo.card(CARD), device="cpu"), photo())
    several = score_maps(ask, photo(), [["cat", "a dog"], "sky"])
    np.testing.assert_array_equal(several, np.stack([scores[:2].max(0), scores[2]]))
    with pytest.raises(ImageError, match="fit='stretch'"):
        score_maps(ask, photo(10, 200))
    assert score_maps(ask, photo(10, 200), names, options=Options(fit="stretch")).shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("names", "says"),
    [([], "one or more"), ([5], "not 5"), ("dog", "single string 'dog'"), (["dog", "dog"], "twice"), ([" "], "empty")],
)
def test_score_maps_are_of_names(ask: Segmenter, names: Any, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        draw_score_maps(ask, photo(), names)


def test_heat_rises_in_lightness() -> None:
    picture = np.asarray(heat(np.full((8, 50, 3), 100, np.uint8), np.linspace(-3, 5, 50)[None])).astype(int).sum(-1)
    assert (np.diff(picture[4]) >= 0).all()
    assert picture[4, -1] > picture[4, 0] + 200
    flat = np.asarray(heat(np.zeros((4, 4, 3), np.uint8), np.full((2, 2), 7.0)))
    assert (flat == flat[0, 0]).all()


def test_names_are_read_once(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    ask.semantic(photo())
    monkeypatch.setattr(ask.model.text, "embed", lambda *_: pytest.fail("the text tower ran again"))
    assert ask.semantic(photo(50, 40)).size == (50, 40)


def test_looks_and_tiles(ask: Segmenter) -> None:
    model = ask.model
    assert [view.window for view in model.views((64, 96), Options())] == [(0, 0, 64, 64), (32, 0, 96, 64)]
    assert len(model.views((640, 960), DenseClipOptions(mode="whole"))) == 1
    assert ask.semantic(photo(), options=Options(tile=30)).size == (40, 60)
    assert ask.semantic(photo(), options=DenseClipOptions(mode="whole")).size == (40, 60)
    assert (ask.semantic([photo(), photo(50, 40)])[0].labels == ask.semantic(photo()).labels).all()


def test_a_baseline_knows_its_classes_only() -> None:
    ask = Segmenter(build(CONFIGS["resnet-baseline"]), zoo.card("denseclip-baseline-fpn-r50"), device="cpu", precision="float32")
    everything = ask.semantic(photo())
    assert tuple(everything.classes) == CLASSES
    assert set(np.unique(ask.semantic(photo(), ["sky", "cat"]).labels)) <= {0, 1}
    assert (ask.semantic(photo(), ["Sky", "cat "]).labels == ask.semantic(photo(), ["sky", "cat"]).labels).all()
    with pytest.raises(PromptError, match="none of its 3 classes"):
        ask.semantic(photo(), ["dog"])


def test_bad_input(ask: Segmenter) -> None:
    with pytest.raises(PromptError, match="needs 6 tokens"):
        ask.semantic(photo(), ["a very long name of something"])
    with pytest.raises(PromptError, match="bare names"):
        ask.semantic(photo(), ["dog"], options=Options(templates=("a photo of a {}.",)))
    with pytest.raises(PromptError, match="not Box"):
        ask.model.encode_prompts([Box(0, 0, 1, 1)])
    with pytest.raises(ConfigError, match="'slide' or 'whole'"):
        DenseClipOptions(mode="sliding")  # type: ignore[arg-type]
    for scales in ((), 2.0, ("a",), (0.0,)):
        with pytest.raises(ConfigError, match="scales are"):
            DenseClipOptions(scales=scales)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leave fit, size and tile out"):
        DenseClipOptions(flip=True, tile=64)
    for other in (DetectionOptions(), CatSegOptions()):
        with pytest.raises(ConfigError, match="has no effect on this model"):
            ask.semantic(photo(), options=other)
    for changes in ({"tau": 0.0}, {"prompting": "both"}, {"contexts": 3}, {"level": 9}):
        with pytest.raises(ConfigError):
            replace(RESNET, language=replace(RESNET.language, **changes))
    with pytest.raises(ConfigError, match="one space"):
        replace(RESNET, backbone=replace(RESNET.backbone, pool=AttentionPoolConfig(embed=8, grid=2, heads=4)))
    for changes in ({"patch": 14}, {"taps": (3, 1)}, {"drop_path": 1.0}):
        with pytest.raises(ConfigError):
            replace(VIT.backbone, **changes)
    assert ask.model.encode_prompts([]).condition.shape == (0, 16)
    assert len(ask.model.encode_prompts([Text("dog")])) == 1


def test_the_command_line_asks_the_trained_classes(tmp_path: Path) -> None:
    from PIL import Image

    folder = zoo.save_folder(build(), tmp_path / "model", CARD)
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    call = ["semantic", str(tmp_path / "photo.png"), "--model", str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]
    call += ["--precision", "float32"]
    done = CliRunner().invoke(app, [*call, "--mode", "whole", "--score-maps"])
    assert done.exit_code == 0, done.output
    labels = np.asarray(Image.open(tmp_path / "out" / "photo" / "labels.png"))
    ask = Segmenter(*zoo.load(folder), device="cpu", precision="float32")
    assert (labels == ask.semantic(photo(), options=DenseClipOptions(mode="whole")).labels + 1).all()
    drawn = Image.open(tmp_path / "out" / "photo" / "scores" / "001-traffic-light.png")
    assert (np.asarray(drawn) == np.asarray(draw_score_maps(ask, photo())["traffic light"])).all()
    Image.fromarray(photo(10, 200)).save(tmp_path / "photo.png")
    assert CliRunner().invoke(app, call).exit_code == 3
    assert CliRunner().invoke(app, [*call, "--fit", "stretch"]).exit_code == 0

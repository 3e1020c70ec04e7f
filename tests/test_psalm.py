"""PSALM's network: published weights both ways, what is shared between questions, and the way of clicks and masks through it."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import small_psalm
from promptseg import zoo
from promptseg.contracts import Options
from promptseg.errors import ConfigError, PromptError, WeightsError, WeightsNotFound
from promptseg.models import family
from promptseg.models.psalm import Model, PsalmConfig, PsalmOptions, swin
from promptseg.models.psalm import postprocess as post
from promptseg.models.psalm.clicks import regions
from promptseg.models.psalm.conditions import region_points
from promptseg.models.psalm.config import LanguageConfig, MaskConfig, SwinConfig
from promptseg.models.psalm.photos import PADDING, to_input
from promptseg.models.psalm.tokens import Tokenizer
from promptseg.models.psalm.video import Frame, Memory, chosen, confused, index_map
from promptseg.nn.conversion import to_official
from promptseg.prompts import Box, Exemplar, MaskPrompt, Points, Scribble
from promptseg.segmenter import load
from promptseg.zoo import reading
from small_psalm import CONFIG, card, model

GOLDEN = Path(__file__).parent / "golden" / "psalm"


@pytest.fixture(autouse=True)
def _small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    small = (card(),)
    monkeypatch.setattr(family("psalm"), "CARDS", small)


def same(found: torch.nn.Module, wanted: torch.nn.Module) -> bool:
    theirs = wanted.state_dict()
    return found.state_dict().keys() == theirs.keys() and all(torch.equal(one, theirs[name]) for name, one in found.state_dict().items())


# --- published weights ------------------------------------------------------------------------------------------------------------------


def sharded(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """As Hugging Face writes large models: files of a few tensors each, and an index."""
    names, places = list(weights), dict[str, str]()
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name].contiguous() for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return index


def test_the_published_shards_come_in_and_go_back_bit_for_bit(tmp_path: Path) -> None:
    wanted = model()
    theirs = zoo.to_official(wanted)
    extra = {"model.vision_tower.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64)}
    index = sharded(tmp_path, theirs | extra)
    wanted.words.save(tmp_path)
    for place in (index, tmp_path):
        found, _ = zoo.load(place, card="psalm")
        assert same(found, wanted)
        assert found.words.encode("a dog") == wanted.words.encode("a dog")
    assert all(torch.equal(one, theirs[name]) for name, one in zoo.to_official(found).items())
    with pytest.raises(WeightsError, match=r"lm_head\.weight"):
        zoo.from_official("psalm", {name: one for name, one in theirs.items() if name != "lm_head.weight"})
    with pytest.raises(WeightsError, match=r"seg_query2"):
        zoo.from_official("psalm", theirs | {"seg_query2": torch.zeros(1)})


def test_every_published_tensor_has_its_place() -> None:
    """The names and shapes of the published file against those of the network of the card."""
    entries = json.loads((GOLDEN / "inventory_psalm.json").read_text(encoding="utf-8"))["entries"]
    published = {entry["name"]: tuple(entry["shape"]) for entry in entries if "float" in entry["dtype"]}
    with torch.device("meta"):
        ours = Model(PsalmConfig()).state_dict()
    assert {name: tuple(one.shape) for name, one in to_official(family("psalm").LAYOUTS["official"], ours).items()} == published


def test_loading_makes_no_second_copy(tmp_path: Path) -> None:
    theirs = zoo.to_official(model())
    found = zoo.from_official("psalm", theirs)
    assert found.language.embed.weight.data_ptr() == theirs["model.embed_tokens.weight"].data_ptr()
    halved = zoo.from_official("psalm", {name: one.half() for name, one in theirs.items()})
    assert {parameter.dtype for parameter in halved.parameters()} == {torch.float32}
    with pytest.raises(WeightsError, match="integers"):
        zoo.from_official("psalm", theirs | {"seg_query": torch.zeros(6, 32, dtype=torch.int64)})


@pytest.mark.parametrize("stored", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_the_precision_asked_for_is_that_of_the_files_and_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: torch.dtype, wanted: str
) -> None:
    dtype, network = getattr(torch, wanted), model().to(stored)
    sharded(tmp_path, zoo.to_official(network))
    network.words.save(tmp_path)
    zoo.save_folder(network, tmp_path / "own", "psalm")
    converted, read = list[weakref.ref[torch.Tensor]](), reading._converted

    def watched(tensor: torch.Tensor, to: torch.dtype) -> torch.Tensor:
        assert to == dtype
        if to != stored:
            assert not any(one() is not None for one in converted)  # what was stored went with the tensor before
            converted.append(weakref.ref(tensor))
        return read(tensor, to)

    monkeypatch.setattr(reading, "_converted", watched)
    monkeypatch.setattr(Model, "float", None)
    for place in (tmp_path, tmp_path / "own"):
        found = load(place, card="psalm", device="cpu", precision=wanted)
        assert same(found.model, model().to(stored).to(dtype))
    assert len(converted) == (2 * len(network.state_dict()) if dtype != stored else 0)


def test_a_folder_of_ours_keeps_the_tokenizer(tmp_path: Path) -> None:
    wanted = model()
    zoo.save_folder(wanted, tmp_path, "psalm")
    found, _ = zoo.load_folder(tmp_path)
    assert same(found, wanted)
    assert found.words.encode("two dogs") == wanted.words.encode("two dogs")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsNotFound, match=r"tokenizer\.json"):
        _ = zoo.load_folder(tmp_path)[0].words


def test_a_tokenizer_larger_than_the_vocabulary_is_refused() -> None:
    small = Model(replace(CONFIG, language=replace(CONFIG.language, vocabulary=100)))
    with pytest.raises(WeightsError, match="297 tokens"):
        small.words = Tokenizer()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (SwinConfig, {"depths": (2, 2)}),
        (SwinConfig, {"width": 6}),
        (SwinConfig, {"drop_path": 1.0}),
        (LanguageConfig, {"heads": 3}),
        (MaskConfig, {"queries": 0}),
        (MaskConfig, {"width": 100}),
        (PsalmConfig, {"region_points": 0}),
        (PsalmConfig, {"preprocess": replace(CONFIG.preprocess, size=100)}),
        (PsalmOptions, {"union_threshold": 2.0}),
    ],
)
def test_impossible_settings_are_refused(kind: type, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        kind(**change)


# --- what questions share ---------------------------------------------------------------------------------------------------------------


def test_the_opening_of_a_prompt_is_read_once_and_changes_nothing() -> None:
    net = model()
    with torch.inference_mode():
        image = net.encode_image(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        assert image.prefix is not None
        bare = replace(image, prefix=None)
        for prompt in (
            net.words.prompt("referring", sentences=["the left dog"]),
            net.words.prompt("panoptic", classes=["a", "b", "background"]),
        ):
            shared, whole = net.decode(image, prompt), net.decode(bare, prompt)
            assert torch.allclose(shared.masks, whole.masks, atol=1e-4)
            pairs = [(shared.sentence, whole.sentence), (shared.classes, whole.classes)]
            assert [one is None for one, _ in pairs] == [other is None for _, other in pairs]
            assert all(torch.allclose(one, other, atol=1e-4) for one, other in pairs if one is not None and other is not None)


def test_padding_behind_a_prompt_changes_nothing() -> None:
    """The language model is causal, so a batch of two answers like two."""
    from promptseg.models.psalm.tokens import collate

    net = model()
    prompts = [net.words.prompt("referring", sentences=[sentence]) for sentence in ("a dog", "the second cat from the left")]
    with torch.inference_mode():
        tokens = net.projector(net.look(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))[0][-1])
        both = net.understand(collate(prompts, net.words.pad), tokens)
        for number, prompt in enumerate(prompts):
            one = net.understand(collate([prompt], net.words.pad), tokens[number : number + 1])
            assert torch.allclose(both.queries[number], one.queries[0], atol=1e-4)
            assert both.conditions.sentence is not None
            assert one.conditions.sentence is not None
            assert torch.allclose(both.conditions.sentence[number], one.conditions.sentence[0], atol=1e-4)


def test_too_long_a_question_is_refused() -> None:
    net = model()
    with torch.inference_mode(), pytest.raises(PromptError, match="fewer classes or objects"):
        net.decode(net.encode_image(torch.zeros(1, 3, 64, 64)), net.words.prompt("panoptic", classes=["x"] * 2000))
    short = Model(replace(CONFIG, language=replace(CONFIG.language, context=300))).eval()
    short.words = net.words
    with torch.inference_mode(), pytest.raises(PromptError, match="reads 300"):
        short.decode(short.encode_image(torch.zeros(1, 3, 64, 64)), net.words.prompt("panoptic", classes=["x"] * 20))


def test_training_sees_the_photo_twice_under_stochastic_depth() -> None:
    net = model()
    calls: list[int] = []
    net.vision.register_forward_hook(lambda *_: calls.append(1))
    pixels = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        net.look(pixels)
        net.train().look(pixels)
    assert len(calls) == 3


# --- photos, clicks and masks -----------------------------------------------------------------------------------------------------------


def test_a_photo_is_shown_as_published() -> None:
    """The view's pixels with the padding painted over are the published input."""
    from promptseg import images

    net, photo = model(), np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    (view,) = net.views((40, 70), Options())
    shown = net.prepare(images.to_pixels(photo, view, CONFIG.preprocess), view)
    assert torch.allclose(shown, to_input(photo, 64), atol=1e-5)
    assert PADDING == 128


def test_looks_that_psalm_does_not_have() -> None:
    for options, message in ((Options(tile=64), "tile"), (Options(fit="stretch"), "fit"), (Options(size=100), "multiple of 64")):
        with pytest.raises(ConfigError, match=message):
            model().views((40, 70), options)


def test_clicks_become_regions() -> None:
    drawn = np.zeros((100, 100), np.bool_)
    drawn[10:20, 30:60] = True
    found = regions(
        [Points(((50, 50),)), Box(30, 10, 60, 20), MaskPrompt(drawn), Scribble(((10, 10), (90, 10))), Scribble(((5, 95),))], (100, 100), 100
    )
    assert found[0].sum() == sum((x * x + y * y) <= 100 for x in range(-10, 11) for y in range(-10, 11))
    assert np.array_equal(found[1], drawn)
    assert np.array_equal(found[2], drawn)
    assert found[3][5:16, 10:91].all()
    assert not found[3][17:].any()
    assert found[4][95, 5]
    assert regions([], (100, 100), 64).shape == (0, 64, 64)
    for prompt, message in (
        (Points(((200, 5),)), "marks nothing"),
        (Points(((5, 5), (9, 9)), (1, 0)), "label 0"),
        (Exemplar(drawn), "not Exemplar"),
    ):
        with pytest.raises(PromptError, match=message):
            regions([prompt], (100, 100), 64)
    with pytest.raises(PromptError, match="Prompt 7 "):
        regions([Points(((200, 5),))], (100, 100), 64, 7)


def test_points_are_drawn_inside() -> None:
    masks = torch.zeros(3, 8, 8)
    masks[0, 2:6, 2:6] = 1
    masks[1, 7, 3] = 1
    points = region_points(masks, 16)
    assert len({tuple(point) for point in points[0].tolist()}) == 16
    assert (points[1] == torch.tensor([7 / 8, 3 / 8])).all()
    assert not points[2].any()


def test_the_best_query_is_found_without_growing_all() -> None:
    from promptseg.models.psalm.grid import Grid

    grid, masks = Grid((40, 70), 64), torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(2))
    shares = torch.tensor([0.2, 0.9, 0.5, 0.85, 0.1, 0.3])
    logits, score = grid.best(masks, shares)
    scores = shares * post.certainty(post.enlarged(masks, 64, grid.content, grid.size))
    assert score == pytest.approx(float(scores.max()))
    assert torch.equal(logits, post.inside(masks[scores.argmax()][None], 64, grid.content)[0])


# --- videos -----------------------------------------------------------------------------------------------------------------------------


def test_objects_get_queries_of_their_own_while_there_are_any() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.1, 0.3, 0.6], [0.0, 0.2, 0.5]])
    assert chosen(scores) == [0, 1, 2]
    assert chosen(torch.tensor([[0.9, 0.8]])) == [0, 0]


def test_memory_keeps_the_last_good_frame() -> None:
    left, right, lost = np.zeros((4, 8), np.bool_), np.zeros((4, 8), np.bool_), np.zeros((4, 8), np.bool_)
    left[:, :4], right[:, 4:] = True, True
    tokens = torch.zeros(1, 1, 2)
    memory = Memory(Frame(tokens, np.stack([left, right])))
    assert memory.prompt() is memory.first
    good = Frame(tokens, np.stack([right, left]))
    for bad in (np.stack([left, left]), np.stack([left, lost])):
        memory.keep(Frame(tokens, bad))
        assert memory.last is None
    memory.keep(good)
    memory.keep(Frame(tokens, np.stack([left, left])))
    assert memory.prompt() is good
    assert np.array_equal(memory.prompt([1]).masks, right[None])
    assert confused(np.stack([left, left]))
    assert not confused(np.stack([left, right]))
    assert index_map(np.stack([left, left | right]), [3, 5]).tolist() == [[5] * 8] * 4


def test_a_network_that_was_asked_can_be_trained() -> None:
    """What the windows of one size need is kept; it must not stem from inference."""
    swin.relative_index.cache_clear()
    swin.shift_mask.cache_clear()
    network, pixels = small_psalm.model(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        network.look(pixels)
    maps, _ = network.look(pixels)
    sum(level.sum() for level in maps).backward()
    assert all(block.attn.bias.grad is not None for block in network.modules() if isinstance(block, swin.Block))

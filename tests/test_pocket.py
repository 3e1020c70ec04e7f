"""The network of `pocket` at toy size: shapes, prompts, invariances, and what its file holds."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
import torch

from promptseg import Segmenter, zoo
from promptseg.contracts import Options
from promptseg.errors import ConfigError, PromptError, PromptUnread, WeightsError
from promptseg.models.pocket import Model, PocketConfig, pack, unpack
from promptseg.models.pocket.decoder import product_logit
from promptseg.models.pocket.text import with_pieces
from promptseg.nn.efficientnet import EfficientNetLite
from promptseg.nn.efficientnet_config import stage_widths
from promptseg.prompts import Blend, Exemplar, Points, Text

PIECES = ["a", "dog", "cat", "grass", "the", "on", "##s", "photo", "of"]
CONFIG = PocketConfig(
    variant="lite0", width=32, heads=4, blocks=1, classes=5, text_width=16, pieces=len(PIECES), piece_bytes=len("\n".join(PIECES)),
    second_look=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = Model(CONFIG)
    network.text = with_pieces(PIECES, CONFIG.text_width)
    network.text.store(torch.randn(len(PIECES), CONFIG.text_width))
    network.class_keys.copy_(torch.nn.functional.normalize(torch.randn(5, 16), dim=-1))
    return network.eval()


def _photo(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_tower_widths_are_the_published_ones() -> None:
    assert stage_widths("lite0") == (16, 24, 40, 80, 112, 192, 320)
    assert stage_widths("lite2") == (16, 24, 48, 88, 120, 208, 352)
    assert sum(p.numel() for p in EfficientNetLite("lite0").parameters()) + 1280 * 1000 + 1000 == 4_652_008  # the published count


def test_folded_convolutions_say_the_same_and_follow_their_weights() -> None:
    torch.manual_seed(1)
    tower = EfficientNetLite("lite0").eval()
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean, module.running_var = 0.1 * torch.randn_like(module.weight), 0.5 + torch.rand_like(module.weight)
    pixels = torch.randn(1, 3, 64, 96)
    for _ in range(2):
        plain = tower(pixels)
        with torch.inference_mode():
            folded = tower(pixels)
        for one, other in zip(plain, folded, strict=True):
            torch.testing.assert_close(other, one.detach(), rtol=1e-4, atol=1e-4)
        with torch.no_grad():  # a training step, as far as the folded weights know
            tower.stem.norm.running_mean.add_(0.3)
            tower.stages[1][0].expand.conv.weight.mul_(1.1)  # type: ignore[index]


@torch.inference_mode()
def test_every_prompt_answers_every_photo_and_alone_is_as_together(model: Model) -> None:
    pixels = torch.randn(2, 3, 64, 96)
    prompts = [Text("a dog"), Text("the grass"), Exemplar(_photo(), np.ones((40, 56), bool))]
    together = model(pixels, prompts)
    assert together.logits.shape == (2, 3, 16, 24)
    assert together.presence is not None
    assert together.presence.shape == (2, 3)
    for b in range(2):
        for n in range(3):
            alone = model(pixels[b : b + 1], prompts[n : n + 1])
            torch.testing.assert_close(alone.logits[0, 0], together.logits[b, n], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(alone.presence[0, 0], together.presence[b, n], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_no_prompt_and_many_prompts(model: Model) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    assert model(pixels, []).logits.shape == (1, 0, 8, 8)
    assert model(pixels, [Text("dog")] * 70).logits.shape == (1, 70, 8, 8)


def test_two_threads_answer_as_one(model: Model) -> None:
    """From the start, when neither the folded weights of the tower nor any prompt is at hand."""
    photos, names, options = [_photo(seed=seed) for seed in range(4)], ["a dog", "the grass"], Options(size=64)

    def fresh() -> Segmenter:
        return Segmenter(copy.deepcopy(model), replace(zoo.card("pocket"), config=CONFIG), device="cpu", precision="float32")

    def answers(ask: Segmenter, chosen: list[np.ndarray]) -> list[np.ndarray]:
        return [np.stack([mask.probabilities for mask in ask(photo, names, options=options)]) for photo in chosen]

    alone, shared, start = answers(fresh(), photos), fresh(), Barrier(2)

    def work(first: int) -> list[np.ndarray]:
        start.wait()
        return answers(shared, photos[first::2])

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(work, (0, 1)))
    for index, probabilities in enumerate(alone):
        np.testing.assert_array_equal(halves[index % 2][index // 2], probabilities)
    assert np.ptp([float(found.mean()) for found in alone]) > 0


@torch.inference_mode()
def test_what_it_cannot_read_is_said_each_time(model: Model) -> None:
    ask = Segmenter(copy.deepcopy(model), replace(zoo.card("pocket"), config=CONFIG), device="cpu", precision="float32")
    for _ in range(2):
        with pytest.warns(PromptUnread, match="knows none in '犬'") as told:
            ask.embed_prompts(["犬", "a dog"])
        assert len(told) == 1


@torch.inference_mode()
def test_words_that_it_leaves_out_of_a_phrase_are_named(model: Model) -> None:
    with pytest.warns(PromptUnread, match="does not know '犬', 'красный' in 'a dog, 犬 красный 犬!'; its mask is of the others") as told:
        found = model.encode_prompts(["a dog, 犬 красный 犬!"]).condition
    assert len(told) == 1
    torch.testing.assert_close(found, model.encode_prompts(["a dog"]).condition)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_prompts(["A dóg, (dog)!"])


@torch.inference_mode()
def test_blend_moves_from_exemplar_to_text(model: Model) -> None:
    text, exemplar = Text("dog"), Exemplar(_photo(), np.ones((40, 56), bool))
    ends = model.encode_prompts([text, exemplar]).condition
    blends = model.encode_prompts([Blend(text, exemplar, alpha) for alpha in (1.0, 0.0, 0.5)]).condition
    torch.testing.assert_close(blends[:2], ends)
    torch.testing.assert_close(blends[2], torch.nn.functional.normalize(ends.mean(0), dim=-1))
    torch.testing.assert_close(ends.norm(dim=1), torch.ones(2))


@torch.inference_mode()
def test_with_the_mirror_image_a_mirrored_photo_has_the_mirrored_mask(model: Model) -> None:
    looking = Model(replace(CONFIG, second_look=1.0)).eval()
    looking.load_state_dict(model.state_dict())
    pixels, prompts = torch.randn(2, 3, 64, 96), [Text("dog"), Text("cat")]
    straight, mirrored = looking(pixels, prompts), looking(pixels.flip(3), prompts)
    torch.testing.assert_close(mirrored.logits.flip(3), straight.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mirrored.presence, straight.presence, atol=1e-4, rtol=1e-4)
    one, other = model(pixels, prompts).logits.sigmoid(), model(pixels.flip(3), prompts).logits.flip(3).sigmoid()
    torch.testing.assert_close(straight.logits.sigmoid(), (one + other) / 2, atol=1e-4, rtol=1e-4)
    smaller = Model(replace(CONFIG, second_look=0.75)).eval()
    smaller.load_state_dict(model.state_dict())
    assert smaller(pixels, prompts).logits.shape == straight.logits.shape
    assert smaller(pixels[..., :32, :32], []).logits.shape == (2, 0, 8, 8)
    low = smaller.bfloat16()(pixels.bfloat16(), prompts).logits
    torch.testing.assert_close(low.sigmoid(), smaller.float()(pixels, prompts).logits.sigmoid(), atol=0.1, rtol=0.1)


def test_templates_are_averaged(model: Model) -> None:
    averaged = model.encode_prompts([Text("dog", ("a {}", "the {}"))]).condition
    apart = model.encode_prompts([Text("a dog"), Text("the dog")]).condition
    torch.testing.assert_close(averaged[0], torch.nn.functional.normalize(apart.mean(0), dim=-1))


@torch.inference_mode()
def test_words_it_cannot_read_get_an_empty_mask_and_spoil_nothing(model: Model) -> None:
    image = model.encode_image(torch.randn(1, 3, 32, 32))
    alone = model.decode(image, model.encode_prompts(["dog"]))
    with pytest.warns(PromptUnread, match="knows none in '犬'"):
        features = model.encode_prompts(["犬", "dog"])
    both = model.decode(image, features)
    assert both.logits[0, 0].max() < -10
    assert both.presence is not None
    assert both.presence[0, 0] < -10
    torch.testing.assert_close(both.logits[0, 1], alone.logits[0, 0], atol=1e-4, rtol=1e-4)


def test_prompts_it_does_not_read(model: Model) -> None:
    with pytest.raises(PromptError, match="not Points"):
        model.encode_prompts([Points(((1, 1),))])
    with pytest.raises(PromptError, match="'pool'"):
        model.encode_prompts([Exemplar(_photo(), np.ones((40, 56), bool), technique="blur")])


@pytest.mark.parametrize("change", [{"variant": "lite9"}, {"film": False, "similarity": False}, {"width": 30}])
def test_impossible_configurations(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **change)


@pytest.mark.parametrize("change", [{"film": False}, {"similarity": False}, {"blocks": 2}, {"width": 64}, {"variant": "lite2"}])
@torch.inference_mode()
def test_every_field_builds_a_working_network(change: dict[str, object]) -> None:
    network = Model(replace(CONFIG, **change)).eval()
    prediction = network(torch.randn(1, 3, 32, 64), [])
    assert prediction.logits.shape == (1, 0, 8, 16)
    condition = torch.randn(1, 2, 16)
    logits, presence = network.answer(network.encode_image(torch.randn(1, 3, 32, 64)), condition)
    assert logits.shape == (1, 2, 8, 16)
    assert presence.shape == (1, 2)


def test_product_of_probabilities() -> None:
    a, b = torch.linspace(-30, 30, 41), torch.linspace(-25, 35, 41).flip(0)
    wanted = torch.logit(a.double().sigmoid() * b.double().sigmoid())
    torch.testing.assert_close(product_logit(a, b).double(), wanted, atol=1e-4, rtol=1e-4)


def test_file_holds_half_precision_and_comes_back(model: Model) -> None:
    packed = pack(model.state_dict())
    assert packed["tower.stem.conv.weight"].dtype == torch.float16
    assert packed["text.table"].dtype == torch.int8
    again = Model(CONFIG)
    again.load_state_dict(unpack(packed))
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value.float(), model.state_dict()[name].float(), atol=1e-3, rtol=1e-3)
    assert pack(again.state_dict()).keys() == packed.keys()


def test_text_table_is_quantised_finely() -> None:
    tower = with_pieces(PIECES, 16)
    vectors = torch.randn(len(PIECES), 16)
    tower.store(vectors)
    said = tower(["dog", "the cat"])
    wanted = torch.nn.functional.normalize(torch.stack([vectors[1], vectors[4] + vectors[2]]), dim=-1)
    assert (said * wanted).sum(-1).min() > 0.9999


def test_damaged_word_pieces_are_named() -> None:
    tower = with_pieces(["dog", "cat"], 16)
    tower.pieces[1] = 255
    with pytest.raises(WeightsError, match="word pieces"):
        tower(["dog"])

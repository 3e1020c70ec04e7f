"""What CLIPSeg is trained on: its loss, mixed conditions, dropout where torch has it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import small_clipseg
from promptseg.errors import ConfigError
from promptseg.models.clipseg.decoder import PlainHead
from promptseg.models.clipseg.losses import mask_loss
from promptseg.models.clipseg.mixing import Mixing, mix, mixed_condition
from promptseg.nn.attention import PostNormBlock

seeds = st.integers(0, 2**32 - 1)


# --- loss ---------------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_the_loss_is_the_mean_surprise(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(2, 1, 5, 7, generator=generator, dtype=torch.double)
    targets = (torch.rand(2, 1, 5, 7, generator=generator) > 0.5).double()
    p = logits.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert float(mask_loss(logits, targets)) == pytest.approx(float(expected), rel=1e-5)
    assert float(mask_loss(logits, targets)) == pytest.approx(float(mask_loss(-logits, 1 - targets)), rel=1e-6)


def test_its_gradient_is_the_difference_quotient() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(1, 1, 3, 3), torch.rand(1, 1, 3, 3)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(mask_loss(logits, targets), logits)
    for index in range(9):
        nudge = torch.zeros(9).index_fill(0, torch.tensor(index), 1e-2).view_as(logits)
        with torch.no_grad():
            quotient = (mask_loss(logits + nudge, targets) - mask_loss(logits - nudge, targets)) / 2e-2
        assert float(gradient.flatten()[index]) == pytest.approx(float(quotient), rel=2e-3, abs=1e-5)


def test_right_and_sure_costs_nothing_and_wrong_and_sure_stays_finite() -> None:
    target = torch.tensor([0.0, 1.0])
    assert float(mask_loss(torch.tensor([-90.0, 90.0]), target)) < 1e-12
    assert float(mask_loss(torch.tensor([90.0, -90.0]).half(), target)) == pytest.approx(90)


# --- conditions ---------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_weights_lie_between_their_bounds_and_conditions_between_their_ends(seed: int, a: float, b: float) -> None:
    mixing = Mixing(low=min(a, b), high=max(a, b))
    generator = torch.Generator().manual_seed(seed)
    weights = mixing.draw(6, generator)
    assert bool(((weights >= mixing.low - 1e-6) & (weights <= mixing.high + 1e-6)).all())
    text, visual = torch.randn(2, 6, 4, generator=generator)
    mixed = mix(text, visual, weights)
    assert bool(((mixed >= torch.minimum(text, visual) - 1e-5) & (mixed <= torch.maximum(text, visual) + 1e-5)).all())
    torch.testing.assert_close(mix(text, visual, torch.ones(6)), text)
    torch.testing.assert_close(mix(text, visual, torch.zeros(6)), visual)


def test_without_a_picture_the_text_counts_alone() -> None:
    text, visual, weights = torch.ones(3, 2), torch.zeros(3, 2), torch.tensor([0.25, 0.25, 0.25])
    assert mix(text, visual, weights, torch.tensor([True, False, True]))[:, 0].tolist() == [0.25, 1, 0.25]


def test_draws_are_published_ones() -> None:
    """The wordings, then the weights as `torch.distributions.Uniform` draws them."""
    model, pictures = small_clipseg.model(), torch.randn(3, 3, 32, 32)
    torch.manual_seed(5)
    mixed = mixed_condition(model, ["cat", "dog", "sky"], pictures, None, Mixing(high=0.5, templates="shuffle"))
    torch.manual_seed(5)
    templates = ["a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}."]
    drawn = torch.multinomial(torch.ones(4), 3, replacement=True)
    texts = model.embed_texts([templates[index].format(word) for index, word in zip(drawn.tolist(), ["cat", "dog", "sky"], strict=True)])
    weights = torch.distributions.Uniform(0, 0.5).sample((3,))[:, None]  # type: ignore[no-untyped-call]
    torch.testing.assert_close(mixed, weights * texts + (1 - weights) * model.embed_images(pictures))


def test_a_generator_of_ones_own_leaves_the_global_one_alone() -> None:
    model, pictures = small_clipseg.model(), torch.randn(2, 3, 32, 32)
    before = torch.get_rng_state()
    a, b = (
        mixed_condition(model, ["cat", "dog"], pictures, torch.tensor([True, False]), Mixing(), torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.6, "high": 0.5}, "0 to 1, not 0.6 and 0.5"),
        ({"high": 1.5}, "0 to 1"),
        ({"templates": "shufle"}, "Did you mean 'shuffle'"),
    ],
)
def test_impossible_mixtures_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixing(**options)


def test_recipes_can_hold_it_without_torch() -> None:
    program = "import sys; from promptseg.models.clipseg.mixing import Mixing; Mixing(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- dropout ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def torchs_own() -> Iterator[tuple[PostNormBlock, torch.nn.TransformerEncoderLayer]]:
    """Our block and torch's, of the same weights, both training with dropout."""
    torch.manual_seed(1)
    block = PostNormBlock(32, 4, 64, dropout=0.3).train()
    reference = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.3, batch_first=True).train()
    names = {"attn.qkv.": "self_attn.in_proj_", "attn.out": "self_attn.out_proj", "mlp.up": "linear1", "mlp.down": "linear2"}
    state = {}
    for name, tensor in block.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    reference.load_state_dict(state)
    return block, reference


def test_dropout_is_where_torchs_is(torchs_own: tuple[PostNormBlock, torch.nn.TransformerEncoderLayer]) -> None:
    x = torch.randn(1, 7, 32)  # of several sequences torch draws in another order: it puts the sequence first
    results = []
    for block in torchs_own:
        torch.manual_seed(4)
        results.append(block(x))
    torch.testing.assert_close(*results)  # the same places are left out: torch draws for them in this order
    assert not torch.allclose(torchs_own[0].eval()(x), results[0])


def test_training_starts_where_torchs_modules_start() -> None:
    """Bounds and spreads of random weights; a published decoder is made of torch's own modules."""
    torch.manual_seed(0)
    block, layer = PostNormBlock(64, 4, 2048), torch.nn.TransformerEncoderLayer(64, 4)
    head, conv = PlainHead(64, 16), torch.nn.ConvTranspose2d(64, 1, 16, 16)
    pairs = {
        (block.attn.qkv.weight, layer.self_attn.in_proj_weight),
        (block.attn.qkv.bias, layer.self_attn.in_proj_bias),
        (block.attn.out.weight, layer.self_attn.out_proj.weight),
        (block.attn.out.bias, layer.self_attn.out_proj.bias),
        (block.mlp.up.weight, layer.linear1.weight),
        (block.mlp.down.bias, layer.linear2.bias),
        (head.weight, conv.weight),
    }
    for ours, theirs in ((a.detach(), b.detach()) for a, b in pairs):
        assert float(ours.abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.15)
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.15)
    biases = torch.stack([PlainHead(4, 16).bias.detach() for _ in range(200)])
    assert float(biases.abs().max()) == pytest.approx(1 / 16, rel=0.15)  # torch's bound, 1 / sqrt(16 * 16)


def test_a_trained_network_answers_alike_every_time() -> None:
    model, pixels = small_clipseg.model(), torch.randn(1, 3, 32, 32)
    condition = torch.randn(1, 16)
    with torch.no_grad():
        assert torch.equal(*(model.decoder(model.encode_image(pixels), condition) for _ in range(2)))


def test_training_lowers_the_loss_of_one_example() -> None:
    torch.manual_seed(0)
    model = small_clipseg.build()
    targets = F.pad(torch.ones(1, 1, 16, 16), (8, 8, 8, 8))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    pixels, condition = torch.randn(1, 3, 32, 32), torch.randn(1, 16)
    losses = []
    for _ in range(30):
        loss = mask_loss(model.decoder(model.encode_image(pixels), condition), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert math.isfinite(losses[-1])
    assert losses[-1] < 0.8 * losses[0]

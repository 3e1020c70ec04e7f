"""CLIP's towers: what they skip must not show, what they are asked for must be right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from promptseg.errors import ConfigError, ImageError
from promptseg.nn import attention
from promptseg.nn import clip as towers
from promptseg.nn.attention import AttentionMask, PostNormBlock, PreNormBlock
from promptseg.nn.clip import ImageTower, TextTower
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.nn.positions import resize_kernel, resize_table

VISION = ClipVisionConfig(width=32, layers=4, heads=4, patch=8, grid=4, embed=16)
TEXT = ClipTextConfig(width=32, layers=2, heads=4, embed=16, vocabulary=100)


@pytest.fixture(scope="module")
def image_tower() -> ImageTower:
    torch.manual_seed(0)
    return ImageTower(VISION).eval()


@pytest.fixture(scope="module")
def text_tower() -> TextTower:
    torch.manual_seed(0)
    return TextTower(TEXT).eval()


def phrase(*words: int, length: int = 0) -> torch.Tensor:
    ids = torch.tensor([98, *words, 99])
    return torch.nn.functional.pad(ids, (0, max(0, length - len(ids))))


def test_pre_norm_block_is_torchs_own_with_quick_gelu() -> None:
    torch.manual_seed(1)
    block = PreNormBlock(32, 4).eval()
    x = torch.randn(2, 7, 32)
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": block.attn.qkv.weight,
            "in_proj_bias": block.attn.qkv.bias,
            "out_proj.weight": block.attn.out.weight,
            "out_proj.bias": block.attn.out.bias,
        }
    )
    normed = block.norm1(x)
    y = x + reference(normed, normed, normed)[0]
    hidden = block.mlp.up(block.norm2(y))
    expected = y + block.mlp.down(hidden * torch.sigmoid(1.702 * hidden))
    torch.testing.assert_close(block(x), expected)


def test_post_norm_block_is_torchs_encoder_layer() -> None:
    torch.manual_seed(1)
    block = PostNormBlock(32, 4, 64).eval()
    reference = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0, batch_first=True).eval()
    names = {"attn.qkv.": "self_attn.in_proj_", "attn.out": "self_attn.out_proj", "mlp.up": "linear1", "mlp.down": "linear2"}
    state = {}
    for name, tensor in block.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    reference.load_state_dict(state)
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(block(x), reference(x))


def test_gradients_flow_through_the_in_place_activation() -> None:
    block = PreNormBlock(8, 2).double()
    x = torch.randn(1, 3, 8, dtype=torch.double, requires_grad=True)
    scaled = block.mlp(x)
    hidden = block.mlp.up(x)
    expected = block.mlp.down(hidden * torch.sigmoid(1.702 * hidden))
    inputs = [x, *block.mlp.parameters()]
    ours, reference = (torch.autograd.grad(result.sum(), inputs) for result in (scaled, expected))
    for actual, wanted in zip(ours, reference, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_only_blocks_that_are_read_are_run(image_tower: ImageTower) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    run: list[int] = []
    handles = [block.register_forward_hook(lambda *_, i=i: run.append(i)) for i, block in enumerate(image_tower.blocks)]
    seen = image_tower(pixels, taps=(0, 2), embed=False)
    for handle in handles:
        handle.remove()
    assert run == [0, 1, 2]
    assert seen.embedding is None
    everything = image_tower(pixels, taps=range(4))
    assert sorted(seen.activations) == [0, 2]
    for tap, tokens in seen.activations.items():
        torch.testing.assert_close(tokens, everything.activations[tap])


@pytest.mark.parametrize("size", [(32, 32), (40, 64), (8, 80), (37, 50)])
def test_any_size_gives_its_grid(image_tower: ImageTower, size: tuple[int, int]) -> None:
    seen = image_tower(torch.randn(2, 3, *size), taps=(1,))
    assert seen.grid == (size[0] // 8, size[1] // 8)
    assert seen.activations[1].shape == (2, 1 + seen.grid[0] * seen.grid[1], 32)
    assert seen.embedding is not None
    assert seen.embedding.shape == (2, 16)


def test_too_small_an_image_is_refused(image_tower: ImageTower) -> None:
    with pytest.raises(ImageError, match="8x8"):
        image_tower(torch.zeros(1, 3, 7, 64))


def test_square_reading_is_the_published_geometry(image_tower: ImageTower) -> None:
    assert image_tower(torch.zeros(1, 3, 16, 64), square=True).grid == (4, 4)
    with pytest.raises(ImageError, match="2x4"):
        image_tower(torch.zeros(1, 3, 16, 32), square=True)


def test_weights_on_request_are_those_that_act(image_tower: ImageTower) -> None:
    pixels = torch.randn(2, 3, 32, 32)
    plain, asked = image_tower(pixels), image_tower(pixels, weights=(1, 3))
    torch.testing.assert_close(plain.embedding, asked.embedding)
    assert sorted(asked.weights) == [1, 3]
    assert asked.weights[1].shape == (2 * 4, 17, 17)
    torch.testing.assert_close(asked.weights[3].sum(-1), torch.ones(8, 17))


@pytest.mark.parametrize("kind", ["cls_token", "all"])
def test_a_mask_of_ones_changes_nothing_and_zeros_level_the_attention(image_tower: ImageTower, kind: str) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    plain = image_tower(pixels, weights=(2,))
    ones = image_tower(pixels, mask=AttentionMask(torch.ones(1, 32, 32), kind, (2,)), weights=(2,))  # type: ignore[arg-type]
    torch.testing.assert_close(plain.embedding, ones.embedding)
    zeros = image_tower(pixels, mask=AttentionMask(torch.zeros(1, 32, 32), kind, (2,)), weights=(2,)).weights[2]  # type: ignore[arg-type]
    row = 0 if kind == "cls_token" else 5
    assert torch.allclose(zeros[:, row, 1:], zeros[:, row, 1:2].expand(-1, 16))  # logit 0 everywhere: all patches weigh the same
    other = 5 if kind == "cls_token" else 0
    torch.testing.assert_close(zeros[:, other], plain.weights[2][:, other])


def test_masks_of_a_batch_are_laid_out_as_published() -> None:
    masks = torch.stack([torch.zeros(1, 2), torch.ones(1, 2)])
    factors = AttentionMask(masks, "cls_token").factors((1, 2), heads=2)
    assert factors[:, 0, 1].tolist() == [0, 1, 0, 1]  # rows are b0h0, b0h1, b1h0, b1h1: head 1 of image 0 uses the mask of image 1


def test_tables_and_kernels_are_kept_at_their_own_size() -> None:
    table, kernel = torch.randn(17, 6), torch.randn(6, 3, 8, 8)
    assert resize_table(table, (4, 4)) is table
    assert resize_kernel(kernel, 8) is kernel
    wide = resize_table(table, (2, 9))
    assert wide.shape == (19, 6)
    torch.testing.assert_close(wide[0], table[0])
    assert resize_kernel(kernel, 16).shape == (6, 3, 16, 16)
    torch.testing.assert_close(resize_kernel(kernel, 15)[..., ::14, ::14], kernel[..., ::7, ::7])  # align_corners: corners stay


def test_padding_after_the_end_token_is_not_seen(text_tower: TextTower) -> None:
    short, padded = phrase(5, 6)[None], phrase(5, 6, length=20)[None]
    torch.testing.assert_close(text_tower(short), text_tower(padded))
    noisy = padded.clone()
    noisy[:, 4:] = 7
    torch.testing.assert_close(text_tower(short), text_tower(noisy))


def test_batches_of_phrases_are_their_parts(text_tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [phrase(*range(1, 1 + n), length=30) for n in (3, 20, 1, 8, 20, 2, 0, 13)]
    alone = torch.cat([text_tower(row[None]) for row in rows])
    calls: list[tuple[int, int]] = []
    encode = TextTower._encode

    def counted(self: TextTower, ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        calls.append((len(ids), int(ends.max()) + 1))
        return encode(self, ids, ends)

    monkeypatch.setattr(TextTower, "_encode", counted)
    torch.testing.assert_close(text_tower(torch.stack(rows)), alone)
    assert sum(count for count, _ in calls) == len(rows)
    monkeypatch.setattr(towers, "TEXT_TOKENS_AT_ONCE", 44)
    calls.clear()
    torch.testing.assert_close(text_tower(torch.stack(rows)), alone)
    assert all(count * length <= 44 for count, length in calls)


@torch.inference_mode()
@pytest.mark.parametrize("own", [[(5,), (6, 7), (8,), (5,)], [(), (6, 7)], [(5,), (5,)]])
def test_a_common_beginning_is_read_once(text_tower: TextTower, own: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_tower, "packs", True)
    rows = [phrase(1, 2, 3, *words, length=20) for words in own]
    alone = torch.cat([text_tower(row[None]) for row in rows])
    read: list[int] = []
    handle = text_tower.blocks[0].register_forward_pre_hook(lambda _, taken: read.append(taken[0].shape[1]))
    torch.testing.assert_close(text_tower(torch.stack(rows)), alone)
    common = 5 if len(set(own)) == 1 else 4  # with the start token, and never the end
    assert read == [common + sum(len(words) + 5 - common for words in own)], "no padding"
    monkeypatch.setattr(towers, "TOKENS_PACKED", 2)
    torch.testing.assert_close(text_tower(torch.stack(rows)), alone)
    assert len(read) > 2
    handle.remove()
    rows = [torch.cat([row[place:], row.new_zeros(place)]) for place, row in enumerate(rows)]  # nothing in common
    torch.testing.assert_close(text_tower(torch.stack(rows)), torch.cat([text_tower(row[None]) for row in rows]))


def test_the_first_largest_id_ends_a_phrase(text_tower: TextTower) -> None:
    twice = torch.tensor([[98, 4, 99, 5, 99]])
    torch.testing.assert_close(text_tower(twice), text_tower(twice[:, :3]))


def test_no_phrases_give_no_rows(text_tower: TextTower) -> None:
    assert text_tower(torch.zeros(0, 5, dtype=torch.long)).shape == (0, 16)


def test_bfloat16_stays_close(image_tower: ImageTower, text_tower: TextTower) -> None:
    pixels, ids = torch.randn(1, 3, 32, 32), phrase(5, 6)[None]
    image, text = ImageTower(VISION).eval(), TextTower(TEXT).eval()
    image.load_state_dict(image_tower.state_dict())
    text.load_state_dict(text_tower.state_dict())
    low, full = image.bfloat16()(pixels.bfloat16()).embedding, image_tower(pixels).embedding
    assert torch.cosine_similarity(low.float(), full).item() > 0.99
    assert torch.cosine_similarity(text.bfloat16()(ids).float(), text_tower(ids)).item() > 0.99


def test_the_residual_stream_of_a_bfloat16_tower_is_not_rounded_to_bfloat16() -> None:
    torch.manual_seed(0)
    config = replace(VISION, layers=12)
    full, low, pixels = ImageTower(config).eval(), ImageTower(config).eval().bfloat16(), torch.randn(4, 3, 32, 32)
    full.load_state_dict(low.state_dict())
    expected = full(pixels, taps=[11], embed=False).activations[11]
    stream, _ = low.embed_patches(pixels.bfloat16())
    for block in low.blocks:
        stream = block(stream)
    kept = low(pixels.bfloat16(), taps=[11], embed=False).activations[11]
    assert kept.dtype == low(pixels.bfloat16()).embedding.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert (kept - expected).square().mean() < 0.5 * (stream - expected).square().mean()


def test_bfloat16_attention_is_the_same_in_any_portions_and_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attend, x = attention.Attention(32, 4).eval(), torch.randn(5, 9, 32)
    full = attend(x)
    at_once = attend.bfloat16()(x.bfloat16())
    monkeypatch.setattr(attention, "UNFUSED_BYTES", 2 * 4 * 9 * 9 * 2)
    in_pairs = attend(x.bfloat16())
    torch.testing.assert_close(in_pairs, at_once, rtol=0.02, atol=0.01)
    torch.testing.assert_close(in_pairs.float(), full, rtol=0.05, atol=0.02)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of heads"):
        ClipVisionConfig(width=30, layers=1, heads=4, patch=8, grid=4, embed=16)

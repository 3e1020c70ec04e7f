"""Heads that fine-tunings teach `pocket`: which prompts they answer, and that all others are answered as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import promptseg
import small_pocket
from promptseg import zoo
from promptseg.errors import ConfigError
from promptseg.models.pocket.network import TAUGHT, Model
from promptseg.models.pocket.text import with_pieces

NAMES = ("dog", "cat", "grass", "person", "red dog")
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def network(*taught: Sequence[str]) -> Model:
    """A network with random weights and a head, unlike any other, for each list of names."""
    torch.manual_seed(0)
    model = Model(small_pocket.CONFIG)
    model.text = with_pieces(small_pocket.PIECES, small_pocket.CONFIG.text_width)
    model.text.store(torch.randn(len(small_pocket.PIECES), small_pocket.CONFIG.text_width))
    for names in taught:
        head = model.teach(model.text(names))
        with torch.no_grad():
            for value in head.decoder.parameters():
                value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


@torch.no_grad()
def answers(model: Model, names: Sequence[str]) -> Tensor:
    """Of each name asked alone: products of other shapes round otherwise."""
    return torch.cat([model(PIXELS, [name]).logits for name in names], 1)


def changed(one: Tensor, other: Tensor) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(one.unbind(1), other.unbind(1), strict=True)]


def test_a_head_begins_as_what_answered_before() -> None:
    model, again = network(("dog",)), network(("dog",))
    for names in (["cat"], ["dog", "cat"]):
        before = answers(model, NAMES)
        model.teach(model.text(names))
        model.eval()
        assert not any(changed(answers(model, ["dog"]), answers(again, ["dog"])))
    assert not any(changed(before[:, :1], answers(model, ["dog"])))
    assert model.config.taught == ((1, 0), (1, 0), (2, 0))


def test_the_newest_head_that_was_taught_a_name_answers() -> None:
    plain, one, two, three = network(), network(("dog",)), network(("dog",), ("cat",)), network(("dog",), ("cat",), ("dog", "grass"))
    first, second, third, fourth = (answers(model, NAMES[:4]) for model in (plain, one, two, three))
    assert changed(first, second) == [True, False, False, False]
    assert changed(second, third) == [False, True, False, False]
    assert changed(third, fourth) == [True, False, True, False]


def test_the_nearest_name_decides_between_heads() -> None:
    model = network()
    dog, any_other = model.text(["dog", "cat"])
    near = 0.8 * dog + 0.6 * F.normalize(any_other - (any_other @ dog) * dog, dim=0)
    for names in (dog, near, dog):
        model.teach(names[None])
    assert model._answering(torch.stack([dog, near, -dog, 2 * near])).tolist() == [2, 1, -1, 1]
    assert model.half()._answering(torch.stack([dog, near]).half()).tolist() == [2, 1]


def test_a_prompt_that_means_another_name_rather_is_answered_as_before() -> None:
    model = network()
    dog, any_other = model.text(["dog", "cat"])
    aside = F.normalize(any_other - (any_other @ dog) * dog, dim=0)
    hot_dog, between = 0.8 * dog + 0.6 * aside, F.normalize(1.8 * dog + 0.6 * aside, dim=0)
    model.teach(dog[None], hot_dog[None])
    assert model._answering(torch.stack([dog, hot_dog, 0.9 * dog + 0.1 * hot_dog, 0.1 * dog + 0.9 * hot_dog])).tolist() == [0, -1, 0, -1]
    assert model._answering(between[None]).tolist() == [0], "as near to both"
    model.teach(hot_dog[None], dog[None])
    assert model._answering(torch.stack([dog, hot_dog])).tolist() == [0, 1]


@pytest.mark.parametrize(("cosine", "taught"), [(TAUGHT + 0.01, True), (TAUGHT - 0.01, False)])
def test_a_prompt_that_means_a_name_is_answered_by_its_head(cosine: float, taught: bool) -> None:
    dog, any_other = network().text(["dog", "cat"])
    aside = F.normalize(any_other - (any_other @ dog) * dog, dim=0)
    condition = 3 * (cosine * dog + (1 - cosine**2) ** 0.5 * aside)[None]  # its length means nothing
    with torch.no_grad():
        old, new = (
            model.decode(model.encode_image(PIXELS), replace(model.encode_prompts(["dog"]), condition=condition)).logits
            for model in (network(), network(("dog",)))
        )
    assert torch.equal(old, new) != taught


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=70))
def test_prompts_are_answered_together_as_alone(names: list[str]) -> None:
    model = network(("dog",), ("cat", "grass"))
    alone = {name: answers(model, [name])[:, 0] for name in NAMES}
    with torch.no_grad():
        together = model(PIXELS, names).logits
    torch.testing.assert_close(together, torch.stack([alone[name] for name in names], 1), rtol=1e-4, atol=1e-4)


def test_heads_are_kept_in_the_folder_and_used_by_a_segmenter(tmp_path: Path) -> None:
    model = network(("dog",))
    model.teach(model.text(["cat", "grass"]), model.text(["dog", "red", "person"]))
    model.eval()
    folder = zoo.save_folder(model, tmp_path / "model", "pocket")
    loaded = zoo.load(folder)[0]
    assert isinstance(loaded, Model)
    assert loaded.config.taught == ((1, 0), (2, 3))
    torch.testing.assert_close(answers(loaded, NAMES), answers(model, NAMES), rtol=0, atol=5e-3)  # the file holds half precision
    photo = (PIXELS[0].permute(1, 2, 0).clamp(-1, 1) * 127 + 128).to(torch.uint8).numpy()
    segmenter = promptseg.load(folder)
    image = segmenter.embed_image(photo)
    once, again = segmenter(photo, list(NAMES)), segmenter(image, list(NAMES))
    assert (once.to_numpy() == again.to_numpy()).all()


def test_a_photo_that_was_encoded_before_the_head_was_taught(tmp_path: Path) -> None:
    plain, taught = (promptseg.load(zoo.save_folder(network(*names), tmp_path / str(len(names)), "pocket")) for names in ((), (("dog",),)))
    photo = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    before, after = plain.embed_image(photo), taught.embed_image(photo)
    with pytest.raises(ConfigError, match="Encode it with this model"):
        taught(before, "dog")
    assert (taught(before, "cat").to_numpy() == plain(after, "cat").to_numpy()).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_a_second_look(dtype: torch.dtype) -> None:
    model = network(("dog",))
    model.config = replace(model.config, second_look=0.75)
    model.to(dtype)
    with torch.no_grad():
        logits = model(PIXELS.to(dtype), NAMES).logits
    assert logits.isfinite().all()
    assert logits.dtype == torch.float32


def test_impossible_counts() -> None:
    for counts in ((0, 1), (1, -1)):
        with pytest.raises(ConfigError, match="at least 1"):
            replace(small_pocket.CONFIG, taught=((3, 0), counts))

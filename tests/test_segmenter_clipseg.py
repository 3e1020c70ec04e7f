"""The Segmenter with CLIPSeg's network, shrunk: every kind of prompt, precision and view goes through, and halves equal the call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptseg import zoo
from promptseg.contracts import Options
from promptseg.errors import PromptError
from promptseg.models.clipseg.config import ClipSegConfig
from promptseg.models.clipseg.network import Model
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.prompts import Blend, Exemplar, Text
from promptseg.segmenter import Segmenter
from toy_family import photo

EXAMPLE = Exemplar(photo(), box=(9, 9, 20, 20))
PROMPTS = ["a dog", Text("grass", ("a photo of {}.", "{}")), EXAMPLE, Blend("a dog", EXAMPLE)]
VIEWS = {
    "card": None,
    "letterbox": Options(fit="letterbox"),
    "native": Options(fit="native"),
    "tiles": Options(tile=24),
    "larger": Options(size=96),
}


def segmenter(precision: str = "float32") -> Segmenter:
    torch.manual_seed(0)
    image = ClipVisionConfig(width=32, layers=4, heads=2, patch=16, grid=4, embed=16)
    text = ClipTextConfig(width=24, layers=2, heads=2, embed=16)
    preprocess = replace(ClipSegConfig().preprocess, size=64)
    config = replace(ClipSegConfig(), image=image, text=text, taps=(1, 2, 3), reduce_dim=16, preprocess=preprocess)
    model = Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return Segmenter(model, zoo.card("clipseg-rd64"), device="cpu", precision=precision)


@pytest.mark.parametrize("view", VIEWS)
def test_parts_equal_the_whole_in_every_view(view: str) -> None:
    ask, again, options = segmenter(), segmenter(), VIEWS[view]
    whole = ask(photo(), PROMPTS, negative="a cat", threshold=0.5, options=options)
    shown = again.embed_image(photo(), options=options)
    parts = again(shown, again.embed_prompts(PROMPTS), negative=again.embed_prompts("a cat"), threshold=0.5)
    assert whole.size == (40, 60)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_encoded_prompts_mix_as_a_blend_does() -> None:
    ask = segmenter()
    both = ask.embed_prompts(["a dog", EXAMPLE])
    blend, mixed = ask(photo(), Blend("a dog", EXAMPLE, 0.3))[0], ask(photo(), both.mix([0.3, 0.7], [2, -1]))
    np.testing.assert_allclose(mixed[0].probabilities, blend.probabilities, atol=1e-5)
    assert mixed.labels == ["0.3 a dog + 0.7 exemplar", "2 a dog + -1 exemplar"]
    with pytest.raises(PromptError, match="2 prompts, 1 weights"):
        both.mix([1])


def test_a_batch_equals_its_photos() -> None:
    photos = [photo(), photo(30, 50), photo()[::-1].copy()]
    for together, image in zip(segmenter()(photos, PROMPTS), photos, strict=True):
        for one, other in zip(together, segmenter()(image, PROMPTS), strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_stays_near_float32(precision: str) -> None:
    exact, near = segmenter()(photo(), PROMPTS), segmenter(precision)(photo(), PROMPTS)
    for one, other in zip(exact, near, strict=True):
        assert other.probabilities.dtype == np.float32
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=0.03)


def test_semantic() -> None:
    found = segmenter().semantic(photo(), ["a dog", ["grass", "lawn"], "the sky"])
    assert found.labels.shape == (40, 60)
    assert found.areas.sum() == 2400

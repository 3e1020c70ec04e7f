"""What a mask is, and that it stays small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from masks_of import masks, of_array, photo, smooth_logits, three
from promptseg import Exemplar, Instances, Mask, Masks, Text
from promptseg.errors import ConfigError, ImageError, PromptError

BoolArray = NDArray[np.bool_]


def enlarged(logits: NDArray[np.float32], size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", [(60, 80), (5, 6), (1, 1), (9, 11)])
@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.3, 0.5, 0.97, 1.0])
def test_a_mask_is_the_enlarged_probability_above_the_threshold(size: tuple[int, int], threshold: float) -> None:
    logits = smooth_logits(4)
    result = Masks.from_logits(logits, size, [Text("x")] * 4, threshold=threshold)
    probabilities = enlarged(logits, size).sigmoid().numpy()
    for mask, expected in zip(result, probabilities, strict=True):
        assert mask.mask.dtype == np.bool_
        assert mask.probabilities.dtype == np.float32
        np.testing.assert_allclose(mask.probabilities, expected, atol=1e-6)
        assert np.array_equal(mask.mask, mask.probabilities > threshold)
        assert mask.area == mask.mask.sum()
        assert mask.score == pytest.approx(expected[mask.mask].mean() if mask.area else 0, abs=1e-6)
        ys, xs = np.nonzero(mask.mask)
        assert mask.box == ((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if mask.area else None)


def test_probabilities_equal_the_threshold_exactly_where_logits_nearly_do() -> None:
    """The comparison is made on logits; next to the threshold it must agree with the rounded probabilities."""
    for threshold in (0.5, 0.35, 0.9, 1 - 1e-6):
        centre = np.log(threshold / (1 - threshold))
        logits = (centre + np.linspace(-1, 1, 64) * 10.0 ** -np.linspace(1, 9, 64)).astype(np.float32).reshape(1, 8, 8)
        mask = Masks.from_logits(logits, (8, 8), [Text("x")], threshold=threshold)[0]
        assert np.array_equal(mask.mask, mask.probabilities > np.float32(threshold))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float16, torch.bfloat16, torch.float32])
def test_logits_of_every_type(kind: object) -> None:
    values = np.round(smooth_logits(2) * 8) / 8  # exact in all of them
    given_logits = torch.from_numpy(values).to(kind) if isinstance(kind, torch.dtype) else values.astype(kind)  # type: ignore[call-overload]
    result = Masks.from_logits(given_logits, (60, 80), [Text("a"), Text("b")])
    assert np.array_equal(result.to_numpy(), enlarged(values, (60, 80)).numpy() > 0)
    logits = result[0].logits
    assert logits is not None
    assert logits.dtype == (np.float16 if "float16" in str(kind) and "bfloat16" not in str(kind) else np.float32)


def test_where_a_negative_is_larger_nothing_is() -> None:
    logits, negative = smooth_logits(3), smooth_logits(2, grid=(5, 6), seed=7)
    result = Masks.from_logits(logits, (60, 80), [Text("x")] * 3, negative=negative)
    rival = enlarged(negative, (60, 80)).amax(dim=0)
    expected = (enlarged(logits, (60, 80)) > 0) & (enlarged(logits, (60, 80)) >= rival)
    assert np.array_equal(result.to_numpy(), expected.numpy())
    assert result[0].score == pytest.approx(result[0].probabilities[expected[0].numpy()].mean(), abs=1e-6)
    none = Masks.from_logits(logits, (60, 80), [Text("x")] * 3, negative=negative[:0])
    assert np.array_equal(none.to_numpy(), (enlarged(logits, (60, 80)) > 0).numpy())


def test_presence_is_the_score_where_there_is_one() -> None:
    result = Masks.from_logits(
        smooth_logits(2), (60, 80), [Text("a"), Text("b")], presence=torch.tensor([0.9, 0.2]), presence_threshold=0.5
    )
    np.testing.assert_allclose(result.scores, [0.9, 0.2])
    assert result.present.tolist() == [True, False]


def test_the_sequence() -> None:
    result = three()
    assert len(result) == 3
    assert [mask.label for mask in result] == result.labels == ["a dog", "grass/öl: <b>&", "a unicorn"]
    assert isinstance(result[-1], Mask)
    for index in (slice(1, None), [1, 2], np.array([1, 2]), [False, True, True]):
        part = result[index]
        assert isinstance(part, Masks)
        assert part.prompts == result.prompts[1:]
        assert np.array_equal(part.to_numpy(), result.to_numpy()[1:])
    assert len(result[[]]) == len(result[:0]) == 0
    assert result[:0].to_numpy().shape == (0, 60, 80)
    assert result.boxes.shape == (3, 4)
    assert result.areas.tolist() == result.to_numpy().sum(axis=(1, 2)).tolist()
    assert "a dog" in repr(result)
    assert result["grass/öl: <b>&"] is result[1]
    with pytest.raises(PromptError, match=r"no mask 'a dig'\. Did you mean 'a dog'\?"):
        result["a dig"]
    with pytest.raises(IndexError):
        result[3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"logits": smooth_logits(2)}, "2 logit maps for 1 prompts"),
        ({"logits": smooth_logits(1)[0]}, r"\(N, h, w\)"),
        ({"size": (0, 5)}, "at least 1"),
        ({"threshold": 1.5}, "probability, 0 to 1"),
        ({"upsample": "bicubic"}, "'bilinear' or 'guided'"),
        ({"upsample": "guided"}, "needs the photo"),
        ({"presence": [0.5, 0.5]}, "one probability"),
        ({"presence": [float("nan")]}, "one probability"),
        ({"negative": np.zeros((3, 3), np.float32)}, "negative"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], says: str) -> None:
    fitting: dict[str, object] = {"logits": smooth_logits(1), "size": (6, 7), "prompts": [Text("x")]}
    with pytest.raises(ConfigError, match=says):
        Masks.from_logits(**(fitting | arguments))  # type: ignore[arg-type]


def test_masks_of_one_photo_have_its_size() -> None:
    with pytest.raises(ImageError, match=r"must be equal"):
        Masks([Mask.from_array(np.ones((2, 3), bool), "x")], (3, 2))
    with pytest.raises(ImageError, match=r"\(H, W\)"):
        Mask.from_array(np.ones(3, bool), "x")
    with pytest.raises(ImageError, match="same photo"):
        _ = Mask.from_array(np.ones((2, 3), bool), "x") | Mask.from_array(np.ones((3, 2), bool), "y")


# --- edits ------------------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(masks(), st.data())
def test_set_operations(array: BoolArray, data: st.DataObject) -> None:
    other = np.random.default_rng(data.draw(st.integers(0, 99))).random(array.shape) < 0.5
    a, b = Mask.from_array(array, "a", score=0.7), Mask.from_array(other, "b", score=0.4)
    for combined, expected, label, score in (
        (a | b, array | other, "a or b", 0.7),
        (a & b, array & other, "a and b", 0.4),
        (a - b, array & ~other, "a without b", 0.7),
    ):
        assert np.array_equal(combined.mask, expected)
        assert combined.label == label
        assert combined.score == (score if expected.any() else 0)
    assert np.array_equal((~a).mask, ~array)
    assert (~a).label == "everything but a"


def test_edits_of_a_model_mask() -> None:
    mask = three()[0]
    assert mask.grow(2).area > mask.area > mask.shrink(2).area > 0
    assert mask.fill_holes().area > mask.area
    assert np.array_equal(mask.grow(0).mask, mask.mask)
    assert mask.grow(2).score == mask.score
    assert mask.grow(2).prompt == mask.prompt
    assert mask.shrink(100).area == mask.shrink(100).score == 0
    soft = mask.feather(3)
    assert np.array_equal(soft.mask, mask.mask)
    assert ((soft.probabilities > 0) & (soft.probabilities < 1)).any()
    for one in (mask, soft):
        assert np.array_equal(one.held().probabilities, one.probabilities)
        assert one.held().held().softness == one.softness
    assert mask.invert().score == pytest.approx(1 - mask.probabilities[~mask.mask].mean(), abs=1e-6)
    assert three()[2].invert().area == 60 * 80


def test_parts_become_instances() -> None:
    array = np.zeros((20, 30), bool)
    array[2:5, 3:9] = array[10:18, 20:29] = array[0, 29] = True
    result = of_array(array, "sheep", score=0.8)
    parts = result.split()
    assert isinstance(parts, Instances)
    assert parts.areas.tolist() == [72, 18, 1]
    assert parts.labels == ["sheep"] * 3
    assert parts.boxes.tolist() == [[20, 10, 29, 18], [3, 2, 9, 5], [29, 0, 30, 1]]
    assert parts.scores.tolist() == pytest.approx([0.8] * 3)
    assert np.array_equal(parts.to_numpy().any(axis=0), array)
    assert len(result.split(min_area=10)) == len(result[0].split(min_area=10)) == 2
    assert np.array_equal(result[0].largest().mask, parts[0].mask)
    assert len(parts[:1].split()) == 1
    assert len(three()[2].split()) == 0
    assert three()[2].largest().area == 0
    assert isinstance(parts[1:], Instances)
    assert parts[1:].classes == ("sheep",)
    assert not isinstance(parts.masks, Instances)


def test_labels_of_instances_must_be_classes() -> None:
    mask = Mask.from_array(np.ones((2, 2), bool), "a")
    with pytest.raises(ConfigError, match="0 labels for 1"):
        Instances([mask], (2, 2), labels=[])
    with pytest.raises(ConfigError, match="'b'"):
        Instances([mask], (2, 2), labels=["b"], classes=["a"])


def test_prompts_of_every_kind_have_a_label() -> None:
    result = Masks.from_logits(smooth_logits(1), (60, 80), [Exemplar(photo(), box=(0, 0, 5, 5))])
    assert result.labels == ["exemplar"]

"""The Segmenter's promises, tried with a model of one parameter: what is encoded how often, and that parts equal the whole."""

from __future__ import annotations

import threading
import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptseg import images
from promptseg.contracts import DenseLogits, Options, PromptFeatures
from promptseg.errors import (
    ConfigError,
    ImageError,
    MemoryLimitError,
    NumericalError,
    PromptError,
    UnknownModel,
    UnsupportedPrompt,
    UnsupportedTask,
)
from promptseg.prompts import Blend, Box, Exemplar, Points, Text
from promptseg.segmenter import Segmenter, load
from toy_family import CARD, Model, ToyConfig, photo, segmenter


def dense(masks: Any) -> np.ndarray:
    return np.asarray(masks.to_numpy())


# --- encoded once -----------------------------------------------------------------------------------------------------------------------


def test_ninety_prompts_one_after_another_cost_one_image_encoding() -> None:
    ask, image = segmenter(), photo()
    for index in range(90):
        ask(image, f"red thing {index}")
    assert ask.model.encodings == {"image": 1, "prompts": 90}


def test_the_same_pixels_in_another_wrapping_are_the_same_photo(tmp_path: Path) -> None:
    ask, image = segmenter(), photo()
    Image.fromarray(image).save(tmp_path / "photo.png")
    for form in (image, image.copy(), Image.fromarray(image), str(tmp_path / "photo.png"), torch.from_numpy(image).permute(2, 0, 1)):
        ask(form, "red")
    assert ask.model.encodings["image"] == 1


def test_a_photo_changed_in_place_is_another_photo() -> None:
    ask, image = segmenter(), photo()
    before = ask(image, "red")[0].area
    image[:] = 0
    assert before > 0
    assert ask(image, "red")[0].area == 0


def test_prompts_are_encoded_once_for_all_photos_and_calls() -> None:
    ask = segmenter()
    exemplar = Exemplar(photo(), box=(0, 0, 10, 10))
    for shade in range(5):
        ask(photo() // (shade + 1), ["red", "green", "red", exemplar, Blend("red", exemplar)])
    assert ask.model.encodings["prompts"] == 4


def test_many_exemplars_are_never_in_memory_together_and_each_photo_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colours = {tmp_path / f"{name}.png": rgb for name, rgb in (("red", (255, 0, 0)), ("blue", (0, 0, 255)))}
    for path, rgb in colours.items():
        Image.new("RGB", (60, 40), rgb).save(path)
    read: list[Path] = []
    most, masks = 0, list[weakref.ref[np.ndarray]]()
    ask = segmenter()
    load_image, encode = images.load, ask.model.encode_prompts

    def counted(image: Any, **limits: Any) -> np.ndarray:
        read.append(image)
        return load_image(image, **limits)

    def watched(prompts: Any) -> PromptFeatures:
        nonlocal most
        masks.extend(weakref.ref(prompt.mask) for prompt in prompts if isinstance(prompt, Exemplar))
        most = max(most, sum(mask() is not None for mask in masks))
        return encode(prompts)

    monkeypatch.setattr(images, "load", counted)
    monkeypatch.setattr(ask._encoder, "_encode", watched)
    prompts = [Exemplar(path, box=(0, 0, 5 + index, 5)) for index in range(50) for path in colours]
    condition = ask.embed_prompts([*prompts, "green"]).features.condition
    assert condition.tolist() == [*([1, 0, 0], [0, 0, 1]) * 50, [0, 1, 0]]
    assert sorted(read) == sorted(colours)
    assert len(masks) == 100
    assert 0 < most <= 16


def test_other_options_show_another_input() -> None:
    ask, image = segmenter(), photo()
    ask(image, "red")
    ask(image, "red", options=Options(size=64))
    assert ask.model.encodings["image"] == 2


# --- parts equal the whole --------------------------------------------------------------------------------------------------------------


def test_halves_equal_the_call() -> None:
    ask, image = segmenter(), photo()
    prompts = ["red", Text("green"), Exemplar(image, box=(0, 0, 10, 40))]
    whole = ask(image, prompts, negative="blue")
    again = segmenter()
    parts = again(again.embed_image(image), again.embed_prompts(prompts), negative=again.embed_prompts("blue"))
    np.testing.assert_array_equal(dense(parts), dense(whole))
    np.testing.assert_array_equal(parts.scores, whole.scores)
    assert len(again.embed_prompts(prompts)) == 3


def test_a_list_equals_its_photos_one_by_one_in_order() -> None:
    photos = [photo(), photo(30, 30), photo()[:, ::-1], photo(50, 20)]
    together = segmenter()(photos, ["red", "blue"])
    for image, masks in zip(photos, together, strict=True):
        assert masks.size == image.shape[:2]
        np.testing.assert_array_equal(dense(masks), dense(segmenter()(image, ["red", "blue"])))


def test_many_prompts_equal_each_alone() -> None:
    ask, image = segmenter(), photo()
    names = ["red", "green", "blue", "white"]
    together = ask(image, names)
    for name, mask in zip(names, together, strict=True):
        np.testing.assert_array_equal(mask.mask, ask(image, name)[0].mask)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_any_number_of_prompts(count: int) -> None:
    masks = segmenter()(photo(), [f"{('red', 'green')[i % 2]} {i}" for i in range(count)])
    assert len(masks) == count
    assert masks.scores.shape == (count,)
    assert masks.to_numpy().shape == (count, 40, 60)


def test_no_photos_give_no_results() -> None:
    assert segmenter()([], "red") == []


def test_the_mask_is_where_the_colour_is() -> None:
    red, absent = segmenter()(photo(), ["red", "a unicorn"])
    assert red.box == (0, 0, pytest.approx(20, abs=2), 40)
    assert red.present
    assert (absent.area, absent.score, absent.box, absent.present) == (0, 0, None, False)


def test_negative_prompts_take_pixels_away() -> None:
    ask, image = segmenter(), photo()
    reddish = Blend("red", Exemplar(image, box=(0, 0, 40, 40)), 0.9)  # a little green in it: less red than "red"
    plain = ask(image, reddish)[0].mask
    without = ask(image, reddish, negative=["blue", "red"])[0].mask
    assert plain[:, :17].all()
    assert not without[:, :17].any()


def test_threshold_moves_the_edge_and_is_checked() -> None:
    ask, image = segmenter(), photo()
    areas = [ask(image, "red", threshold=threshold)[0].area for threshold in (0.01, 0.5, 0.99)]
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("threshold", [7, -0.01, float("nan"), np.float32("inf"), "0.5"])
def test_an_impossible_threshold_is_told_before_any_photo_or_prompt_is_read(threshold: Any) -> None:
    ask = segmenter()
    with pytest.raises(ConfigError, match="threshold is a probability, 0 to 1"):
        ask("no such photo.jpg", Exemplar("nor this.jpg", box=(0, 0, 9, 9)), threshold=threshold)
    assert ask.model.encodings == {"image": 0, "prompts": 0}


def test_asking_twice_gives_the_same_bits() -> None:
    first, second = (segmenter()(photo(), ["red", "green"]) for _ in range(2))
    np.testing.assert_array_equal(dense(first), dense(second))
    np.testing.assert_array_equal(first[0].probabilities, second[0].probabilities)


# --- exemplars --------------------------------------------------------------------------------------------------------------------------


def test_an_exemplar_in_the_same_photo_follows_every_photo_of_a_list() -> None:
    photos = [photo(), photo()[:, ::-1].copy()]
    left = segmenter()(photos, Exemplar(box=(0, 0, 10, 40)))
    assert [masks[0].box[0] for masks in left if masks[0].box] == [0, 0]


def test_mask_box_and_whole_photo_exemplars(tmp_path: Path) -> None:
    image, mask = photo(), np.zeros((40, 60), bool)
    mask[:, :20] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_mask, by_file, by_box = segmenter()(
        image, [Exemplar(image, mask=mask), Exemplar(image, mask=str(tmp_path / "mask.png")), Exemplar(image, box=(-0.4, 0, 20, 40.6))]
    )
    assert by_mask.area > 0
    np.testing.assert_array_equal(by_mask.mask, by_file.mask)
    np.testing.assert_array_equal(by_mask.mask, by_box.mask)
    assert segmenter()(image, Exemplar(np.full((8, 8, 3), (255, 0, 0), np.uint8)))[0].box == by_mask.box


@pytest.mark.parametrize(
    ("exemplar", "error", "says"),
    [
        (Exemplar(photo(), mask=np.zeros((40, 60))), PromptError, "empty"),
        (Exemplar(photo(), box=(100, 100, 120, 120)), PromptError, "beyond its photo of 60x40"),
        (Exemplar(photo(), mask=np.ones((4, 6))), ImageError, "6x4"),
        (Exemplar("nowhere.png"), ImageError, "nowhere.png"),
    ],
)
def test_impossible_exemplars(exemplar: Exemplar, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        segmenter()(photo(), exemplar)


def test_an_exemplar_without_photo_cannot_be_encoded_beforehand() -> None:
    with pytest.raises(PromptError, match="Give its photo"):
        segmenter().embed_prompts(Exemplar(box=(0, 0, 4, 4)))


# --- what is not supported ---------------------------------------------------------------------------------------------------------------


def test_unsupported_prompts_name_the_kind_and_the_models() -> None:
    with pytest.raises(UnsupportedPrompt, match="'toy' takes no prompts of the kind 'points'") as caught:
        segmenter()(photo(), Points(((1, 1),)))
    assert caught.value.prompt == "points"
    with pytest.raises(UnsupportedPrompt, match=r"Exemplar\(box="):
        segmenter()(photo(), Box(0, 0, 5, 5))


@pytest.mark.parametrize(
    ("task", "arguments"), [("panoptic", ()), ("instances", ()), ("groups", ()), ("refer", ("the left cup",)), ("track", ("a dog",))]
)
def test_unsupported_tasks_say_what_to_do_instead(task: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(UnsupportedTask, match=f"'toy' cannot do '{task}'.*segmenter") as caught:
        getattr(segmenter(), task)(photo(), *arguments)
    assert caught.value.task == task


def test_embeddings_of_another_model_are_refused() -> None:
    from dataclasses import replace

    other = Segmenter(Model(ToyConfig()), replace(CARD, name="other"), device="cpu", precision="float32")
    with pytest.raises(ConfigError, match="'toy'"):
        other(segmenter().embed_image(photo()), "red")
    with pytest.raises(ConfigError, match="'toy'"):
        other(photo(), segmenter().embed_prompts("red"))


def test_an_encoded_photo_cannot_be_shown_otherwise() -> None:
    ask = segmenter()
    with pytest.raises(ConfigError, match="other options"):
        ask(ask.embed_image(photo()), "red", options=Options(size=64))


def test_unknown_models_offer_the_nearest_name() -> None:
    with pytest.raises(UnknownModel, match="pocket"):
        load("pokcet")


# --- threads, memory, numbers -----------------------------------------------------------------------------------------------------------


def test_two_threads_share_a_segmenter() -> None:
    photos = [np.roll(photo(), shift, axis=1) for shift in range(12)]
    names = ["red", "green", "blue"]
    serial = [dense(segmenter()(image, names)) for image in photos]
    shared, found = segmenter(), {}

    def work(start: int) -> None:
        for index in range(start, len(photos), 2):
            found[index] = dense(shared(photos[index], names))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(serial):
        np.testing.assert_array_equal(found[index], expected)


class Cramped(Model):
    """Runs out of memory above ``room`` photos at once, as an accelerator (or, with ``words``, the CPU's allocator) does."""

    room = 2
    words: str | None = None

    def encode_image(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if len(pixel_values) > self.room:
            raise RuntimeError(self.words) if self.words else torch.OutOfMemoryError("CUDA out of memory")
        return super().encode_image(pixel_values)


def cramped(room: int, words: str | None = None) -> Segmenter:
    model = Cramped(ToyConfig())
    model.room, model.words = room, words
    return Segmenter(model, CARD, device="cpu", precision="float32")


@pytest.mark.parametrize("words", [None, "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."])
def test_out_of_memory_halves_the_batch_with_a_warning(words: str | None) -> None:
    photos = [np.roll(photo(), shift, axis=1) for shift in range(9)]
    with pytest.warns(RuntimeWarning, match="going on with 4"):
        masks = cramped(2, words)(photos, "red")
    for image, one in zip(photos, masks, strict=True):
        np.testing.assert_array_equal(dense(one), dense(segmenter()(image, "red")))


def test_out_of_memory_with_one_photo_says_what_to_do() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MemoryLimitError, match="tiles"):
            cramped(0)([photo(), photo()], "red")


def test_other_runtime_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        cramped(0, "shapes do not match")(photo(), "red")


def test_nan_is_an_error_that_names_the_way_out() -> None:
    ask = segmenter()
    ask.model.gain.data.fill_(torch.nan)
    for card, way in (("toy", "damaged: get them again"), ("clipseg-rd64", "damaged: `promptseg verify clipseg-rd64` tells")):
        ask._runner.card = replace(ask.card, name=card)
        with pytest.raises(NumericalError, match=f"Try precision='float32'.*{way}"):
            ask(photo(), "red")


# --- device and precision ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_results_are_float32_in_every_precision(precision: str) -> None:
    ask = segmenter(precision=precision)
    masks = ask(photo(), ["red", Exemplar(photo(), box=(20, 0, 40, 40))])
    assert ask.precision == precision
    assert masks[0].probabilities.dtype == np.float32
    np.testing.assert_array_equal(dense(masks)[0], dense(segmenter()(photo(), "red"))[0])


def test_moving_keeps_old_embeddings_valid() -> None:
    ask = segmenter()
    image, prompt = ask.embed_image(photo()), ask.embed_prompts("red")
    assert ask.to("cpu")(image, prompt)[0].area > 0
    assert "cpu" in repr(ask)


@pytest.mark.parametrize(
    ("argument", "value"), [("device", "gpu"), ("device", "cuda:99"), ("precision", "int3"), ("batch_size", 0), ("max_pixels", 0)]
)
def test_impossible_settings(argument: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=str(value)):
        segmenter(**{argument: value})


def test_the_limit_on_pixels_is_the_users() -> None:
    example = Exemplar(photo(), box=(0, 0, 20, 40))
    for image, prompt in ((photo(), "red"), (photo(20, 20), example)):
        with pytest.raises(ImageError, match="max_pixels="):
            segmenter(max_pixels=2399)(image, prompt)
        assert segmenter(max_pixels=2400)(image, prompt)[0].area


# --- tiles ------------------------------------------------------------------------------------------------------------------------------


def test_tiles_of_a_constant_photo_equal_the_whole() -> None:
    image = np.full((300, 470, 3), (250, 0, 0), np.uint8)
    whole, tiled = (segmenter()(image, ["red", "blue"], options=options) for options in (None, Options(tile=100)))
    np.testing.assert_array_equal(dense(tiled), dense(whole))
    assert tiled.scores == pytest.approx(whole.scores)


def test_tiles_see_what_the_whole_is_too_coarse_for() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    image[::8, :, 0] = 255  # thin red lines: brown at 32 pixels, red at full resolution
    image[300:340, 300:340] = (255, 0, 0)
    mask = segmenter()(image, "red", options=Options(tile=32))[0].mask
    assert mask[310:330, 310:330].all()
    assert not mask[100:103, 100:200].any()


def test_embedded_tiles_equal_the_call() -> None:
    ask, image = segmenter(), np.kron(photo(), np.ones((5, 5, 1), np.uint8))
    whole = ask(image, "red", options=Options(tile=80))
    parts = ask(ask.embed_image(image, options=Options(tile=80)), "red")
    np.testing.assert_array_equal(dense(parts), dense(whole))


def test_tiles_are_not_hoarded(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = segmenter()
    seen: list[weakref.ref[torch.Tensor]] = []
    most = 0
    decode = Model.decode

    def watched(self: Model, image: torch.Tensor, prompts: Any) -> DenseLogits:
        nonlocal most
        prediction = decode(self, image, prompts)
        seen.append(weakref.ref(prediction.logits))
        most = max(most, sum(ref() is not None for ref in seen))
        return prediction

    monkeypatch.setattr(Model, "decode", watched)
    ask(np.kron(photo(), np.ones((5, 5, 1), np.uint8)), "red", options=Options(tile=40))
    assert len(seen) > 30
    assert most <= 2  # the one being added and the one being made
    assert len(ask._runner.features) == 0

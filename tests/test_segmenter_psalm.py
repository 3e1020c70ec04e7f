"""PSALM through the Segmenter and the command line: every task, one encoding for all questions, and what cannot be asked."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from command_line import Cli
from promptseg import zoo
from promptseg.contracts import Options
from promptseg.errors import ConfigError, ImageError, MemoryLimitError, NumericalError, PromptError, UnsupportedPrompt
from promptseg.metrics import iou
from promptseg.models import family
from promptseg.models.psalm import PsalmOptions
from promptseg.models.psalm import postprocess as post
from promptseg.models.psalm.grid import Grid
from promptseg.models.psalm.photos import fitted
from promptseg.prompts import Box, Exemplar, MaskPrompt, Points, Scribble, Text
from promptseg.rle import Rle
from promptseg.segmenter import Segmenter
from small_psalm import card, model

SIZE = (48, 70)
PHOTO = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8).repeat(8, 0).repeat(7, 1)


@pytest.fixture(scope="module")
def ask() -> Segmenter:
    return Segmenter(model(), card(), device="cpu", precision="float32")


def passed(ask: Segmenter, *arguments: Any, **settings: Any) -> tuple[Any, torch.Tensor]:
    """The raw answer to a prompt, and all masks as published: logits on the square, cut, then at the photo's size."""
    with torch.inference_mode():
        (image,) = ask._runner.wholes([ask._runner.show(PHOTO, None)])
        head = ask.model.decode(image, ask.model.words.prompt(*arguments, **settings))
        return head, post.enlarged(head.masks[0], 64, fitted(SIZE, 64), SIZE)


def test_a_phrase_gets_the_best_mask_at_the_photos_size(ask: Segmenter) -> None:
    found = ask(PHOTO, ["a dog", "the second one"])
    for mask, sentence in zip(found, ["a dog", "the second one"], strict=True):
        head, masks = passed(ask, "referring", sentences=[sentence])
        scores = head.sentence[0, :, 0].sigmoid() * post.certainty(masks)
        assert mask.score == pytest.approx(float(scores.max()), abs=1e-5)
        assert np.array_equal(mask.mask, (masks[scores.argmax()] > 0).numpy())
        assert mask.label == sentence
    with_rival = ask(PHOTO, "a dog", negative="the second one")[0]
    assert (with_rival.mask <= found[0].mask).all()


def test_many_objects_are_pointed_at_at_once(ask: Segmenter) -> None:
    drawn = np.zeros(SIZE, np.bool_)
    drawn[10:30, 10:40] = True
    marks = [Points(((10, 10),)), Box(5, 5, 30, 30), Scribble(((3, 3), (40, 30))), MaskPrompt(Image.fromarray(drawn))]
    found = ask(PHOTO, [*marks, "a dog"])
    assert [one.label for one in found] == ["points", "box", "scribble", "mask", "a dog"]
    again = ask(PHOTO, marks)
    assert np.array_equal(found[:4].scores, again.scores)  # points are drawn alike every time
    assert np.array_equal(found[4].mask, ask(PHOTO, "a dog")[0].mask)
    assert len(ask(PHOTO, [])) == 0


def test_more_marks_than_a_question_holds_are_several_questions(ask: Segmenter) -> None:
    marks = [Points(((number % 70, number // 70),)) for number in range(600)]
    found, tail = ask(PHOTO, marks), ask(PHOTO, marks[500:])
    assert found.scores[500:] == pytest.approx(tail.scores, abs=1e-5)
    assert all((one.mask == other.mask).mean() > 0.99 for one, other in zip(found[500::20], tail[::20], strict=True))


def test_what_other_threads_draw_changes_no_answer(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [Box(5, 5, 30, 30), Box(20, 10, 60, 40)]
    expected, untouched, draw = ask(PHOTO, marks).scores, torch.random.get_rng_state(), torch.randperm

    def disturbed(*arguments: Any, **settings: Any) -> torch.Tensor:
        torch.rand(3)
        return draw(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "randperm", disturbed)
        assert ask(PHOTO, marks).scores == pytest.approx(expected, abs=1e-5)
        assert not torch.equal(torch.random.get_rng_state(), untouched)  # torch's own generator was not ours to put back


def test_an_expression_means_the_union_or_the_best(ask: Segmenter) -> None:
    head, masks = passed(ask, "referring", sentences=["all dogs"])
    scores = head.sentence[0, :, 0].sigmoid() * post.certainty(masks)
    for threshold in (0.0, float(scores.median()), 0.99):
        (found,) = ask.refer(PHOTO, "all dogs", options=PsalmOptions(union_threshold=threshold))
        assert np.array_equal(found.mask, post.united(masks > 0, scores, threshold).numpy())
        assert found.score == pytest.approx(float(scores.max()), abs=1e-5)
    assert len(ask.refer([PHOTO, PHOTO], "a dog")) == 2
    with pytest.raises(PromptError, match="empty"):
        ask.refer(PHOTO, " ")


def test_classes_compete_as_published(ask: Segmenter) -> None:
    names = ["sky", ["grass", "lawn"], "dog"]
    head, _ = passed(ask, "panoptic", classes=["sky", "grass,lawn", "dog", "background"])
    square = F.interpolate(head.masks, (64, 64), mode="bilinear", align_corners=False)[0]
    content = fitted(SIZE, 64)
    wanted = F.interpolate(post.semantic(head.classes[0], square)[None, :, : content[0], : content[1]], SIZE, mode="bilinear")[0]
    found = ask.semantic(PHOTO, names)
    assert found.classes == ("sky", "grass", "dog")
    assert np.array_equal(found.labels, wanted.argmax(0).numpy())
    assert found.scores.max() <= 1
    grown = torch.stack([Grid(SIZE, 64).grow(one) for one in head.masks[0]])
    enlarged = ask.semantic(PHOTO, names, options=PsalmOptions(enlarged=True))
    assert np.array_equal(enlarged.labels, post.semantic(head.classes[0], grown).argmax(0).numpy())
    cut = ask.semantic(PHOTO, names, background=0.5)
    assert np.array_equal(cut.labels >= 0, (wanted.amax(0) > 0.5).numpy())
    assert ask.semantic(PHOTO, ["dog"], background="sky").labels.max() <= 0
    assert (ask.semantic(PHOTO, []).labels == -1).all()


def test_of_long_lists_the_first_name_of_a_class_is_read(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, prompt = list[list[str]](), ask.model.words.prompt
    monkeypatch.setattr(ask.model.words, "prompt", lambda task, classes: asked.append(classes) or prompt(task, classes=classes))
    names = [[f"thing {number}", f"object {number}"] for number in range(201)]
    ask.semantic(PHOTO, names[:200])
    ask.semantic(PHOTO, names)
    assert asked[0] == [*(f"thing {number},object {number}" for number in range(200)), "background"]
    assert asked[1] == [*(f"thing {number}" for number in range(201)), "background"]


def test_without_names_the_classes_of_the_training_are_asked(ask: Segmenter) -> None:
    assert len(ask.semantic(PHOTO).classes) == 133
    assert ask.instances(PHOTO).classes[:2] == ("person", "bicycle")
    assert (len(ask.model.things), len(ask.model.stuff)) == (80, 53)


def test_instances_are_the_best_pairs_of_query_and_class(ask: Segmenter) -> None:
    head, masks = passed(ask, "instance", classes=["sky", "dog", "background"])
    sure = post.certainty(masks)
    pairs = post.instances(head.classes[0], sure)
    wanted = {
        (int(label), round(float(score), 4), int((masks[query] > 0).sum()))
        for query, label, score in zip(pairs.query, pairs.label, pairs.score, strict=True)
    }
    found = ask.instances(PHOTO, ["sky", "dog"], threshold=0)
    assert {(["sky", "dog"].index(one), round(mask.score, 4), mask.area) for one, mask in zip(found.labels, found, strict=True)} == {
        one for one in wanted if one[2]
    }
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert len(ask.instances(PHOTO, [])) == 0
    assert ask.instances(PHOTO, "dog", threshold=0).classes == ask.instances(PHOTO, ["dog"], threshold=0).classes == ("dog",)
    with pytest.raises(PromptError, match="list of names, not 5"):
        ask.instances(PHOTO, 5)  # type: ignore[call-overload]
    least = float(np.median(found.scores))
    assert list(ask.instances(PHOTO, ["sky", "dog"], threshold=least).scores) == [score for score in found.scores if score >= least]


def test_whole_masks_and_logits_are_held_one_at_a_time(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    held, most = list[weakref.ref[Any]](), 0

    def watched(made: Any) -> Any:
        nonlocal most
        held.append(weakref.ref(made))
        most = max(most, sum(one() is not None for one in held))
        return made

    best, mask, encode = Grid.best, Grid.mask, Rle.encode
    with monkeypatch.context() as patch:
        patch.setattr(Grid, "best", lambda *given: (lambda found: (watched(found[0]), found[1]))(best(*given)))
        patch.setattr(Grid, "mask", lambda *given: (lambda found: (watched(found[0]), found[1]))(mask(*given)))
        ask(PHOTO, ["a dog", "a cat", Points(((10, 10),)), Points(((30, 30),)), Box(5, 5, 30, 30), "a cow"])
        assert len(ask.instances(PHOTO, ["sky", "dog"], threshold=0)) > 3
    assert len(held) >= 10
    assert most <= 3
    encoded: list[int] = []
    monkeypatch.setattr(Rle, "encode", lambda mask: encoded.append(mask.sum()) or encode(mask))
    ask.panoptic(PHOTO, ["dog"], ["sky"], options=PsalmOptions(object_threshold=0.2))
    assert encoded


def test_panoptic_maps_tell_things_apart(ask: Segmenter) -> None:
    loose = PsalmOptions(object_threshold=0.2, overlap_threshold=0.1)
    head, masks = passed(ask, "panoptic", classes=["dog", "sky", "background"])
    kept = post.kept(head.classes[0], 0.2)
    index, segments = post.panoptic(kept, masks[kept.query], [True, False], SIZE, 0.1)
    found = ask.panoptic(PHOTO, ["dog"], ["sky"], options=loose)
    assert len(segments) > 0
    assert np.array_equal(found.to_numpy(), index.numpy() - 1)
    assert [(one.label, one.thing) for one in found.segments] == [(["dog", "sky"][one.label], one.is_thing) for one in segments]
    assert not ask.panoptic(PHOTO, [], []).segments
    assert not ask.panoptic(PHOTO, ["dog"], options=PsalmOptions(object_threshold=1.0)).segments


def test_objects_are_followed_from_frame_to_frame(ask: Segmenter) -> None:
    frames = [PHOTO, PHOTO[::-1].copy(), PHOTO[:, ::-1].copy()]
    first = ask(PHOTO, [Box(5, 5, 30, 30), Box(30, 20, 60, 45)])
    found = list(ask.track(frames, first))
    assert [len(one) for one in found] == [2, 2, 2]
    assert np.array_equal(found[0].to_numpy(), first.to_numpy())
    from_prompts = list(ask.track(frames, [Box(5, 5, 30, 30), Box(30, 20, 60, 45)]))
    from_arrays = list(ask.track(frames, first.to_numpy()))
    for a, b, c in zip(found, from_prompts, from_arrays, strict=True):
        assert np.array_equal(a.to_numpy(), b.to_numpy())
        assert np.array_equal(a.to_numpy(), c.to_numpy())
    assert list(ask.track([], first)) == []
    for no_frames in (5, "film.mp4", b"film"):
        with pytest.raises(ImageError, match="Frames are a list"):
            ask.track(no_frames, ["x"])  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="one size"):
        list(ask.track([PHOTO, PHOTO[:20]], first))
    with pytest.raises(ImageError, match="must be equal"):
        list(ask.track([PHOTO[:20]], first))
    with pytest.raises(PromptError, match="at least one object"):
        list(ask.track(frames, np.zeros((1, *SIZE), np.bool_)))


def test_a_small_object_of_a_large_frame_is_where_it_is(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, mask, seen = np.tile(PHOTO, (10, 10, 1)), np.zeros((480, 700), np.bool_), list[torch.Tensor]()
    mask[301, 402], draw = True, ask.model.draw

    def watched(*arguments: Any) -> Any:
        seen.extend(draw(*arguments))
        return list(seen[-1:])

    monkeypatch.setattr(ask.model, "draw", watched)
    list(ask.track([frame, frame], mask[None]))
    ask(frame, MaskPrompt(mask))
    place = torch.tensor([int(301.5 * 64 / 700), int(402.5 * 64 / 700)]) / 64
    assert len(seen) == 2
    assert all((points == place).all() for points in seen)


@pytest.mark.parametrize("step", ["wholes", "to_memory", "to_tracked"])
def test_a_frame_too_large_for_memory_says_what_to_do(ask: Segmenter, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ask._runner if step == "wholes" else ask.model, step, full)
    with pytest.raises(MemoryLimitError, match=r"of the (photos|frames) alone"):
        list(ask.track([PHOTO, PHOTO], np.ones((1, *SIZE), np.bool_)))


def test_the_photo_is_encoded_once_for_every_question(ask: Segmenter) -> None:
    calls: list[int] = []
    hook = ask.model.vision.register_forward_hook(lambda *_: calls.append(1))
    photo = 255 - PHOTO
    shown = ask.embed_image(photo)
    for number in range(20):
        ask(shown, f"dog {number}")
    ask(photo, [f"dog {number}" for number in range(20)])
    ask.semantic(shown, ["dog"])
    ask.panoptic(photo, ["dog"])
    hook.remove()
    assert len(calls) == 1
    assert np.array_equal(ask(shown, "a dog").to_numpy(), ask(photo, "a dog").to_numpy())


def test_halves_and_lists_answer_alike(ask: Segmenter) -> None:
    prompts = ["a dog", Points(((10, 10),)), MaskPrompt(np.ones(SIZE, np.bool_))]
    assert np.array_equal(ask(PHOTO, ask.embed_prompts(prompts)).to_numpy(), ask(PHOTO, prompts).to_numpy())
    first, second = ask([PHOTO, 255 - PHOTO], "a dog")
    assert np.array_equal(first.to_numpy(), ask(PHOTO, "a dog").to_numpy())
    assert np.array_equal(second.to_numpy(), ask(255 - PHOTO, "a dog").to_numpy())
    assert [found.classes for found in ask.semantic([PHOTO, PHOTO], ["sky"])] == [("sky",), ("sky",)]
    assert len(ask.panoptic([PHOTO], ["dog"], [])) == len(ask.instances([PHOTO], ["dog"])) == 1


def test_what_cannot_be_asked(ask: Segmenter) -> None:
    with pytest.raises(UnsupportedPrompt):
        ask(PHOTO, Exemplar(PHOTO))
    with pytest.raises(PromptError, match="marks nothing"):
        ask(PHOTO, Box(500, 500, 600, 600))
    with pytest.raises(ConfigError, match="tile"):
        ask(PHOTO, "a dog", options=Options(tile=32))
    with pytest.raises(PromptError, match="templates"):
        ask(PHOTO, Text("dog", ("a photo of a {}.",)))
    with pytest.raises(ConfigError, match="templates"):
        ask.semantic(PHOTO, ["dog"], options=Options(templates=("a photo of a {}.",)))
    with pytest.raises(ConfigError, match="no mean"):
        ask.semantic(PHOTO, [["dog", "hound"]], options=Options(synonyms="mean"))
    assert ask(PHOTO, "a dog", options=Options(size=128)).size == SIZE


def test_half_precision_answers_alike() -> None:
    """Of weights with which no mask lies so near a threshold that rounding moves it."""
    ask, *halves = (Segmenter(model(1), card(), device="cpu", precision=precision) for precision in ("float32", "bfloat16", "float16"))
    for half, close, least in zip(halves, (0.02, 0.002), (0.9, 0.98), strict=True):
        for question in ("a dog", Box(5, 5, 30, 30)):
            ours, theirs = ask(PHOTO, question)[0], half(PHOTO, question)[0]
            assert theirs.score == pytest.approx(ours.score, abs=close)
            assert iou(ours.mask, theirs.mask) > least


def test_masks_that_are_no_numbers_are_an_error() -> None:
    damaged = model()
    with torch.no_grad():
        damaged.predictor.norm.weight.fill_(torch.nan)
    with pytest.raises(NumericalError, match=r"not numbers, in torch\.float32"):
        Segmenter(damaged, card(), device="cpu", precision="float32")(PHOTO, "a dog")


# --- commands ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and two photos."""
    monkeypatch.setattr(family("psalm"), "CARDS", (card(),))
    zoo.save_folder(model(), tmp_path / "psalm", "psalm")
    (tmp_path / "photos").mkdir()
    for name in "ab":
        Image.fromarray(PHOTO).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path) -> Callable[..., tuple[int, str, str]]:
    run = Cli(monkeypatch, capsys)
    return lambda *arguments: run(*arguments, "-m", str(place / "psalm"), "-o", str(place / "out"), "--device", "cpu")


def test_commands_write_their_results(cli: Callable[..., tuple[int, str, str]], place: Path) -> None:
    photos, out = str(place / "photos"), place / "out"
    assert cli("panoptic", photos, "--thing", "dog", "--stuff", "sky")[0] == 0
    assert (out / "a" / "overlay.png").is_file()
    code, text, _ = cli("refer", photos, "the left dog", "a cat")
    assert code == 0
    assert "the left dog" in text
    code, text, _ = cli("click", f"{photos}/a.png", "--point", "10,10 12,14", "--box", "5,5,30,30", "--scribble", "3,3 40,30")
    assert code == 0
    assert all(name in text for name in ("points", "box", "scribble"))
    index = np.zeros(SIZE, np.uint8)
    index[5:30, 5:30], index[20:45, 40:60] = 1, 2
    Image.fromarray(index).save(place / "first.png")
    code, text, _ = cli("track", photos, "--objects", str(place / "first.png"), "--overwrite")  # others have written there
    assert code == 0
    assert "2 frames" in text
    assert np.array_equal(np.asarray(Image.open(out / "labels" / "a.png")), index)
    assert set(np.unique(np.asarray(Image.open(out / "labels" / "b.png")))) <= {0, 1, 2}


def test_tracked_objects_keep_their_values_and_files(cli: Callable[..., tuple[int, str, str]], place: Path) -> None:
    photos, labels = place / "photos", place / "out" / "labels"
    index = np.zeros(SIZE, np.uint16)
    index[5:30, 5:30], index[20:45, 40:60] = 5, 900
    Image.fromarray(index).save(place / "first.png")
    words = "track", str(photos), "--objects", str(place / "first.png")
    code, text, _ = cli(*words)
    assert code == 0
    assert "object 5 " in text
    assert np.array_equal(np.asarray(Image.open(labels / "a.png")), index)
    (labels / "a.png").write_bytes(b"")
    code, text, error = cli(*words)
    assert code == 1
    assert "--overwrite" in " ".join((text + error).split())
    assert not (labels / "a.png").read_bytes()
    assert cli(*words, "--overwrite")[0] == 0
    assert np.array_equal(np.asarray(Image.open(labels / "a.png")), index)
    (place / "more").mkdir()
    Image.fromarray(PHOTO).save(place / "more" / "a.png")
    code, text, error = cli(*words, str(place / "more"), "--overwrite")
    assert code == 1
    assert "have one name" in " ".join((text + error).split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("click", "PHOTOS/a.png"), "Nothing is pointed at"),
        (("click", "PHOTOS/a.png", "--point", "5"), "is not X,Y"),
        (("click", "PHOTOS/a.png", "--box", "1,2,3"), "is not X0,Y0,X1,Y1"),
        (("panoptic", "PHOTOS", "dog"), "is no photo"),
        (("track", "PHOTOS", "dog"), "is no photo"),
        (("track", "PHOTOS", "--objects", "PHOTOS/none.png"), "cannot be read"),
        (("track", "PHOTOS", "--objects", "PHOTOS/a.png", "--point", "1,1"), "in one way"),
    ],
)
def test_mistakes_are_told(cli: Callable[..., tuple[int, str, str]], place: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, error = cli(*(argument.replace("PHOTOS", str(place / "photos")) for argument in arguments))
    assert code in (1, 2)
    assert message in " ".join((out + error).replace("│", " ").split())

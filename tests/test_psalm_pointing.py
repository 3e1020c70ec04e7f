"""What PSALM answers to marks and in videos, against the whole network asked by hand."""

from __future__ import annotations

import weakref
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from promptseg.caches import BoundedCache
from promptseg.embeddings import tree_bytes
from promptseg.models.psalm import postprocess as post
from promptseg.models.psalm.clicks import regions
from promptseg.models.psalm.photos import fit_region, fitted, to_input
from promptseg.models.psalm.tokens import collate
from promptseg.models.psalm.video import chosen, confused
from promptseg.prompts import Box, Points, Scribble
from promptseg.segmenter import Segmenter
from small_psalm import card, model

SIZE = (48, 70)
PHOTO = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8).repeat(8, 0).repeat(7, 1)


@pytest.fixture(scope="module")
def ask() -> Segmenter:
    return Segmenter(model(), card(), device="cpu", precision="float32")


def pointed(ask: Segmenter, photo: np.ndarray, grids: np.ndarray, shown: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole network about ``photo``, where the regions lie in ``shown``: scores (Q, K), and masks at the photo's size."""
    net, masks = ask.model, torch.from_numpy(grids)
    net.draw, drawn = Mock(return_value=net.draw([masks], torch.Generator().manual_seed(0))), net.draw
    try:
        with torch.inference_mode():
            asked = collate([net.words.prompt("region", regions=len(grids))], net.words.pad, 2048)
            head = net(to_input(photo, 64)[None], asked, [masks], prompts=to_input(shown, 64)[None])[1][-1]
    finally:
        net.draw = drawn
    found = post.enlarged(head.masks[0], 64, fitted(SIZE, 64), SIZE)
    return head.regions[0].sigmoid().T * post.certainty(found)[:, None], found


def test_what_is_pointed_at_gets_the_mask_of_the_whole_network(ask: Segmenter) -> None:
    marks = [Points(((10, 10),)), Box(30, 5, 60, 30), Scribble(((3, 3), (40, 30)))]
    scores, masks = pointed(ask, PHOTO, regions(marks, SIZE, 64), PHOTO)
    for place, found in enumerate(ask(PHOTO, marks)):
        assert found.score == pytest.approx(float(scores[:, place].max()), abs=1e-4)
        assert (found.mask == (masks[scores[:, place].argmax()] > 0).numpy()).mean() > 0.999
    assert len({round(float(best), 4) for best in scores.amax(0)}) == 3


@pytest.mark.parametrize("boxes", [[Box(5, 5, 30, 30)], [Box(5, 5, 30, 30), Box(30, 20, 60, 45)]])
def test_each_frame_is_asked_for_what_the_last_good_one_showed(ask: Segmenter, boxes: list[Box]) -> None:
    frames = [np.roll(PHOTO, 9 * step, (0, 1)) for step in range(4)]
    shown, objects, answers = frames[0], ask(PHOTO, boxes).to_numpy(), list(ask.track(frames, boxes))
    for photo, answer in zip(frames[1:], answers[1:], strict=True):
        scores, masks = pointed(ask, photo, np.stack([fit_region(one, 64) for one in objects]), shown)
        queries = chosen(scores)
        assert answer.scores == pytest.approx([float(scores[query, place]) for place, query in enumerate(queries)], abs=1e-4)
        found = (masks[queries] > 0).numpy()
        assert (answer.to_numpy() == found).mean() > 0.999
        if all(one.any() for one in found) and not confused(found):
            shown, objects = photo, found
    assert len({answer.to_numpy().tobytes() for answer in answers}) == 4
    assert len(boxes) > 1 or shown is frames[-1]


def test_of_a_video_the_first_and_the_last_good_frame_are_remembered(ask: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, alive, encode = list[weakref.ref[Any]](), list[int](), ask.model.encode_image

    def watched(pixels: torch.Tensor) -> Any:
        image = encode(pixels)
        seen.append(weakref.ref(image.tokens))
        alive.append(sum(one() is not None for one in seen))
        return image

    monkeypatch.setattr(ask.model, "encode_image", watched)
    monkeypatch.setattr(ask._runner, "features", BoundedCache(0, tree_bytes))  # the photos of other questions are kept elsewhere
    frames = (np.roll(PHOTO, step, 1) for step in range(12))
    assert sum(len(found) for found in ask.track(frames, np.ones((1, *SIZE), np.bool_))) == 12
    assert len(seen) == 12
    assert max(alive) <= 4  # with the frame before and the one that is looked at

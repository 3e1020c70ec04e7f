"""CAT-Seg through the Segmenter: the published looks, synonyms, backgrounds, and class lists that outlive the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from promptseg import zoo
from promptseg.contracts import Options
from promptseg.errors import ConfigError, PromptError, UnsupportedTask
from promptseg.models.catseg import CatSegOptions, Model
from promptseg.models.catseg.windows import looks, resized
from promptseg.prompts import Text
from promptseg.results import SemanticMap
from promptseg.segmenter import Segmenter
from test_catseg import build
from toy_family import photo

NAMES = ["sky", "grass", "a dog"]


@pytest.fixture(scope="module")
def ask() -> Segmenter:
    return Segmenter(build(), zoo.card("catseg-base"), device="cpu", precision="float32")


def by_hand(model: Model, pixels: np.ndarray, names: list[str], mode: str, multiple: int = 32) -> Any:
    """The published order, step by step, on a photo of which neither side becomes 2560."""
    height, width = pixels.shape[:2]
    scale = 640 / min(height, width)
    photo = Image.fromarray(pixels).resize((int(width * scale + 0.5), int(height * scale + 0.5)), Image.Resampling.BILINEAR)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.preprocess.mean, model.config.preprocess.std))
    shown = (torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255 - mean) / std
    if mode == "whole":
        crops = [F.pad(shown, (0, -photo.width % multiple, 0, -photo.height % multiple))]
    else:
        canvas = F.interpolate(shown[None], (640, 640), mode="bilinear")[0]
        crops = [canvas[:, y : y + 384, x : x + 384] for y in (0, 256) for x in (0, 256)]
        crops.append(F.interpolate(shown[None], (384, 384), mode="bilinear")[0])  # not of the canvas
    with torch.inference_mode():
        seen = torch.cat([F.interpolate(crop[None], (64, 64), mode="bilinear") for crop in crops])
        logits = model(seen, [Text(name) for name in names]).logits
        if mode == "whole":
            return F.interpolate(logits.sigmoid(), (height, width), mode="bilinear")[0].numpy()
        parts = F.interpolate(logits, (384, 384), mode="bilinear").sigmoid()
        total, times = torch.zeros(len(names), 640, 640), torch.zeros(640, 640)
        for index, (y, x) in enumerate((y, x) for y in (0, 256) for x in (0, 256)):
            total[:, y : y + 384, x : x + 384] += parts[index]
            times[y : y + 384, x : x + 384] += 1
        both = (total / times + F.interpolate(parts[-1:], (640, 640), mode="bilinear")[0]) / 2
        return F.interpolate(both[None], (height, width), mode="bilinear")[0].numpy()


def noise(size: tuple[int, int]) -> np.ndarray:
    """Coloured squares, (H, W, 3) uint8."""
    blocks = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 10), -(-size[1] // 10), 3), np.uint8)
    return np.ascontiguousarray(blocks.repeat(10, 0).repeat(10, 1)[: size[0], : size[1]])


def agrees(found: SemanticMap, wanted: np.ndarray) -> bool:
    """Whether every pixel's class is the best of these probabilities (N, H, W), up to ties, and the classes' scores are their means."""
    chosen = np.take_along_axis(wanted, found.labels[None].astype(np.int64), 0)[0]
    means = [chosen[found.labels == index].mean() for index in np.flatnonzero(found.areas)]
    return bool((chosen > wanted.max(0) - 1e-5).all()) and found.scores[found.areas > 0] == pytest.approx(means, rel=1e-4)


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("size", [(50, 50), (50, 67), (67, 50), (700, 900)], ids=str)
def test_maps_are_the_published_ones(ask: Segmenter, mode: Any, size: tuple[int, int]) -> None:
    found = ask.semantic(noise(size), NAMES, options=CatSegOptions(mode=mode))
    assert agrees(found, by_hand(ask.model, noise(size), NAMES, mode))


@pytest.mark.parametrize("size", [(50, 67), (700, 900)], ids=str)
def test_padding_stays_in_view(ask: Segmenter, size: tuple[int, int]) -> None:
    found = ask.semantic(noise(size), NAMES, options=CatSegOptions(mode="whole"))
    assert not agrees(found, by_hand(ask.model, noise(size), NAMES, "whole", multiple=1))


def test_sizes() -> None:
    """The shorter side becomes 640, the longer one at most 2560; whole mode pads to multiples of 32."""
    assert resized((480, 640)) == (640, 853)
    assert resized((100, 1000)) == (256, 2560)
    assert looks((480, 640), "whole")[0].shape == (640, 864)
    assert [look.part for look in looks((480, 640), "slide")] == [0, 1, 2, 3, 4]


def test_batches_halves_and_tiles(ask: Segmenter) -> None:
    whole = CatSegOptions(mode="whole")
    alone = ask.semantic(photo(), NAMES, options=whole)
    both = ask.semantic([photo(), photo(50, 40)], NAMES, options=whole)
    assert (both[0].labels == alone.labels).all()
    assert both[1].size == (50, 40)
    assert (ask.semantic(ask.embed_image(photo(), options=whole), NAMES).labels == alone.labels).all()
    assert ask.semantic(photo(), NAMES, options=Options(tile=30)).size == (40, 60)


def test_a_list_of_photos_in_slide_mode(ask: Segmenter) -> None:
    """More windows than go through the network together, photos of different shapes: each as by itself."""
    photos = [noise((50, 67)), photo(), noise((50, 50)), photo(50, 40)]
    found = ask.semantic(photos, NAMES)
    assert [one.size for one in found] == [(50, 67), (40, 60), (50, 50), (50, 40)]
    for one, pixels in zip(found, photos, strict=True):
        assert agrees(one, by_hand(ask.model, pixels, NAMES, "slide"))


def test_five_thousand_classes(ask: Segmenter) -> None:
    """They are refined together, and all compete."""
    names = [f"thing {index}" for index in range(5000)]
    found = ask.semantic(photo(), names, options=CatSegOptions(mode="whole"))
    assert found.classes == tuple(names)
    assert found.areas.sum() == 40 * 60
    assert agrees(found, np.stack(list(ask.model.to_scores(_whole(ask, names), (40, 60)))))


def test_synonyms(ask: Segmenter) -> None:
    whole = CatSegOptions(mode="whole")
    plain = ask.semantic(photo(), ["sky", "grass", "dog"], options=whole)
    most = ask.semantic(photo(), ["sky", ["grass", "dog"]], options=whole)
    assert most.classes == ("sky", "grass")
    assert (most.labels == np.minimum(plain.labels, 1)).all()
    mean = ask.semantic(photo(), ["sky", ["grass", "dog"]], options=CatSegOptions(mode="whole", synonyms="mean"))
    features = ask.embed_prompts(["sky", "grass", "dog"]).mix([1, 0, 0], [0, 0.5, 0.5]).features
    with torch.inference_mode():
        shown = ask.embed_image(photo(), options=whole)
        logits = ask.model.decode(shown.features[0], features).logits
    wanted = F.interpolate(logits.sigmoid(), (40, 60), mode="bilinear")[0].argmax(0).numpy()
    assert (mean.labels == wanted).all()


def test_background(ask: Segmenter) -> None:
    whole = CatSegOptions(mode="whole")
    named = ask.semantic(photo(), ["sky", "grass"], background="dog", options=whole)
    plain = ask.semantic(photo(), ["sky", "grass", "dog"], options=whole)
    assert (named.labels == np.where(plain.labels == 2, -1, plain.labels)).all()
    scores = np.stack(list(ask.model.to_scores(_whole(ask, ["sky", "grass"]), (40, 60))))
    cut = float(np.median(scores.max(0)))
    found = ask.semantic(photo(), ["sky", "grass"], background=cut, options=whole)
    assert (found.labels == np.where(scores.max(0) > cut, scores.argmax(0), -1)).all()


def _whole(ask: Segmenter, names: list[str]) -> Any:
    shown = ask.embed_image(photo(), options=CatSegOptions(mode="whole"))
    with torch.inference_mode():
        return ask.model.decode(shown.features[0], ask.embed_prompts(names).features)


def test_classes_left_out_of_a_photo(ask: Segmenter) -> None:
    names = [f"thing {index}" for index in range(30)]
    few = ask.semantic(photo(), names, options=CatSegOptions(mode="whole", max_classes=2))
    assert np.count_nonzero(few.areas) <= 2
    cut = ask.semantic(photo(), names, options=CatSegOptions(mode="whole", truncate=True))
    assert np.count_nonzero(cut.areas) <= 24


def test_class_lists_outlive_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second segmenter of the same weights reads a long list; other weights, another list and a damaged file are encoded anew."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path))
    names, encoded = [f"thing {index}" for index in range(20)], []

    def fresh(shift: float = 0.0) -> Segmenter:
        model = build()
        with torch.no_grad():
            model.text.projection += shift
        made = Segmenter(model, zoo.card("catseg-base"), device="cpu", precision="float32")
        original = model.embed_texts
        monkeypatch.setattr(model, "embed_texts", lambda phrases: (encoded.append(len(phrases)), original(phrases))[1])
        return made

    first = fresh().embed_prompts(names).features.condition
    assert encoded == [20]
    assert torch.equal(fresh().embed_prompts(names).features.condition, first)
    assert encoded == [20]
    assert not torch.equal(fresh(0.1).embed_prompts(names).features.condition, first)
    fresh().embed_prompts(names[:19])
    assert encoded == [20, 20, 19]
    for file in (tmp_path / "prompts").iterdir():
        file.write_bytes(b"damaged")
    assert torch.equal(fresh().embed_prompts(names).features.condition, first)
    assert encoded == [20, 20, 19, 20]


def test_bad_input(ask: Segmenter) -> None:
    assert (ask.semantic(photo(), []).labels == -1).all()
    with pytest.raises(PromptError, match="no list of classes"):
        ask.semantic(photo())
    with pytest.raises(PromptError, match="empty"):
        ask.semantic(photo(), ["sky", " "])
    with pytest.raises(UnsupportedTask, match="catseg-base"):
        ask(photo(), "sky")
    for wrong in ({"mode": "both"}, {"max_classes": 0}, {"size": 640}, {"synonyms": "sum"}):
        with pytest.raises(ConfigError):
            CatSegOptions(**wrong)  # type: ignore[arg-type]

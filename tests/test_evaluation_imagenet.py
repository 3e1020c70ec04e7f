"""Zero-shot classification on a miniature of ImageNet, against figures counted the long way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mixing_network
import replicas
from promptseg.data.imagenet import imagenet
from promptseg.data.vocabularies import names, table, templates
from promptseg.errors import ConfigError, DataError, UnsupportedTask
from promptseg.evaluation import evaluate, protocol
from promptseg.metrics import TopK
from promptseg.models.groupvit.photos import centre
from small_groupvit import segmenter

SYNSETS = {"n01443537": 2, "n01440764": 1, "n15075141": 3}
NAMES = "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"  # sha256 of CLIP's list, joined by line ends


def miniature(root: Path) -> Path:
    """ILSVRC2012 with three classes and what lies between them in the wild."""
    for synset, count in SYNSETS.items():
        for number in range(count):
            replicas.photo(root / "val" / synset / f"ILSVRC2012_val_{number:08d}.JPEG", (50 + 9 * number, 70), number + count)
    (root / "val" / "n01440764" / "notes.txt").write_text("no photo")
    replicas.photo(root / "val" / "elsewhere" / "1.jpg")
    return root


def test_the_names_are_those_of_the_published_evaluation() -> None:
    assert hashlib.sha256("\n".join(names("imagenet1000")).encode()).hexdigest() == NAMES
    synsets = table("imagenet1000")["synsets"]
    assert (len(synsets), synsets) == (1000, sorted(set(synsets)))
    assert dict(zip(synsets, names("imagenet1000"), strict=True))["n02012849"] == "crane bird"


def test_photos_follow_the_order_of_the_classes(tmp_path: Path) -> None:
    photos = imagenet(miniature(tmp_path))
    assert [photo.target for photo in photos] == [0, 1, 1, 999, 999, 999]
    assert photos[1].id == "n01443537/ILSVRC2012_val_00000000"
    assert photos[1].image().shape == (50, 70, 3)


def test_figures(tmp_path: Path) -> None:
    root, model = miniature(tmp_path / "data"), segmenter().model
    with torch.inference_mode():
        texts = model.embed_texts([template.format(name) for name in names("imagenet1000") for template in templates("imagenet7")])
        classes = F.normalize(texts.view(1000, 7, -1).mean(1), dim=-1)
        ranks = []
        for photo in imagenet(root):
            pixels = centre(photo.image(), 73, 64)
            image = F.normalize(model.image_projector(model.image(pixels[None]).tokens.mean(1))[0], dim=-1)
            ranks.append((classes @ image).argsort(descending=True, stable=True).tolist().index(photo.target))
    found = evaluate(protocol("imagenet", root), segmenter(), output=tmp_path / "table.json", resamples=20)
    assert found.value("top-1") == np.mean([rank < 1 for rank in ranks])
    assert found.value("top-5") == np.mean([rank < 5 for rank in ranks])
    written = json.loads((tmp_path / "table.json").read_text())
    assert written["published"]["groupvit-gcc-yfcc"] == {"top-1": 0.437}
    assert written["classes"]["top-5"].keys() == {"tench (n01440764)", "goldfish (n01443537)", "toilet paper (n15075141)"}
    assert (tmp_path / "table.png").exists()


def test_a_network_that_knows_the_answer_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the photos are named first, all among the first five."""
    root, right = miniature(tmp_path), {photo.image().tobytes(): photo.target for photo in imagenet(tmp_path)}

    def classify(photo: np.ndarray, prompts: object) -> torch.Tensor:
        scores, target = torch.zeros(1000), right[photo.tobytes()]
        scores[target] = 1.0
        if target == 999:
            scores[400:404] = 2.0
        return scores

    monkeypatch.setattr(segmenter().model, "classify", classify, raising=False)
    found = evaluate(protocol("imagenet", root), segmenter(), resamples=0)
    assert [row.value for row in found] == [0.5, 1.0]
    assert sorted(found.classes["top-1"].values()) == [0.0, 1.0, 1.0]


def test_equal_scores_and_impossible_ones() -> None:
    metric = TopK((1, 2))
    for target in range(3):
        metric.update("abc"[target], [1.0, 1.0, 1.0], target)
    assert dict(metric.compute().accuracy) == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3)}
    with pytest.raises(DataError, match="no score 3"):
        metric.update("d", [1.0, 2.0, 3.0], 3)
    with pytest.raises(ConfigError, match="at least 1"):
        TopK((0,))


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTask, match="whole-photo"):
        evaluate(protocol("imagenet", miniature(tmp_path)), mixing_network.segmenter())
    with pytest.raises(DataError, match="imagenet80, imagenet7, photo"):
        protocol("imagenet", tmp_path, templates="seven")

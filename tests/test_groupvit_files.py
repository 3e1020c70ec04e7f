"""GroupViT's own checkpoint files, which hold more than weights; half precision; batches."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch

from promptseg import zoo
from promptseg.contracts import PromptFeatures
from promptseg.embeddings import split
from promptseg.models.groupvit.keys import LAYOUTS
from promptseg.models.groupvit.network import Model
from promptseg.nn.conversion import to_official
from promptseg.prompts import Text
from promptseg.segmenter import Segmenter
from small_groupvit import CONFIG, build, card, model

WORDS = [Text("a dog"), Text("the sea", ("a photo of {}.", "art of {}."))]


class Settings:
    """Stands for the configuration object in the published files, whose class is not installed where they are read."""

    def __init__(self) -> None:
        self.model = {"img_size": 224}


def test_a_file_with_a_configuration_object_and_the_optimiser(tmp_path: Path) -> None:
    theirs = {name: tensor.clone() for name, tensor in to_official(LAYOUTS["official"], model().state_dict()).items()}
    theirs["img_projector.linear_hidden.1.num_batches_tracked"] = torch.tensor(7)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    whole = {"model": theirs, "optimizer": optimizer.state_dict(), "epoch": 29, "config": Settings(), "max_miou": 52.3}
    torch.save(whole, tmp_path / "group_vit.pth", pickle_module=pickle)
    again = Model.from_official(CONFIG, zoo.read_weights(tmp_path / "group_vit.pth"))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model().state_dict().items())


def test_half_precision_gives_nearly_the_same_map() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (2, 3, 3), dtype=np.uint8).repeat(40, 0).repeat(40, 1)
    full = Segmenter(build(), card(), device="cpu", precision="float32")
    half = Segmenter(build(), card(), device="cpu", precision="bfloat16")
    one, other = (ask.semantic(photo, ["a", "b", "c"], background=0).labels for ask in (full, half))
    assert one.shape == other.shape == (80, 120)
    assert half.groups(photo)[0].labels.shape == (80, 120)
    assert np.isfinite(half(photo, "a dog").scores).all()
    assert np.isfinite(half.semantic(photo, ["a", "b", "c"]).scores).all()


@torch.no_grad()
def test_together_is_each_by_itself() -> None:
    pixels = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    together = model()(pixels, WORDS)
    assert together.logits.shape == (3, 4, 2)
    assert [one.shape for one in together.maps] == [(3, 6, 4, 6), (3, 4, 4, 6)]
    for index, part in enumerate(split(together, 3)):
        alone = model()(pixels[index : index + 1], WORDS)
        torch.testing.assert_close(part.logits, alone.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(part.maps[1], alone.maps[1], rtol=1e-4, atol=1e-5)
        assert part.prompts == tuple(WORDS)


@torch.no_grad()
def test_one_photo_is_encoded_once_for_ninety_prompts() -> None:
    calls: list[int] = []
    handle = model().image.register_forward_hook(lambda *_: calls.append(1))
    image = model().encode_image(torch.zeros(1, 3, 64, 64))
    for count in (1, 90):
        prompts = tuple(Text(str(index)) for index in range(count))
        assert model().decode(image, PromptFeatures(prompts, torch.randn(count, 16))).whole.shape == (1, count)
    handle.remove()
    assert calls == [1]


def test_templates_are_averaged_before_they_are_normalised() -> None:
    with torch.no_grad():
        mean = model().embed_texts(["a photo of the sea.", "art of the sea."]).mean(0)
        torch.testing.assert_close(model().encode_prompts(WORDS).condition[1], mean, rtol=1e-4, atol=1e-5)

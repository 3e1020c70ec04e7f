"""What CAT-Seg's training starts from: CLIP's own file, as OpenAI or transformers names its tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small_catseg
from promptseg import zoo
from promptseg.errors import WeightsError
from promptseg.models.catseg import CatSegConfig, Model, Run
from promptseg.models.catseg.keys import TOWERS
from promptseg.nn import conversion
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.tokenizers import clip as clip_tokenizer

INVENTORY = Path(__file__).parent / "golden" / "clip" / "inventory_ViT-B-16.json"
SCALARS = {"input_resolution": torch.tensor(28), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}
RECIPE = "catseg/large"


@pytest.fixture(scope="module")
def stuff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_catseg.photos(tmp_path_factory.mktemp("stuff"))


def begun(data: Path, folder: Path, state: dict[str, Tensor]) -> Model:
    """The network of a run whose recipe names a file that holds ``state``."""
    torch.save(state, folder / "clip.pt")
    recipe = small_catseg.recipe(data, folder / "out", name=RECIPE)
    return Run(replace(recipe, options=replace(recipe.options, clip=str(folder / "clip.pt"))), lambda _: None).model


def openai(model: Model) -> dict[str, Tensor]:
    """CLIP's own file with the towers of a network: what CAT-Seg's checkpoints hold of it, attention in one piece."""
    theirs, clip = zoo.to_official(model), "sem_seg_head.predictor.clip_model."
    towers = {name.removeprefix(clip): tensor for name, tensor in theirs.items() if name.startswith(clip)}
    for name in [name for name in towers if name.endswith("q_proj_weight")]:
        towers[name.replace("q_proj", "in_proj")] = torch.cat([towers.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"])
    return towers | SCALARS


def transformers(config: CatSegConfig) -> Any:
    """transformers' own model of the same sizes."""
    from transformers import CLIPConfig, CLIPModel

    def tower(part: ClipVisionConfig | ClipTextConfig) -> dict[str, Any]:
        sizes = {"hidden_size": part.width, "intermediate_size": 4 * part.width, "projection_dim": part.embed}
        return sizes | {"num_hidden_layers": part.layers, "num_attention_heads": part.heads}

    vision = tower(config.image) | {"patch_size": config.image.patch, "image_size": config.image.patch * config.image.grid}
    torch.manual_seed(1)
    return CLIPModel(CLIPConfig(text_config=tower(config.text), vision_config=vision, projection_dim=config.image.embed)).eval()


def test_every_tensor_of_clips_archive_has_its_place() -> None:
    with torch.device("meta"):
        full = Model(zoo.config("catseg-base"))
    expected = {name: shape for name, shape in conversion.shapes_of(full).items() if name.startswith(("image.", "text.", "logit_scale"))}
    listed = json.loads(INVENTORY.read_text(encoding="utf-8"))["tensors"]
    theirs = {entry["name"]: torch.zeros(()).expand(entry["shape"]) for entry in listed} | SCALARS
    assert conversion.detect(TOWERS, theirs, expected) == "openai"
    ours = conversion.from_official(TOWERS["openai"], theirs, expected)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == expected


def test_a_run_starts_from_openais_file(stuff: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)  # not the run's
    given = openai(Model(small_catseg.network(RECIPE)))
    started = openai(begun(stuff, tmp_path, given))
    assert started.keys() == given.keys()
    assert all(torch.equal(started[name], given[name]) for name in given)


def test_a_run_starts_from_transformers_file(stuff: Path, tmp_path: Path) -> None:
    """Photos and phrases are then embedded as transformers does."""
    config = small_catseg.network(RECIPE)
    theirs = transformers(config)
    positions = {f"{part}_model.embeddings.position_ids": torch.arange(5)[None] for part in ("text", "vision")}  # older files
    started = begun(stuff, tmp_path, theirs.state_dict() | positions)
    pixels, phrases = torch.randn(2, 3, config.side, config.side), ["cat", "a traffic light"]
    ids = clip_tokenizer()(phrases)
    with torch.no_grad():
        seen, said = theirs.vision_model(pixels), theirs.text_model(ids)
        torch.testing.assert_close(started.image(pixels).embedding, theirs.visual_projection(seen.pooler_output), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(started.embed_texts(phrases), theirs.text_projection(said.pooler_output), rtol=1e-4, atol=1e-5)
    assert torch.equal(started.logit_scale, theirs.logit_scale)


def test_another_file_is_refused(stuff: Path, tmp_path: Path) -> None:
    good = openai(Model(small_catseg.network(RECIPE)))
    smaller = openai(Model(small_catseg.SMALL))
    cut = {name: tensor for name, tensor in good.items() if name != "visual.proj"}
    wrongs = ((smaller, "of another shape"), (cut, r"1 missing: visual\.proj"), ({"head.weight": torch.zeros(1)}, "not part of this model"))
    for wrong, said in wrongs:
        with pytest.raises(WeightsError, match=said):
            begun(stuff, tmp_path, wrong)

"""GroupViT: published names both ways, parity with transformers, label maps, phrases, groups, losses."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg import zoo
from promptseg.contracts import Options
from promptseg.errors import ConfigError, DataError, ImageError, NumericalError, PromptError, UnsupportedPrompt, WeightsError
from promptseg.images import resized_8bit, to_pixels
from promptseg.maps import GroupMap, SemanticMap
from promptseg.models.groupvit import GroupVitConfig, GroupVitImageConfig, GroupVitOptions, naming, windows
from promptseg.models.groupvit.keys import IMAGE, LAYOUTS
from promptseg.models.groupvit.losses import contrastive_loss, multi_label_loss
from promptseg.models.groupvit.network import Model
from promptseg.models.groupvit.words import candidates, wordings
from promptseg.nn.clip_config import ClipTextConfig
from promptseg.nn.conversion import from_official, shapes_of, to_official
from promptseg.prompts import Points, Text
from promptseg.segmenter import Segmenter
from small_groupvit import CONFIG, build, card, model, segmenter

GOLDEN = Path(__file__).parent / "golden" / "groupvit"
CARDS = {"groupvit-gcc-yfcc": "group_vit_gcc_yfcc_30e", "groupvit-gcc-redcap": "group_vit_gcc_redcap_30e"}


def photo(height: int = 96, width: int = 150, seed: int = 0) -> NDArray[np.uint8]:
    """Four quarters of different colours and some noise."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    colours = np.random.default_rng(seed + 1).integers(0, 190, (2, 2, 3))
    blocks = colours.repeat(-(-height // 2), 0)[:height].repeat(-(-width // 2), 1)[:, :width]
    return (blocks + noise).astype(np.uint8)


def inventory(name: str) -> dict[str, Tensor]:
    """Distinct numbers under published names."""
    entries = json.loads((GOLDEN / f"inventory_{name}.json").read_text(encoding="utf-8"))["tensors"]
    return {
        entry["name"]: torch.full(entry["shape"], float(number)) if "float" in entry["dtype"] else torch.zeros((), dtype=torch.int64)
        for number, entry in enumerate(entries)
    }


# --- published files ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_published_names_there_and_back(name: str) -> None:
    theirs = inventory(CARDS[name])
    with torch.device("meta"):
        empty = Model(zoo.config(name))
    assert sum(part.numel() for part in empty.parameters()) == zoo.card(name).parameters
    ours = from_official(LAYOUTS["official"], theirs, shapes_of(empty))
    back = to_official(LAYOUTS["official"], ours)
    assert theirs.keys() - back.keys() == {f"{side}_projector.linear_hidden.1.num_batches_tracked" for side in ("img", "text")}
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in back.items())
    with pytest.raises(WeightsError, match=r"img_encoder\.surplus"):
        from_official(LAYOUTS["official"], {**theirs, "img_encoder.surplus": torch.zeros(1)}, shapes_of(empty))
    del theirs["img_encoder.layers.0.downsample.assign.q_proj.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: img_encoder\.layers\.0\.downsample\.assign\.q_proj\.bias"):
        from_official(LAYOUTS["official"], theirs, shapes_of(empty))


def test_the_one_stage_encoder() -> None:
    config = GroupVitImageConfig(factors=(1, 1), depths=(6, 6), heads=(6, 6), group_tokens=(64, 0), output_groups=(8,))
    with torch.device("meta"):
        empty = Model(GroupVitConfig(image=config)).image
    theirs = inventory("1stage_image_encoder")
    back = to_official(IMAGE, from_official(IMAGE, theirs, shapes_of(empty)))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in back.items())


def test_a_position_table_of_another_size_is_resized() -> None:
    theirs = to_official(LAYOUTS["official"], model().state_dict())
    larger = Model.from_official(replace(CONFIG, image=replace(CONFIG.image, size=96)), theirs)
    assert larger.image.positions.shape == (1, 36, 32)


def test_licence_is_on_the_card() -> None:
    assert all("non-commercial" in zoo.card(name).weights_license for name in CARDS)


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Any]:
    from transformers import GroupViTConfig, GroupViTModel

    torch.manual_seed(3)
    text = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": 49406}
    theirs = GroupViTModel(
        GroupViTConfig(
            projection_dim=16, projection_intermediate_dim=4096, text_config={**text, "eos_token_id": 49407, "pad_token_id": 49407},
            vision_config={"hidden_size": 32, "intermediate_size": 128, "depths": [2, 1, 1], "num_hidden_layers": 4, "image_size": 64,
                           "num_group_tokens": [6, 4, 0], "num_output_groups": [6, 4, 0], "num_attention_heads": 2},
        )
    ).eval()  # fmt: skip
    config = replace(
        CONFIG, image=replace(CONFIG.image, depths=(2, 1, 1)), text=ClipTextConfig(width=32, layers=2, heads=2, embed=32), embed=16
    )
    return Model.from_official(config, theirs.state_dict()), theirs


@torch.no_grad()
def test_parity_with_transformers(pair: tuple[Model, Any]) -> None:
    from promptseg.tokenizers import clip

    ours, theirs = pair
    pixels, phrases = torch.randn(2, 3, 64, 64), ["a dog", "a photo of the long green grass.", "wood"]
    ids = clip()(phrases)
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    found = theirs(input_ids=ids, attention_mask=mask, pixel_values=pixels)
    answer = ours(pixels, [Text(phrase) for phrase in phrases])
    torch.testing.assert_close(answer.whole, found.logits_per_image, rtol=1e-3, atol=1e-4)
    features = ours.encode_image(pixels)
    torch.testing.assert_close(features.whole, found.image_embeds, rtol=1e-3, atol=1e-5)


def test_back_to_transformers(pair: tuple[Model, Any]) -> None:
    ours, theirs = pair
    assert ours.multi_label_logit_scale is not None
    assert float(ours.multi_label_logit_scale.detach()) == pytest.approx(math.log(1 / 0.07))  # their layout has none
    back, original = zoo.to_official(ours, "hf"), theirs.state_dict()
    assert {name for name in original.keys() - back.keys() if "position_ids" not in name} == {
        f"{side}_projection.1.num_batches_tracked" for side in ("visual", "text")
    }
    assert all(torch.equal(tensor, original[name]) for name, tensor in back.items())
    again = type(theirs)(theirs.config)
    assert not torch.equal(again.state_dict()["visual_projection.0.weight"], original["visual_projection.0.weight"])
    again.load_state_dict(back)  # strict; torch starts the counts of the batch norms, which no file need have
    assert all(torch.equal(tensor, original[name]) for name, tensor in again.state_dict().items())


def test_files_of_older_transformers_and_of_one_loss(pair: tuple[Model, Any]) -> None:
    """With the positions' numbers, which are no weights; captions alone need no second temperature, which their layout does not have."""
    _, theirs = pair
    original = {**theirs.state_dict(), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    image, text = replace(CONFIG.image, depths=(2, 1, 1)), ClipTextConfig(width=32, layers=2, heads=2, embed=32)
    redcap = Model.from_official(replace(CONFIG, image=image, text=text, multi_label=0), original)
    assert redcap.multi_label_logit_scale is None
    assert all(torch.equal(tensor, original[name]) for name, tensor in zoo.to_official(redcap, "hf").items())
    assert zoo.config("groupvit-gcc-redcap").multi_label == 0


def test_a_third_projector_layer_has_no_place_in_transformers_layout() -> None:
    """Its two places would be written twice, and half of what was learned be lost."""
    deep = build(projector_layers=3)
    with pytest.raises(WeightsError, match=r"one place, visual_projection\.3\.weight, for two tensors"):
        zoo.to_official(deep, "hf")
    again = Model.from_official(replace(CONFIG, projector_layers=3), zoo.to_official(deep))
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in deep.state_dict().items())


# --- configuration ------------------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "size": 96, "patch": 8, "width": 64, "factors": (1, 2, 2), "depths": (1, 2, 1), "heads": (2, 1, 2), "group_tokens": (5, 4, 0),
    "output_groups": (6, 3), "mlp_ratio": 2.0, "qkv_bias": False, "patch_norm": False, "hard": False, "positions": "fourier",
    "drop_path": 0.5,
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", [field.name for field in fields(GroupVitImageConfig)])
def test_every_field_changes_something(name: str) -> None:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain, changed = build(), build(image=replace(CONFIG.image, **{name: CHANGES[name]}))
    if name == "drop_path":
        plain, changed = plain.train(), changed.train()
        torch.manual_seed(0)
    elif shapes_of(plain) != shapes_of(changed):
        assert changed.encode_image(pixels).whole.shape == (1, 16)
        return
    else:
        changed.load_state_dict({**plain.state_dict(), "image.positions": changed.image.positions})
    assert not torch.equal(plain.image(pixels).tokens, changed.image(pixels).tokens)


@pytest.mark.parametrize(
    "changes", [{"heads": (5, 2, 2)}, {"size": 60}, {"output_groups": (6,)}, {"group_tokens": (6, 0, 0)}, {"group_tokens": (6, 4, 1)},
                {"positions": "none"}, {"drop_path": 1.0}],
)  # fmt: skip
def test_impossible_configurations(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG.image, **changes)


def test_folder(tmp_path: Path) -> None:
    zoo.save_folder(model(), tmp_path, "groupvit-gcc-yfcc")
    again, found = zoo.load_folder(tmp_path)
    assert found.config == CONFIG
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model().state_dict().items())


# --- windows ------------------------------------------------------------------------------------------------------------------------------


def test_windows_slide_over_the_resized_photo() -> None:
    views = windows.views((300, 460), GroupVitOptions(), zoo.config("groupvit-gcc-yfcc").preprocess)
    assert {view.content for view in views} == {(448, 687)}
    assert [view.window for view in views] == [(0, 0, 448, 448), (224, 0, 672, 448), (239, 0, 687, 448)]
    (whole,) = windows.views((300, 460), GroupVitOptions(mode="whole"), zoo.config("groupvit-gcc-yfcc").preprocess)
    assert (whole.window, whole.shape) == (None, (448, 687))
    with pytest.raises(ConfigError, match="GroupVitOptions"):
        windows.views((300, 460), Options(tile=64), CONFIG.preprocess)


@pytest.mark.parametrize(
    "given", [{"crop": 32, "stride": 64}, {"crop": 100}, {"stride": 449}, {"mode": "whole", "crop": 64}, {"mode": "whole", "stride": 5}]
)
def test_windows_that_leave_pixels_out_or_are_not_used(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="crop and"):
        GroupVitOptions(**given)


@pytest.mark.parametrize("size", [(3, 2000), (2000, 3)])
def test_very_long_photos(size: tuple[int, int]) -> None:
    long = photo(*size)
    assert (segmenter().semantic(long, ["a", "b"], background=0).labels >= 0).all()
    assert [one.size for one in (*segmenter().groups(long), segmenter()(long, "a dog"))] == [size] * 3


def test_a_photo_of_its_own_size_is_not_changed_by_resizing() -> None:
    same = photo()
    np.testing.assert_array_equal(resized_8bit(same, (96, 150)), same)
    flat = np.full((5, 7, 3), 200, np.uint8)
    np.testing.assert_array_equal(resized_8bit(flat, (11, 3)), np.full((11, 3, 3), 200, np.uint8))


@pytest.mark.parametrize("size", [(33, 41), (200, 91), (96, 40), (448, 703), (7, 300)])
def test_resizing_is_opencvs_to_the_last_bit(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resized_8bit(noise, size), cv2.resize(noise, size[::-1], interpolation=cv2.INTER_LINEAR))


# --- label maps ---------------------------------------------------------------------------------------------------------------------------


def test_best_segments_are_never_background_and_others_are() -> None:
    ask = segmenter()
    everything = ask.semantic(photo(), ["a", "b", "c"], background=0)
    strict = ask.semantic(photo(), ["a", "b", "c"], background=1.0, options=GroupVitOptions(mode="whole"))
    assert everything.labels.shape == (96, 150)
    assert (everything.labels >= 0).all()
    assert (strict.labels == -1).any()
    assert ask.semantic(photo(), ["a", "b", "c"]).labels.tolist() == ask.semantic(photo(), ["a", "b", "c"], background=0.95).labels.tolist()


def test_windows_change_the_answer_and_classes_compete() -> None:
    ask = segmenter()
    options = GroupVitOptions(crop=48, stride=24)
    slid = ask.semantic(photo(), ["a", "b"], background=0, options=options)
    alone = ask.semantic(photo(), ["a"], background=0, options=options)
    assert (alone.labels == 0).all()
    assert slid.scores.shape == (2,)
    named = ask.semantic(photo(), ["a"], background=["b"], options=options)
    np.testing.assert_array_equal(named.labels, np.where(slid.labels == 1, -1, slid.labels))


def test_synonyms_and_many_classes() -> None:
    ask = segmenter()
    both = ask.semantic(photo(), [["a", "b"], "c"], background=0)
    assert both.classes == ("a", "c")
    many = ask.semantic(photo(), [f"thing {i}" for i in range(300)], background=0)
    assert len(np.unique(many.labels)) <= 5 * 4  # five classes in each of up to four windows


def test_templates_word_the_classes_of_maps_only() -> None:
    ask = segmenter()
    plain = ask.semantic(photo(), ["a", "b"], background=0, options=Options(templates=("{}",)))
    worded = ask.semantic(photo(), ["a photo of a a.", "a photo of a b."], background=0, options=Options(templates=("{}",)))
    np.testing.assert_allclose(ask.semantic(photo(), ["a", "b"], background=0).scores, worded.scores, rtol=1e-4)
    assert plain.scores.tolist() != worded.scores.tolist()


def test_scores_are_the_published_product() -> None:
    logits, whole = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]), torch.tensor([1.0, 0.0, 2.0])
    found = naming.class_scores(logits, whole, top=2)
    expected = logits[:, [0, 2]].softmax(-1) * logits.softmax(-1)[:, [0, 2]]
    torch.testing.assert_close(found[:, [0, 2]], expected)
    assert (found[:, 1] == 0).all()


def test_lists_empties_and_embeddings() -> None:
    ask = segmenter()
    two = ask.semantic([photo(), photo(70, 70)], ["a", "b"])
    assert [one.size for one in two] == [(96, 150), (70, 70)]
    embedded = ask.semantic(ask.embed_image(photo()), ["a", "b"])
    np.testing.assert_array_equal(embedded.labels, two[0].labels)
    assert (ask.semantic(photo(), []).labels == -1).all()
    assert len(ask(photo(), [])) == 0


# --- phrases and groups -------------------------------------------------------------------------------------------------------------------


def test_a_phrase_competes_with_everyday_words_but_not_with_its_own() -> None:
    ask = segmenter()
    masks = ask(photo(), ["a dog", "two dogs", "nothing at all"])
    assert [mask.mask.shape for mask in masks] == [(96, 150)] * 3
    seen = model().merge([model()(torch.randn(1, 3, 64, 64), [Text("a photo of a dog.")])], windows.over((64, 64), (64, 64)), (64, 64))
    logits = model().to_masks(seen).logits
    scale, segments = float(model().scale.detach()), seen.windows[0].segments[0]
    others = torch.tensor([word != "dog" for word in naming.RIVALS])
    against = (segments @ model().rivals()[others].T * scale).logsumexp(-1)
    expected = (seen.windows[0].logits[0, :, 0] - against)[naming.owner(seen.windows[0].maps[-1], (64, 64))]
    assert float(logits.max()) <= float(expected.max()) + 1e-3
    assert float(logits.min()) >= float(expected.min()) - 1e-3


def test_rivals_follow_the_weights() -> None:
    changing = build()
    before = changing.rivals()
    assert changing.rivals() is before
    with torch.no_grad():
        changing.text_projector.out.weight.mul_(-1)
    assert not torch.allclose(changing.rivals(), before)


def test_groups_of_both_stages() -> None:
    first, last = segmenter().groups(photo())
    assert (len(first.classes), len(last.classes)) == (6, 4)
    assert first.labels.shape == last.labels.shape == (96, 150)
    assert (first.labels >= 0).all()
    assert last.classes[3] == "stage 2 group 3"
    embedded = segmenter().groups(segmenter().embed_image(photo()))
    np.testing.assert_array_equal(embedded[1].labels, last.labels)


def test_parts_know_the_wholes_that_they_became_part_of(tmp_path: Path) -> None:
    ask, (view,) = segmenter(), model().group_views((96, 150))
    with torch.no_grad():
        seen = model().image(to_pixels(photo(), view, CONFIG.preprocess)[None])
    parts, wholes = ask.groups(photo())
    assert wholes.parents == ()
    assert parts.parents == tuple(seen.assigned[1].used[0, 0].argmax(0).tolist())  # the assignment that formed the wholes is hard
    assert len(set(parts.parents)) > 1
    parts.save(tmp_path)
    again = GroupMap.load(tmp_path)
    assert (again.parents, again.classes) == (parts.parents, parts.classes)
    with pytest.raises(DataError, match=r"GroupMap\.load"):
        SemanticMap.load(tmp_path / "groups.json")
    with pytest.raises(ConfigError, match="1 parents for 6"):
        GroupMap(parts.labels, parts.classes, parents=[0])


def test_groups_of_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, at_once = Segmenter(model(), card(), device="cpu", precision="float32"), []
    encode = Model.encode_image
    monkeypatch.setattr(Model, "encode_image", lambda self, pixels: at_once.append(len(pixels)) or encode(self, pixels))
    assert ask.groups([]) == []
    photos = [photo(), photo(70, 70, seed=2), photo(seed=3)]
    several = ask.groups([photos[0], ask.embed_image(photos[1]), photos[2]])
    assert sorted(at_once) == [1, 2], "photos of one shape go together"
    assert [len(stages) for stages in ask.groups(photos[:1])] == [2]
    for one, stages in zip(photos, several, strict=True):
        alone = segmenter().groups(one)
        assert [found.photo is one or np.array_equal(found.photo, one) for found in stages] == [True, True]
        for found, expected in zip(stages, alone, strict=True):
            assert (found.labels == expected.labels).mean() > 0.99, "equal but for rounding in batches"


def test_groups_are_not_made_of_what_is_no_number() -> None:
    damaged = build()
    with torch.no_grad():
        damaged.image.positions[0, 0, 0] = torch.nan
    ask = Segmenter(damaged, card(), device="cpu", precision="float32")
    for question in (ask.groups, lambda shown: ask.semantic(shown, ["a", "b"])):
        with pytest.raises(NumericalError, match="not numbers, in float32 on cpu"):
            question(photo())


def test_what_it_does_not_read() -> None:
    with pytest.raises(UnsupportedPrompt):
        segmenter()(photo(), Points(((3, 4),)))
    with pytest.raises(PromptError, match="texts"):
        model().encode_prompts([Points(((3, 4),))])
    with pytest.raises(ImageError, match="patches of 16x16"):
        model().encode_image(torch.zeros(1, 3, 8, 40))
    assert "groups" in card().tasks


# --- training -----------------------------------------------------------------------------------------------------------------------------


def test_losses_go_down_and_reach_every_parameter() -> None:
    torch.manual_seed(0)
    net = build().train()
    texts = [["a dog", "a photo of a dog.", "a dog"], ["the sea", "art of the sea.", "the sea"], ["a bus", "a bus", "a bus"]]
    pixels = torch.randn(3, 3, 64, 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    totals = []
    for _ in range(8):
        optimizer.zero_grad()
        losses = net.losses(pixels, texts)
        assert losses.keys() == {"loss", "multi_label_loss"}
        total = sum(losses.values(), torch.zeros(()))
        torch.autograd.backward(total)
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
    assert all(part.grad is not None for part in net.parameters())
    assert not torch.equal(net.image_projector.hidden[1].running_mean, torch.zeros(4096))


@torch.no_grad()
def test_one_temperature_for_both_losses() -> None:
    """Shared, the loss on prompts has the captions' temperature; else one of its own."""
    texts, pixels = [["a dog", "a photo of a dog."], ["the sea", "art of the sea."]], torch.randn(2, 3, 64, 64)
    own, shared = build(), build(share_temperature=True)
    assert own.multi_label_logit_scale is not None
    assert shared.multi_label_logit_scale is None
    shared.load_state_dict({name: tensor for name, tensor in own.state_dict().items() if name != "multi_label_logit_scale"})
    for net in (own, shared):
        net.logit_scale.fill_(math.log(5))
    own.multi_label_logit_scale.fill_(math.log(50))
    apart, together = own.losses(pixels, texts), shared.losses(pixels, texts)
    torch.testing.assert_close(apart["loss"], together["loss"])
    assert not torch.allclose(apart["multi_label_loss"], together["multi_label_loss"])
    own.multi_label_logit_scale.fill_(math.log(5))
    torch.testing.assert_close(own.losses(pixels, texts), together)


def test_losses_of_perfect_and_of_wrong_pairs() -> None:
    images, scale = torch.eye(4), torch.tensor(math.log(100.0))
    assert float(contrastive_loss(images, images, scale)) < 1e-6
    assert float(contrastive_loss(images, images.roll(1, 0), scale)) > 50
    prompts = images[:, None].expand(4, 3, 4)
    assert float(multi_label_loss(images, prompts, scale)) == pytest.approx(math.log(3) / 2, abs=1e-5)  # an image has three right answers


def test_words() -> None:
    tagged = [("brown", "JJ"), ("dogs", "NNS"), ("run", "VBP"), ("in", "IN"), ("parks", "NNPS")]
    assert candidates(tagged) == ["dogs", "run"]
    assert candidates(tagged, "noun_phrase") == ["brown dogs"]
    with pytest.raises(ConfigError, match="noun_phrase"):
        candidates(tagged, "verb")  # type: ignore[arg-type]
    drawn = wordings("a caption", ["dogs"], 2, ["a {}."], np.random.RandomState(0))
    assert drawn == ["a caption", "a dogs.", "a caption"]
    assert wordings("a caption", [], 0, ["a {}."]) == ["a caption"]

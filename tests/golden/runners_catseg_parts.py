"""The parts of CAT-Seg one by one: attention, CLIP's towers, prompts, resizing and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, Results
from runners_catseg import clip_input, config_of, resize, slides, texts, tokens
from runners_clip import configs
from torch import Tensor

from promptseg.contracts import DenseLogits
from promptseg.models.catseg import CatSegConfig, Model
from promptseg.models.catseg.attention import ClassLayer, SpatialPair, fitted, full_attention, linear_attention, shift_mask
from promptseg.models.catseg.keys import classes as class_keys
from promptseg.models.catseg.keys import clip as clip_keys
from promptseg.models.catseg.keys import spatial as spatial_keys
from promptseg.models.catseg.mapper import resize_labels
from promptseg.models.catseg.network import dense
from promptseg.models.catseg.windows import gathered, resized, scores
from promptseg.nn.attention import PreNormBlock
from promptseg.nn.conversion import from_official, load_official, shapes_of
from promptseg.nn.positions import resize_table
from promptseg.tokenizers import clip as clip_tokenizer


def swin_pair(case: Case) -> Results:
    """Spatial aggregation of x (B, C, T, H, W)."""
    args, tensors = case.args["config"], {name: torch.from_numpy(value) for name, value in case.tensors.items()}
    height, width = args["resolution"]
    net = SpatialPair(args["dim"], args["guidance_dim"], args["heads"], args["window"]).eval()
    load_official(net, {"official": spatial_keys("", "")}, case.state_dict())
    x, guidance = tensors["x"], tensors.get("guidance")
    first, second, kept = [], [], list(net.blocks)
    for index, image in enumerate(x):
        rows = image.flatten(2).permute(1, 2, 0)  # (T, H*W, C)
        looks = None if guidance is None else guidance[index].flatten(1).T
        second.append(net(rows, looks, (height, width)))
        net.blocks = torch.nn.ModuleList(kept[:1])
        first.append(net(rows, looks, (height, width)))
        net.blocks = torch.nn.ModuleList(kept)
    side, shift = fitted((height, width), args["window"], args["window"] // 2)
    assert shift == args["shift"]
    out = torch.unflatten(torch.stack(second).permute(0, 3, 1, 2), -1, (height, width))
    return {"block1": torch.cat(first), "out": out, "attn_mask": shift_mask((height, width), side, shift)}


def class_layer(case: Case) -> Results:
    """Class aggregation of x (B, C, T, H, W)."""
    args, tensors = case.args["config"], {name: torch.from_numpy(value) for name, value in case.tensors.items()}
    low, high = args["pooling"]
    assert low == high
    net = ClassLayer(args["hidden"], args["guidance_dim"], args["heads"], args["pad_len"], low, args["attention"]).eval()
    load_official(net, {"official": class_keys("", "")}, case.state_dict())
    x, guidance = tensors["x"], tensors.get("guidance")
    grid = (x.shape[-2], x.shape[-1])
    rows = [image.flatten(2).permute(1, 2, 0).clone() for image in x]
    results = [net(row, None if guidance is None else guidance[index], grid) for index, row in enumerate(rows)]
    return {"out": torch.unflatten(torch.stack(results).permute(0, 3, 1, 2), -1, grid)}


def attention_kernels(case: Case) -> Results:
    """Both formulas."""
    q, k, v = (torch.from_numpy(case.tensors[name]) for name in "qkv")
    kinds = {"linear": linear_attention, "full": full_attention}
    return {name: kinds[name](q, k, v) for name in case.args["kernels"]}


def clip_network(case: Case) -> Model:
    """A whole network of which only CLIP has the case's weights."""
    image, text = configs(case.args["config"])
    net = Model(CatSegConfig(image=image, text=text, side=image.patch * 4, taps=(0, 1))).eval()
    expected = {name: shape for name, shape in shapes_of(net).items() if name.startswith(("image.", "text.", "logit_scale"))}
    net.load_state_dict(from_official(clip_keys(""), case.state_dict(), expected), strict=False)
    return net


def clip_image(case: Case) -> Results:
    """Dense embedding with the class token first, and the ordinary pooled one."""
    net, pixels = clip_network(case), picture(case)
    x, _ = net.image.embed_patches(pixels)
    *blocks, last = (block for block in net.image.blocks if isinstance(block, PreNormBlock))
    for block in blocks:
        x = block(x)
    everything = net.image.norm_post(dense(last, x)) @ net.image.projection
    seen, _ = net.see(pixels)
    assert torch.equal(seen.flatten(2).transpose(1, 2), everything[:, 1:])
    return {"dense": everything, "pooled": net.image(pixels).embedding}


def picture(case: Case) -> Tensor:
    """The normalised image of a case."""
    image: Any = case.args["image"]
    if isinstance(image, dict):
        shape, seed = image["philox.normal"]
        image = torch.from_numpy(np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape, dtype=np.float32))
    assert isinstance(image, Tensor)
    return image


def clip_block(case: Case) -> Results:
    """One visual block in both variants, on x (L, B, D)."""
    block = clip_network(case).image.blocks[case.args["block"]]
    assert isinstance(block, PreNormBlock)
    x = torch.from_numpy(case.tensors["x"]).transpose(0, 1)
    return {"plain": block(x).transpose(0, 1), "dense": dense(block, x).transpose(0, 1)}


def position_resize(case: Case) -> Results:
    """A position table."""
    return {"resized": resize_table(torch.from_numpy(case.tensors["table"]), tuple(case.args["grid"]))}


def clip_text(case: Case) -> Results:
    """Ids to embeddings."""
    return {"embed": clip_network(case).text(torch.from_numpy(case.tensors["tokens"]))}


def prompts(case: Case) -> Results:
    """Class strings as the forward pass uses them."""
    args = case.args
    net = Model.from_official(config_of(args["config"]), case.state_dict())
    features = net.encode_prompts(texts(args["classes"], args["prompt"]))
    return {"tokens": tokens(args["classes"], args["prompt"]), "text_embeds": features.condition[:, None]}


def class_embeddings(case: Case) -> Results:
    """Every synonym in every wording, averaged over the synonyms."""
    args = case.args
    net = Model.from_official(config_of(args["config"]), case.state_dict())
    rows = []
    for template in args["templates"]:
        words = [F.normalize(net.embed_texts([template.format(word) for word in name.split(", ")]), dim=-1) for name in args["classes"]]
        rows.append(torch.stack([F.normalize(group.mean(0), dim=-1) for group in words]))
    return {"embeddings": torch.stack(rows)}


def tokenizer(case: Case) -> Results:
    """Phrases to ids and back."""
    words, phrases = clip_tokenizer(), case.args["phrases"]
    ids = words(phrases, case.args["context_length"])
    decoded = [words.decode([int(index) for index in row if int(index) not in (0, words.start, words.end)]) for row in ids]
    return {"tokens": F.pad(ids, (0, case.args["context_length"] - ids.shape[1])), "decoded": decoded}


def inputs(case: Case) -> Results:
    """What enters CLIP."""
    args = case.args
    return {"clip_input": clip_input(args["image"], args["sliding"], args["input_side"], args["size_divisibility"])}


def sliding_merge(case: Case) -> Results:
    """Windows' logits to probabilities."""
    args, logits = case.args, torch.from_numpy(case.tensors["window_logits"])
    merged = gathered([DenseLogits(one[None]) for one in logits])
    return {"sem_seg": np.stack(list(scores(merged, (args["height"], args["width"]), slides(args["sliding"]))))}


def resize_shape(case: Case) -> Results:
    """Sizes by the shortest-edge rule."""
    return {"shapes": [list(resized(tuple(size), case.args["short_edge"], case.args["max_size"])) for size in case.args["sizes"]]}


def resize_both(case: Case) -> Results:
    """The rule on pixels and labels."""
    args = case.args
    image = resize(args["image"], args["short_edge"], args["max_size"])
    label = args["label"]
    return {"image": image} | ({} if label is None else {"label": resize_labels(label.numpy(), (image.shape[0], image.shape[1]))})


RUNNERS = {
    "catseg/swin_pair": swin_pair,
    "catseg/class_layer": class_layer,
    "catseg/attention_kernels": attention_kernels,
    "catseg/clip_image": clip_image,
    "catseg/clip_block": clip_block,
    "catseg/position_resize": position_resize,
    "catseg/clip_text": clip_text,
    "catseg/prompts": prompts,
    "catseg/class_embeddings": class_embeddings,
    "catseg/tokenizer": tokenizer,
    "catseg/clip_input": inputs,
    "catseg/sliding_merge": sliding_merge,
    "catseg/resize_shape": resize_shape,
    "catseg/resize": resize_both,
}

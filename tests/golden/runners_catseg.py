"""CAT-Seg as a whole and its aggregator (kinds ``catseg/segment`` and ``catseg/aggregator``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, Results
from PIL import Image
from runners_clip import configs, recorded
from torch import Tensor, nn

from promptseg.contracts import DenseLogits
from promptseg.models.catseg import CatSegConfig, Model
from promptseg.models.catseg.aggregation import AggregationLayer, Aggregator
from promptseg.models.catseg.config import CLIP_MEAN, CLIP_STD, TEMPLATE
from promptseg.models.catseg.keys import aggregator as aggregator_keys
from promptseg.models.catseg.windows import Sliding, gathered, padded, resized, scores, shown
from promptseg.nn.conversion import load_official
from promptseg.prompts import Text
from promptseg.tokenizers import clip as clip_tokenizer


def config_of(args: Mapping[str, Any]) -> CatSegConfig:
    """The arguments of a whole model as our configuration."""
    image, text = configs(args["clip"])
    given = CatSegConfig(
        image=image,
        text=text,
        side=args["input_side"],
        taps=tuple(args["guidance_blocks"]),
        **aggregator_fields(args["aggregator"]),
    )
    assert given.tapped == (args["upsample1"]["out"], args["upsample2"]["out"])
    return given


def aggregator_fields(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the published aggregator as fields of our configuration."""
    low, high = args["pooling_size"]
    assert low == high
    return {
        "hidden": args["hidden_dim"],
        "layers": args["num_layers"],
        "heads": args["nheads"],
        "window": args["window_size"],
        "text_guidance": args["text_guidance_proj_dim"],
        "image_guidance": args["appearance_guidance_proj_dim"],
        "decoder": tuple(args["decoder_dims"]),
        "tapped": tuple(args["decoder_guidance_dims"]),
        "decoder_guidance": tuple(args["decoder_guidance_proj_dims"]),
        "attention": args["attention_type"],
        "prompts": args["prompt_channel"],
        "pad_classes": args["pad_len"],
        "pooling": low,
    }


def texts(classes: Sequence[str], prompt: str) -> list[Text]:
    """As the forward pass reads class strings: the first synonym, in the one wording."""
    return [Text(name.split(", ")[0], () if prompt == TEMPLATE else (prompt,)) for name in classes]


def tokens(classes: Sequence[str], prompt: str) -> Tensor:
    """(T, 77) as the published code stores them."""
    ids = clip_tokenizer()([prompt.format(name.split(", ")[0]) for name in classes])
    return F.pad(ids, (0, 77 - ids.shape[1]))


def normalised(photo: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (3, H, W) with CLIP's constants."""
    values = torch.from_numpy(photo.copy()).float().permute(2, 0, 1) / 255
    return (values - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def clip_input(photo: np.ndarray, sliding: Mapping[str, Any] | None, side: int, divisibility: int) -> Tensor:
    """What enters CLIP, (B, 3, side, side)."""
    pixels = normalised(photo)
    if sliding is None:
        height, width = padded((pixels.shape[1], pixels.shape[2]), divisibility)
        return shown(F.pad(pixels, (0, width - pixels.shape[2], 0, height - pixels.shape[1])), None, side)[None]
    windows = slides(sliding)
    return torch.stack([shown(pixels, part, side, windows) for part in range(len(windows.corners) + 1)])


def slides(args: Mapping[str, Any]) -> Sliding:
    return Sliding(args["kernel"], args["overlap"], tuple(args["out_res"]))


def resize(photo: np.ndarray, short_edge: int, max_size: int) -> np.ndarray:
    """uint8 (H, W, 3), by the shortest-edge rule."""
    height, width = resized((photo.shape[0], photo.shape[1]), short_edge, max_size)
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))


def segment(case: Case) -> Results:
    """From the photo to the class maps, with everything between that the case compares."""
    args = case.args
    config = config_of(args["config"])
    net = Model.from_official(config, case.state_dict())
    photo = resize(args["image"], **args["resize"]) if args["resize"] else args["image"]
    pixels = clip_input(photo, args["sliding"], config.side, args["config"]["size_divisibility"])
    prompts = net.encode_prompts(texts(args["classes"], args["prompt"]))
    blocks = {"clip_block_a": net.image.blocks[config.taps[0]], "clip_block_b": net.image.blocks[config.taps[1]]}
    with recorded({name: module for name, module in blocks.items() if name in case.wanted}) as found:
        image = net.encode_image(pixels)
    results: dict[str, Any] = {name: value.transpose(0, 1) for name, value in found.items()}
    with recorded({name: module for name, module in parts(net.aggregator).items() if name in case.wanted}) as found:
        prediction = net.decode(image, prompts, truncate=True)
    results |= arranged(found, len(pixels), config.grid)
    text = prompts.condition[:, None]
    cost = torch.stack([net.aggregator.cost(one, text) for one in image.embedding])  # (B, T, 1, h, w)
    kept = min(len(text), config.pad_classes or len(text))
    sliding = None if args["sliding"] is None else slides(args["sliding"])
    merged = prediction if sliding is None else gathered([DenseLogits(one[None]) for one in prediction.logits])
    maps = np.stack(list(scores(merged, (args["height"], args["width"]), sliding or Sliding())))
    return results | {
        "resized": photo,
        "tokens": tokens(args["classes"], args["prompt"]),
        "text_embed": prompts.condition,
        "img_feat": image.embedding,
        "res4": image.fine[0],
        "res5": image.fine[1],
        "corr": cost.flatten(0, 1),
        "logits": prediction.logits,
        "kept_classes": cost.flatten(2).amax(2).topk(kept).indices.sort().values,
        "sem_seg": maps,
        "argmax": maps.argmax(0).astype(np.int16),
    }


def parts(net: Aggregator) -> dict[str, nn.Module]:
    """The modules whose results cases compare, by the cases' names."""
    found: dict[str, nn.Module] = {"corr_embed": net.embed, "dec1": net.stages[0], "dec2": net.stages[1]}
    guides = {"guidance": net.image_guidance, "text_guidance": net.text_guidance}
    found |= {name: module for name, module in guides.items() if module is not None}
    for index, layer in enumerate(net.layers):
        assert isinstance(layer, AggregationLayer)
        found |= {name: part for name, part in ((f"swin{index}", layer.spatial), (f"class{index}", layer.classes)) if part is not None}
    return found


def arranged(found: Mapping[str, Tensor], images: int, grid: int) -> dict[str, Tensor]:
    """Results of modules, images one after another, as the published code arranges them."""
    results = {}
    for name, value in found.items():
        if name.startswith(("swin", "class")):
            value = torch.unflatten(torch.unflatten(value, 0, (images, -1)).permute(0, 3, 1, 2), -1, (grid, grid))  # (B, C, T, h, w)
        elif name == "corr_embed":
            value = torch.unflatten(value, 0, (images, -1)).transpose(1, 2)
        elif name == "guidance":
            value = value.relu()
        elif name == "text_guidance":
            value = torch.unflatten(value.relu(), 0, (images, -1))
        results[name] = value
    return results


def aggregator(case: Case) -> Results:
    """The aggregator alone; guidance 0 is what the image guidance is projected from, which in a whole model is the embedding itself."""
    args, tensors = case.args, {name: torch.from_numpy(value) for name, value in case.tensors.items()}
    fields, given = aggregator_fields(args["config"]), args["config"]
    size, embed = given["feature_resolution"][0], given["text_guidance_dim"]
    assert given["feature_resolution"] == [size, size]
    base = CatSegConfig()
    config = replace(base, image=replace(base.image, embed=embed, patch=1), text=replace(base.text, embed=embed), side=size, **fields)
    net = Aggregator(config).eval()
    load_official(net, {"official": aggregator_keys("", "")}, case.state_dict())
    images, text = tensors["img_feats"].requires_grad_(), tensors["text_feats"].requires_grad_()
    guides = [tensors[f"guidance{index}"] for index in range(3)]

    def run() -> Tensor:
        most = config.pad_classes or None
        rows = zip(images, *guides, text, strict=True)
        return torch.stack([net.one(image, (looks, early, late), words, most) for image, looks, early, late, words in rows])

    with recorded(parts(net)) as found:
        out = run()
    results: dict[str, Any] = {**arranged(found, len(text), size), "out": out}
    results["corr"] = torch.cat([net.cost(one, words) for one, words in zip(images, text, strict=True)])
    if "corr_embed" in results:
        results["corr_embed"] = results["corr_embed"].transpose(1, 2).flatten(0, 1)
    if args["objective"] is not None:
        with torch.enable_grad():
            gradients = torch.autograd.grad((run() * args["objective"]).sum(), (images, text))
        results |= {"grad/img_feats": gradients[0], "grad/text_feats": gradients[1]}
    return results


RUNNERS = {"catseg/segment": segment, "catseg/aggregator": aggregator}

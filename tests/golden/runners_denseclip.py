"""DenseCLIP's segmentation networks (kinds of ``denseclip/``): forward, test pipeline, head, resizing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, Results
from runners_clip import with_counters
from runners_denseclip_parts import config_of, padded
from torch import Tensor

from promptseg.contracts import DenseLogits, Preprocess, PromptFeatures, View
from promptseg.images import resized_8bit, to_pixels
from promptseg.models.denseclip.config import SemanticHead
from promptseg.models.denseclip.head import FpnHead
from promptseg.models.denseclip.keys import pyramid, semantic_head
from promptseg.models.denseclip.network import Model
from promptseg.models.denseclip.photos import nearest
from promptseg.models.denseclip.text import class_tokens
from promptseg.models.denseclip.windows import averaged, probabilities
from promptseg.nn.conversion import load_official
from promptseg.nn.fpn import FeaturePyramid
from promptseg.nn.slides import over, resized
from promptseg.prompts import Text


def network(case: Case) -> Model:
    """The case's network with its weights."""
    return Model.from_official(config_of(case.args["config"], case.args["class_names"]), with_counters(case.state_dict()))


def model_input(given: Any, config: Mapping[str, Any]) -> Tensor:
    """``args.input`` as normalised pixels (B, 3, H, W)."""
    if isinstance(given, Tensor):
        return given
    if isinstance(given, Mapping) and "images" in given:
        return torch.cat([normalised(image, config, given["gain"]) for image in given["images"]])
    raise ValueError(f"no input: {given!r}")


def normalised(image: np.ndarray, config: Mapping[str, Any], gain: float) -> Tensor:
    """uint8 (H, W, 3) -> (1, 3, H, W), ``gain`` times the normalised values."""
    mean, std = np.asarray(config["image_mean"]), np.asarray(config["image_std"])
    values = gain * ((image.astype(np.float64) - 255 * mean) / (255 * std))
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def asked(net: Model) -> PromptFeatures:
    """The trained classes."""
    return net.encode_prompts([Text(name) for name in net.classes])


def forward(case: Case) -> Results:
    """One image through a segmentation network, with all between that the case compares."""
    args = case.args
    net, pixels = network(case), model_input(args["input"], args["config"])
    prompts = asked(net)
    image = net.encode_image(pixels)
    results: dict[str, Any] = {"input": pixels} | {f"c{index}": level for index, level in enumerate(image.maps, 2)}
    scores = None
    if net.config.language is not None:
        found = net.guide(image, prompts.condition)
        scores = found.scores
        results |= {
            "tokens": padded(class_tokens(net.classes, net.config.language.tokens), net.config.language.tokens),
            "global": image.embedding, "local": image.local, "text_base": found.base, "text_diff": found.difference,
            "text_final": found.texts, "score_map": scores,
        }  # fmt: skip
    results |= {f"p{index}": level for index, level in enumerate(net.pyramid(image, scores), 2)}
    head = net.decode(image, prompts).logits
    logits = F.interpolate(head, pixels.shape[-2:], mode="bilinear", align_corners=False)
    results |= {"head_logits": head, "logits": logits, "argmax": logits.argmax(1)}
    if args["original_size"] is not None:
        size = (args["original_size"][0], args["original_size"][1])
        slide = probability(net, pixels, size, net.looks.crop, net.looks.stride)
        results |= {"slide_prob": slide, "slide_prob_flipped": slide.flip(-1), "whole_prob": probability(net, pixels, size)}
    return results


def probability(net: Model, pixels: Tensor, size: tuple[int, int], crop: int | None = None, stride: int = 1) -> Tensor:
    """Softmax maps (1, K, H, W) of one input, seen whole or in windows."""
    views = over(size, (pixels.shape[-2], pixels.shape[-1]), crop, stride)
    merged = averaged([window(net, pixels, view) for view in views], views)
    return torch.from_numpy(np.stack(list(probabilities(merged, size))))[None]


def window(net: Model, pixels: Tensor, view: View) -> DenseLogits:
    """The answer to one window of the input."""
    x0, y0, x1, y1 = view.window or (0, 0, pixels.shape[-1], pixels.shape[-2])
    return net.decode(net.encode_image(pixels[..., y0:y1, x0:x1]), asked(net))


def pipeline(case: Case) -> Results:
    """From the photo to the map."""
    args = case.args
    net, photo = network(case), args["image"]
    assert args["crop"][0] == args["crop"][1]
    assert args["stride"][0] == args["stride"][1]
    size = (photo.shape[0], photo.shape[1])
    content = resized(size, args["scale"][1], args["scale"][0])
    views = over(size, content, args["crop"][0], args["stride"][0])
    preprocess = net.config.preprocess
    found = []
    for view in views:
        found.append(net.decode(net.encode_image(args["gain"] * to_pixels(photo, view, preprocess)[None]), asked(net)))
    whole = args["gain"] * to_pixels(photo, View(views[0].box, content, content), preprocess)[None]
    shares = np.stack(list(net.to_scores(net.merge(found, views, size), size)))
    enlarged = [F.interpolate(one.logits, view.shape, mode="bilinear", align_corners=False) for one, view in zip(found, views, strict=True)]
    return {
        "input": whole, "prob": shares[None], "pred": shares.argmax(0), "image_size": list(content), "windows": len(views),
    } | {f"window{index}": logits for index, logits in enumerate(enlarged)}  # fmt: skip


def fpn_head(case: Case) -> Results:
    """The pyramid, then the head."""
    args = case.args
    neck, head = args["neck"], args["head"]
    assert head["strides"] == [4, 8, 16, 32]
    levels = FeaturePyramid(neck["in_channels"], neck["out_channels"], outputs=neck["num_outs"])
    net = FpnHead(neck["out_channels"], head["num_classes"], SemanticHead(channels=head["channels"]))
    both = torch.nn.ModuleDict({"neck": levels, "head": net}).eval()
    load_official(both, {"official": (*pyramid(""), *semantic_head(""))}, with_counters(case.state_dict()))
    found = levels(args["inputs"])
    return {f"fpn{index}": level for index, level in enumerate(found)} | {"logits": net(found)}


def rescale_size(case: Case) -> Results:
    """New sizes between two limits."""
    args = case.args
    return {"sizes": [[list(resized(tuple(size), short, long)) for long, short in args["limits"]] for size in args["sizes"]]}


def preprocess(case: Case) -> Results:
    """Resizing of photos and labels, and normalisation."""
    args = case.args
    image, (h, w) = args["image"], args["image"].shape[:2]
    look = Preprocess(size=h, rounded=True, mean=tuple(args["mean"]), std=tuple(args["std"]))
    return {
        "up": resized_8bit(image, tuple(args["up"])),
        "down": resized_8bit(image, tuple(args["down"])),
        "label_down": nearest(args["label"].numpy(), tuple(args["down"])),
        "normalized": to_pixels(image, View((0, 0, w, h), (h, w), (h, w)), look).permute(1, 2, 0),
    }


RUNNERS = {
    "denseclip/seg_forward": forward,
    "denseclip/seg_pipeline": pipeline,
    "denseclip/fpn_head": fpn_head,
    "denseclip/rescale_size": rescale_size,
    "denseclip/preprocess": preprocess,
}

"""GroupViT (kinds of ``groupvit/``): encoders, segments, zero-shot label maps, and the parts of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, Results
from runners_clip import recorded
from torch import Tensor

from promptseg.contracts import GroupLogits, Preprocess, View
from promptseg.images import to_pixels
from promptseg.models.groupvit import GroupVitConfig, GroupVitImageConfig, Model, naming, windows
from promptseg.models.groupvit.grouping import Assign, GroupingBlock, gumbel_softmax, straight_through
from promptseg.models.groupvit.keys import GROUPING_BLOCK
from promptseg.models.groupvit.photos import MEAN, STD, centre, largest
from promptseg.nn.clip_config import ClipTextConfig
from promptseg.nn.conversion import load_official, to_official
from promptseg.nn.positions import fourier_table, resize_grid
from promptseg.prompts import Text
from promptseg.tokenizers import clip as clip_tokenizer

OURS = {  # their option -> our field
    "img_size": "size",
    "patch_size": "patch",
    "embed_dim": "width",
    "embed_factors": "factors",
    "depths": "depths",
    "num_heads": "heads",
    "num_group_tokens": "group_tokens",
    "num_output_groups": "output_groups",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "patch_norm": "patch_norm",
    "hard_assignment": "hard",
    "pos_embed_type": "positions",
    "drop_path_rate": "drop_path",
}


def image_config(config: Mapping[str, Any]) -> GroupVitImageConfig:
    """Options of the published image encoder as ours; those without effect on its output must have their published values."""
    unused: dict[str, Any] = {"in_chans": 3, "qk_scale": None, "drop_rate": 0.0, "attn_drop_rate": 0.0, "num_classes": 0}
    unused |= {"use_checkpoint": False, "freeze_patch_embed": False, "type": "GroupViT"}
    given = {name: value for name, value in config.items() if name not in unused}
    values: dict[str, Any] = {OURS[name]: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    assert all(config.get(name, value) == value for name, value in unused.items())
    return GroupVitImageConfig(**values)


def config_of(config: Mapping[str, Any]) -> GroupVitConfig:
    """The published options as our configuration."""
    text = config["text_encoder"]
    width = text["width"]
    return GroupVitConfig(
        image=image_config(config["img_encoder"]),
        text=ClipTextConfig(
            width=width, layers=text["layers"], heads=max(1, width // 64), embed=width, context=text["context_length"],
            vocabulary=text["vocab_size"],
        ),
        embed=config["output_dim"], projector_layers=config["proj_num_layers"], multi_label=config["multi_label"],
        share_temperature=config["share_temperature"],
    )  # fmt: skip


def network(case: Case) -> Model:
    """The case's network with its weights."""
    return Model.from_official(config_of(case.args["config"]), case.state_dict())


def normalised(photo: Any, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(1, 3, H, W) at the photo's own size."""
    values = (torch.from_numpy(photo.astype(np.float32)) - torch.tensor(mean)) / torch.tensor(std)
    return values.permute(2, 0, 1)[None].contiguous()


# --- networks -----------------------------------------------------------------------------------------------------------------------------


def forward(case: Case) -> Results:
    """Both encoders, with everything in between."""
    args = case.args
    net = network(case)
    return {**_image(net, args), **_texts(net, args), **_similar(net, args), **_counts(net)}


def _image(net: Model, args: Mapping[str, Any]) -> dict[str, Any]:
    if args["image"] is None:
        return {}
    pixels = normalised(args["image"], args["mean"], args["std"])
    stages: Any = net.image.stages
    parts: dict[str, torch.nn.Module] = {"patch_embed": net.image.patch_norm}
    for i, stage in enumerate(stages):
        parts |= {f"l{i}b{j}": block for j, block in enumerate(stage.blocks)}
        if stage.group_projector is not None:
            parts[f"l{i}_group_projector"] = stage.group_projector
        if stage.grouping is not None:
            grouping = stage.grouping
            parts |= {f"g{i}_mlp_inter": grouping.mlp_tokens, f"g{i}_projected": grouping.norm_post_tokens, f"g{i}_query": grouping.pre}
    tuples: dict[str, Tensor] = {}
    handles = []
    for i, stage in enumerate(stages):
        for name, part in ((f"g{i}_assign", getattr(stage.grouping, "assign", None)), (f"g{i}_out", stage.grouping)):
            if part is not None:
                handles.append(part.register_forward_hook(lambda _, taken, given, name=name: tuples.update({name: given[0]})))
    with recorded(parts) as seen:
        found = net.image(pixels)
    for handle in handles:
        handle.remove()
    results: dict[str, Any] = {**seen, **tuples, "pixel_values": pixels}
    results |= {
        name: value + seen[name.replace("assign", "query")] for name, value in tuples.items() if name.endswith("assign")
    }  # as stored
    for i, assigned in enumerate(found.assigned):
        results |= {
            f"assign{i}_soft": assigned.soft,
            f"assign{i}_hard": assigned.used,
            f"assign{i}_hard_index": assigned.used[:, 0].argmax(1),
        }
    feature = found.tokens.mean(1)
    return results | {
        "image_feature": feature,
        "segment_tokens": found.tokens,
        "image_x": net.image_projector(feature),
        "image_feat": net.image_projector(found.tokens),
    }


def _texts(net: Model, args: Mapping[str, Any]) -> dict[str, Any]:
    if args["texts"] is None:
        return {}
    ids = clip_tokenizer()(args["texts"], net.config.text.context)
    feature = net.text(ids)
    text_x = net.text_projector(feature)
    per_class = args["templates_per_class"] or 1
    results = {
        "token_ids": F.pad(ids, (0, net.config.text.context - ids.shape[1])),
        "text_feature": feature,
        "text_x": text_x,
        "class_embedding": F.normalize(text_x.view(-1, per_class, text_x.shape[-1]).mean(1), dim=-1),
    }
    if args["text_rows"]:
        rows = text_x.view(args["text_rows"], -1, text_x.shape[-1])
        results |= {"row_text_x": rows[:, 0], "row_multi_label_x": rows[:, 1:]}
    return results


def _similar(net: Model, args: Mapping[str, Any]) -> dict[str, Any]:
    if args["image"] is None or args["texts"] is None:
        return {}
    image = net.encode_image(normalised(args["image"], args["mean"], args["std"]))
    per_class = args["templates_per_class"] or 1
    texts = net.embed_texts(args["texts"]).view(-1, per_class, image.whole.shape[-1]).mean(1)
    return {"zero_shot_logits": image.whole @ F.normalize(texts, dim=-1).T}


def _counts(net: Model) -> dict[str, int]:
    return {
        "parameters": sum(part.numel() for part in net.parameters()),
        "image_encoder_parameters": sum(part.numel() for part in net.image.parameters()),
    }


# --- label maps ---------------------------------------------------------------------------------------------------------------------------


def segment(case: Case) -> Results:
    """From the uint8 photo to the label map, whole or in sliding windows.

    In float64: a patch goes to one segment alone, whose score it decides, and where two segments are equally near (to one patch of the
    COCO case they are, by 1e-5) float32 leaves the choice to the processor's rounding. The encoders' cases are in float32.
    """
    args, net = case.args, network(case).double()
    photo, test = args["image"], args["test_cfg"]
    size = (photo.shape[0], photo.shape[1])
    content = windows.resized(size, args["resize"]["short"], args["resize"]["long"]) if args["resize"] else size
    slides = test["mode"] == "slide"
    views = windows.over(size, content, test["crop_size"][0], test["stride"][0]) if slides else windows.over(size, content)
    preprocess = replace(net.config.preprocess, mean=tuple(v / 255 for v in args["mean"]), std=tuple(v / 255 for v in args["std"]))
    names = args["class_names"][1:] if args["with_background"] else args["class_names"]
    given = args["text_embedding"]
    prompts = net.encode_prompts([Text(name, tuple(args["templates"])) for name in names])
    if given is not None:
        prompts = replace(prompts, condition=given)

    def look(view: View) -> GroupLogits:
        return net.decode(net.encode_image(to_pixels(photo, view, preprocess)[None].double()), prompts)

    seen = net.merge([look(view) for view in views], views, tuple(args["original_size"]))
    threshold = test["bg_thresh"] if args["with_background"] else None
    first = 1 if args["with_background"] else 0
    scores = torch.zeros(1, len(names) + first, *content)
    for index, one in naming.score_maps(seen, [1] * len(names), threshold, args["top_k"]):
        scores[0, index + first] = one
    whole = windows.over(size, content)[0]
    maps = look(whole).maps
    shown_maps = [F.interpolate(one, content, mode="bilinear", align_corners=False).permute(0, 2, 3, 1) for one in (maps[0], maps[-1])]
    group_index = shown_maps[1].argmax(-1)
    labels, _ = naming.semantic(seen, [1] * len(names), threshold, args["top_k"])
    owned = [(group_index[0] == g).nonzero()[:1] for g in range(maps[-1].shape[1])]
    columns = [scores[0, :, one[0, 0], one[0, 1]] if len(one) else torch.zeros(scores.shape[1]) for one in owned]
    return {
        "pixel_values": to_pixels(photo, whole, preprocess)[None],
        "text_embedding": F.normalize(prompts.condition, dim=-1),
        "scores": scores,
        "prediction": labels + first,
        "map_first": shown_maps[0],
        "map_last": shown_maps[1],
        "group_index": group_index,
        "onehot_last": F.one_hot(group_index, maps[-1].shape[1]),
        "group_scores": torch.stack(columns),
    }


# --- parts --------------------------------------------------------------------------------------------------------------------------------


def grouping_block(case: Case) -> Results:
    """One block in every mode, with gradients in training."""
    args, results = case.args, dict[str, Any]()
    sizes = args["config"]
    published = case.state_dict()
    for name, run in args["runs"].items():
        assign = Assign(
            sizes["dim"], hard=run["hard"], gumbel=run["gumbel"], tau=run["gumbel_tau"], sum_assign=run["sum_assign"], eps=run["assign_eps"]
        )
        tokens, groups = sizes["num_group_token"], sizes["num_output_group"]
        block = GroupingBlock(sizes["dim"], sizes["out_dim"], sizes["num_heads"], tokens, groups, assign)
        load_official(block, {"block": GROUPING_BLOCK}, published)
        block.train(run["train"])
        x, g = (args[key].clone().requires_grad_(run["train"]) for key in ("x", "group_tokens"))
        with torch.set_grad_enabled(run["train"]):
            out, assigned = block(x, g, args["gumbel_noise"])
            if run["train"]:
                torch.autograd.backward((out * args["w"]).sum())
        results |= {f"{name}.out": out, f"{name}.soft_assign": assigned.soft, f"{name}.assign_index": assigned.used[:, 0].argmax(1)}
        if run["train"]:
            results |= {f"grad/{name}.x": x.grad, f"grad/{name}.group_tokens": g.grad}
            gradients = to_official(GROUPING_BLOCK, {key: part.grad for key, part in block.named_parameters() if part.grad is not None})
            results |= {f"{name}.grad_norm.{key}": float(value.norm()) for key, value in gradients.items()}
    return results


def straight_through_case(case: Case) -> Results:
    """Hard and soft softmax, with and without noise, and the gradients of a weighted sum."""
    args, results = case.args, dict[str, Any]()
    noise, tau, dim = args["gumbel_noise"], args["gumbel_tau"], args["dim"]
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "hard_softmax": lambda logits: straight_through(logits.softmax(dim), dim),
        "gumbel_hard": lambda logits: gumbel_softmax(logits, noise, tau, hard=True, dim=dim),
        "gumbel_soft": lambda logits: gumbel_softmax(logits, noise, tau, hard=False, dim=dim),
    }
    for name, way in ways.items():
        logits = args["logits"].clone().requires_grad_()
        with torch.enable_grad():
            y = way(logits)
            torch.autograd.backward((y * args["w"]).sum())
        results |= {name: y, f"grad/{name}.logits": logits.grad}
    return results


def position_table(case: Case) -> Results:
    """Position tables at other grids, and the fixed one."""
    args = case.args
    load, fourier = args["load_resize"], args["fourier"]
    return {
        **{f"grid{h}x{w}": resize_grid(args["table"], (h, w)) for h, w in args["grids"]},
        "fourier": fourier_table(tuple(fourier["grid"]), fourier["dim"]),
        "load_resize": resize_grid(load["table"], tuple(load["grid"])),
    }


def map_upsampling(case: Case) -> Results:
    """Maps enlarged with the grid that the published code guesses; ours knows the grid, so the guess is only here."""
    results: dict[str, Any] = {"grids": []}
    for index, one in enumerate(case.args["maps"]):
        maps, height, width = one["map"], one["height"], one["width"]
        grid = _guessed(maps.shape[2], height, width)
        results["grids"].append(None if grid is None else list(grid))
        if grid is not None:
            shares = maps[:, 0].transpose(1, 2)
            enlarged = F.interpolate(shares.view(*shares.shape[:2], *grid), (height, width), mode="bilinear", align_corners=False)
            results[f"out{index}"] = enlarged.permute(0, 2, 3, 1)[:, None]
    return results


def _guessed(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    scale = round(math.sqrt((height * width) // tokens))
    if height > width:
        across = width // scale
        down = tokens // across
    else:
        down = height // scale
        across = tokens // down
    return (down, across) if down * across == tokens else None


def top_groups(case: Case) -> Results:
    """The largest groups take over the pixels of the others."""
    return {"filled": largest(case.args["map"], case.args["k"])}


def preprocess(case: Case) -> Results:
    """Photos as segmentation and as classification sees them."""
    args, results = case.args, dict[str, Any]()
    look = Preprocess(size=args["segmentation"]["short"], rounded=True, mean=MEAN, std=STD)
    for index, photo in enumerate(args["segmentation"]["images"]):
        size = windows.resized((photo.shape[0], photo.shape[1]), args["segmentation"]["short"], args["segmentation"]["long"])
        results[f"seg{index}"] = to_pixels(photo, windows.over((photo.shape[0], photo.shape[1]), size)[0], look)[None]
        results[f"seg{index}.size"] = list(size)
    sides = args["classification"]
    for index, photo in enumerate(sides["images"]):
        results[f"cls{index}"] = centre(photo, sides["resize"], sides["crop"])
    return results


RUNNERS = {
    "groupvit/forward": forward,
    "groupvit/segment": segment,
    "groupvit/grouping_block": grouping_block,
    "groupvit/straight_through": straight_through_case,
    "groupvit/position_table": position_table,
    "groupvit/map_upsampling": map_upsampling,
    "groupvit/top_groups": top_groups,
    "groupvit/preprocess": preprocess,
}

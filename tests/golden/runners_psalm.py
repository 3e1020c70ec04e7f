"""Runners of PSALM's cases: its parts one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fill
import numpy as np
import torch
from cases import Case, Results
from torch import Tensor, nn

from promptseg.contracts import Rule
from promptseg.models.psalm import keys
from promptseg.models.psalm.config import PREPROCESS, LanguageConfig, MaskConfig, PsalmConfig, SwinConfig
from promptseg.models.psalm.pixel_decoder import DeformableAttention, PixelDecoder, Scales, sample, sine_positions
from promptseg.models.psalm.predictor import Conditions, Predictor
from promptseg.models.psalm.projector import Projector
from promptseg.models.psalm.swin import Swin
from promptseg.nn.conversion import built, to_official


def filled(case: Case, prefix: str = "") -> dict[str, Tensor]:
    """The weights whose names start with ``prefix``, with their whole names: the others of a full-size model are never made."""
    inventory = json.loads(case._find(case.data["weights"]["fill"]).read_text(encoding="utf-8"))
    named = [(entry["name"], tuple(entry["shape"])) for entry in inventory["entries"] if "float" in entry["dtype"]]
    return {name: torch.from_numpy(fill.weight(name, shape)) for name, shape in named if name.startswith(prefix)}


def normal(node: Any) -> Any:
    """Arguments with ``{"normal": [name, shape]}`` carried out."""
    if isinstance(node, list):
        return [normal(item) for item in node]
    if isinstance(node, Mapping) and node.keys() == {"normal"}:
        name, shape = node["normal"]
        rng = np.random.Generator(np.random.Philox(key=fill.zlib.crc32(name.encode())))
        return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
    return node


def part(case: Case, module: Any, rules: Sequence[Rule]) -> Any:
    """A part with the case's weights; ``module`` makes it."""
    found: nn.Module = built(module, {"official": rules}, filled(case, case.args["prefix"]))
    return found


def config_of(args: Mapping[str, Any], side: int = 1024) -> PsalmConfig:
    """The published names of a configuration's fields -> ours."""
    phi, swin, mask = args["phi"], args["swin"], args["mask"]
    return PsalmConfig(
        vision=SwinConfig(
            width=swin["embed_dim"], depths=swin["depths"], heads=swin["num_heads"], window=swin["window_size"],
            mlp_ratio=swin["mlp_ratio"], drop_path=swin["drop_path_rate"],
        ),
        language=language_of(phi),
        masks=MaskConfig(
            width=mask["HIDDEN_DIM"], queries=mask["NUM_OBJECT_QUERIES"], encoder_layers=mask["TRANSFORMER_ENC_LAYERS"],
            layers=mask["DEC_LAYERS"] - 1, heads=mask["NHEADS"], hidden=mask["DIM_FEEDFORWARD"],
        ),
        projector=args["projector"]["width"],
        preprocess=replace(PREPROCESS, size=side),
    )  # fmt: skip


def language_of(phi: Mapping[str, Any]) -> LanguageConfig:
    """The language model alone."""
    return LanguageConfig(
        vocabulary=phi["vocab_size"], width=phi["hidden_size"], hidden=phi["intermediate_size"], layers=phi["num_hidden_layers"],
        heads=phi["num_attention_heads"], context=phi["max_position_embeddings"],
    )  # fmt: skip


def posenc(case: Case) -> Results:
    """Sine positions."""
    sizes = case.args["sizes"]
    return {f"pe_{i}": sine_positions((h, w), case.args["channels"], torch.zeros(1)) for i, (h, w) in enumerate(sizes)}


def msdeform(case: Case) -> Results:
    """The sampling core, and the module at the centres of all cells."""
    args = case.args
    shapes = [(height, width) for height, width in args["spatial_shapes"]]
    core = sample(normal(args["core_value"]), shapes, args["core_locations"], args["core_weights"])
    net = part(case, lambda: DeformableAttention(MaskConfig()), keys.deformable(args["prefix"], ""))
    places = torch.cat([_centres(shape) for shape in shapes])
    return {"core_out": core, "module_out": net(normal(args["module_query"]), places, normal(args["module_memory"]), shapes)}


def _centres(shape: tuple[int, int]) -> Tensor:
    y, x = np.meshgrid(*((np.arange(length) + 0.5) / length for length in shape), indexing="ij")
    return torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2).astype(np.float32))


def pixel_decoder(case: Case) -> Results:
    """Three scales and mask features."""
    args = case.args
    net = part(case, lambda: PixelDecoder(SwinConfig().widths, MaskConfig()), keys.pixel_decoder(args["prefix"], ""))
    seen = net(tuple(normal(args[f"res{i}"]) for i in range(2, 6)))
    return {"mask_features": seen.features} | {f"multi_scale_{i}": scale for i, scale in enumerate(seen.scales)}


def predictor(case: Case) -> Results:
    """All three conditions at once."""
    args = {name: normal(value) for name, value in case.args.items()}
    net = part(case, lambda: Predictor(MaskConfig()), keys.predictor(args["prefix"], ""))
    asked = Conditions(args["classes"], args["sentence"], tuple(args["regions"]))
    heads = net(Scales(tuple(args["multi_scale"]), args["mask_features"]), args["query"], asked)
    return {
        "mask_logits": torch.stack([head.masks[0] for head in heads]),
        "class_logits": torch.stack([head.classes[0] for head in heads]),
        "sentence_logits": torch.stack([head.sentence[0] for head in heads]),
        "region_logits": torch.stack([head.regions[0] for head in heads]),
    }


def swin(case: Case) -> Results:
    """The image encoder on normalised pixels."""
    args = case.args
    net = part(case, lambda: Swin(SwinConfig()), keys.swin(args["prefix"], ""))
    pixels = (torch.from_numpy(args["image"]).float() - torch.tensor(args["mean"])) / torch.tensor(args["std"])
    return {f"res{i}": one for i, one in enumerate(net(pixels.permute(2, 0, 1)[None]), 2)}


def projector(case: Case) -> Results:
    """In evaluation mode, then once in training mode, which moves the running statistics."""
    args = case.args
    rules = keys.projector(args["prefix"], "")
    net, x = part(case, lambda: Projector(1024, 2048, 2048), rules), normal(args["input"])
    out = net(x)
    trained = net.train()(x)
    after = {f"after/{name}": tensor for name, tensor in to_official(rules, net.state_dict()).items()}
    return {"out": out, "out_train": trained} | after


RUNNERS = {
    "psalm/posenc": posenc,
    "psalm/msdeform": msdeform,
    "psalm/pixel_decoder": pixel_decoder,
    "psalm/predictor": predictor,
    "psalm/swin": swin,
    "psalm/projector": projector,
}

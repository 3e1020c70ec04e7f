"""The parts of DenseCLIP that segmentation and detection share: encoders, class names, context decoder; and configurations of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fill
import torch
import torch.nn.functional as F
from cases import Case, Results
from runners_clip import with_counters
from torch import Tensor, nn

from promptseg.errors import PromptError
from promptseg.models.denseclip.config import (
    DecoderConfig,
    DenseClipConfig,
    LanguageConfig,
    MaskHead,
    PyramidConfig,
    ResNetBackbone,
    RetinaHead,
    SemanticHead,
    VitBackbone,
)
from promptseg.models.denseclip.context import ContextDecoder, DecoderLayer
from promptseg.models.denseclip.core import DenseClip
from promptseg.models.denseclip.keys import SHARED
from promptseg.models.denseclip.keys import backbone as backbone_keys
from promptseg.models.denseclip.start import start_from_clip
from promptseg.models.denseclip.text import ContextTextTower, class_tokens
from promptseg.models.denseclip.vit import DenseVit
from promptseg.nn.clip_config import AttentionPoolConfig, ClipTextConfig
from promptseg.nn.clip_keys import openai_text
from promptseg.nn.clip_resnet import AttentionPool, Bottleneck
from promptseg.nn.conversion import load, load_official, to_official
from promptseg.tokenizers import clip as clip_tokenizer

# --- configurations ---------------------------------------------------------------------------------------------------------------------


def config_of(config: Mapping[str, Any], class_names: Sequence[str] | None) -> DenseClipConfig:
    """A case's ``config`` as ours; classes without names are numbered."""
    names = class_names or [f"class {index}" for index in range(config["num_classes"])]
    assert len(names) == config["num_classes"]
    neck = config["neck"]
    pyramid = PyramidConfig(
        channels=neck["out_channels"], start=neck.get("start_level", 0), outputs=neck["num_outs"], extra=neck.get("extra_levels")
    )
    result = DenseClipConfig(
        classes=tuple(names), backbone=backbone(config["backbone"]), language=language(config) if config["language"] else None,
        neck=pyramid, head=head(config),
    )  # fmt: skip
    assert list(result.neck_inputs) == neck["in_channels"]
    assert (result.preprocess.mean, result.preprocess.std) == (tuple(config["image_mean"]), tuple(config["image_std"]))
    return result


def backbone(config: Mapping[str, Any]) -> ResNetBackbone | VitBackbone:
    """Either image encoder."""
    if config["type"] == "resnet":
        pool = config.get("attention_pool")
        return ResNetBackbone(layers=tuple(config["layers"]), width=config["width"], pool=None if pool is None else attention_pool(pool))
    assert config["type"] == "vit"
    return VitBackbone(
        width=config["width"], layers=config["layers"], heads=config["heads"], patch=config["patch"], grid=config["grid"],
        taps=tuple(config["out_indices"]), embed=config.get("embed_dim"),
    )  # fmt: skip


def attention_pool(config: Mapping[str, Any]) -> AttentionPoolConfig:
    """The pool on top of the residual network."""
    return AttentionPoolConfig(embed=config["embed_dim"], grid=config["grid"], heads=config["heads"], resize=config["resize_positions"])


def text(config: Mapping[str, Any]) -> ClipTextConfig:
    """The text tower."""
    return ClipTextConfig(
        width=config["width"], layers=config["layers"], heads=config["heads"], embed=config["embed_dim"],
        context=config["class_tokens"] + config["contexts"],
    )  # fmt: skip


def language(config: Mapping[str, Any]) -> LanguageConfig:
    """Text tower, context decoder and score map."""
    decoder, words = config["context_decoder"], config["text_encoder"]
    assert decoder["visual_dim"] == words["embed_dim"]
    return LanguageConfig(
        text=text(words), tokens=words["class_tokens"], contexts=words["contexts"],
        decoder=DecoderConfig(width=decoder["width"], layers=decoder["layers"], heads=decoder["heads"]),
        tau=config["tau"], level=config["score_level"], divided=config["score_level_divided_by_tau"],
    )  # fmt: skip


def head(config: Mapping[str, Any]) -> SemanticHead | RetinaHead | MaskHead:
    """What stands on the pyramid."""
    given = {name: value for name, value in config["head"].items() if name != "type"}
    if config["head"]["type"] == "retinanet":
        return RetinaHead(channels=given["feat_channels"], convs=given["stacked_convs"])
    if config["head"]["type"] == "mask_rcnn":
        return MaskHead(**given)
    assert given["strides"] == [4, 8, 16, 32]
    test = config["test"]
    assert test["crop"][0] == test["crop"][1]
    assert test["stride"][0] == test["stride"][1]
    crop = test["crop"][0]
    limits = tuple(test.get("scale", (2048, crop)))
    return SemanticHead(channels=given["channels"], crop=crop, stride=test["stride"][0], limits=(limits[0], limits[1]))


# --- parts ------------------------------------------------------------------------------------------------------------------------------


def filled(net: nn.Module, case: Case) -> None:
    """Load the weights of a module whose names are the published ones."""
    load(net.eval(), with_counters(case.state_dict()))


def pool(case: Case) -> Results:
    """The attention pool, dense."""
    args, state = case.args, case.state_dict()
    embed = len(state["c_proj.weight"])
    config = AttentionPoolConfig(embed=embed, grid=args["grid"], heads=args["heads"], resize=args["resize_positions"])
    net = AttentionPool(args["x"].shape[1], config)
    filled(net, case)
    embedding, local = net(args["x"])
    return {"global": embedding, "local": local}


def bottleneck(case: Case) -> Results:
    """One block of the residual network."""
    args = case.args
    net = Bottleneck(args["in_channels"], args["planes"], args["stride"])
    filled(net, case)
    return {"out": net(args["x"])}


def decoder(case: Case) -> Results:
    """The context decoder before gamma."""
    args, config = case.args, case.args["config"]
    net = ContextDecoder(config["visual_dim"], DecoderConfig(width=config["width"], layers=config["layers"], heads=config["heads"]))
    filled(net, case)
    return {"out": net(args["text"], args["visual"])}


def decoder_layer(case: Case) -> Results:
    """One of its layers."""
    args = case.args
    net = DecoderLayer(args["width"], args["heads"])
    filled(net, case)
    return {"out": net(args["x"], args["mem"])}


def text_encoder(case: Case) -> Results:
    """Class names after given contexts."""
    args = case.args
    net = ContextTextTower(text(args["config"])).eval()
    load_official(net, {"official": openai_text("", "")}, case.state_dict())
    return {"out": net.embed(args["tokens"].long(), args["contexts"])}


def vit(case: Case) -> Results:
    """The vision transformer's levels and embeddings."""
    config = backbone(case.args["config"])
    assert isinstance(config, VitBackbone)
    net = DenseVit(config).eval()
    load_official(net, {"official": backbone_keys("", "")}, with_counters(case.state_dict()))
    seen = net(case.args["x"])
    return {"global": seen.embedding, "local": seen.local} | {f"f{index}": level for index, level in enumerate(seen.maps)}


def padded(ids: Tensor, length: int) -> Tensor:
    """Ids with the zeros that we leave out."""
    return F.pad(ids, (0, length - ids.shape[1]))


def tokenize(case: Case) -> Results:
    """Names to ids."""
    args = case.args
    length = args["context_length"]
    try:
        ids = clip_tokenizer()(args["texts"], length) if args["truncate"] else class_tokens(args["texts"], length)
    except PromptError:
        return {"raises": True}
    return {"ids": padded(ids, length), "end": ids.argmax(-1), "raises": False}


def init_from_clip(case: Case) -> Results:
    """Both towers from CLIP's file."""
    args = case.args
    entries = [entry for entry in args["clip_entries"] if "float" in entry["dtype"]]
    clip = {entry["name"]: torch.from_numpy(fill.weight(entry["name"], entry["shape"])) for entry in entries}
    net = DenseClip(config_of(args["config"], None))
    found = start_from_clip(net, clip, partial=True)
    results: dict[str, Any] = dict(to_official(SHARED, net.state_dict(), partial=True))
    for prefix, image in (("backbone.", True), ("text_encoder.", False)):
        missing, unexpected = (
            [name.removeprefix("visual.") for name in names if name.startswith("visual.") == image]
            for names in (found.missing, found.unexpected)
        )
        results |= {f"{prefix}missing_count": len(missing), f"{prefix}missing_first_12": missing[:12], f"{prefix}unexpected": unexpected}
    return results


RUNNERS = {
    "denseclip/init_from_clip": init_from_clip,
    "denseclip/attention_pool": pool,
    "denseclip/bottleneck": bottleneck,
    "denseclip/context_decoder": decoder,
    "denseclip/decoder_layer": decoder_layer,
    "denseclip/text_encoder": text_encoder,
    "denseclip/tokenize": tokenize,
    "denseclip/vit": vit,
}

"""CLIP itself (kinds of ``clip/``): towers, tokenizer, image pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from cases import Case, Results
from PIL import Image
from torch import Tensor, nn

from promptseg.errors import PromptError
from promptseg.images import clip_pixels
from promptseg.nn.clip import Clip, ImageTower
from promptseg.nn.clip_config import AttentionPoolConfig, ClipResNetConfig, ClipTextConfig, ClipVisionConfig
from promptseg.nn.clip_keys import openai_image, openai_resnet, openai_text
from promptseg.nn.clip_resnet import ClipResNet
from promptseg.nn.conversion import load_official
from promptseg.tokenizers import clip as clip_tokenizer


def configs(config: Mapping[str, Any]) -> tuple[ClipVisionConfig, ClipTextConfig]:
    """The constructor arguments of the published class as our configurations."""
    width, patch, embed = config["vision_width"], config["vision_patch_size"], config["embed_dim"]
    grid = config["image_resolution"] // patch
    image = ClipVisionConfig(width=width, layers=config["vision_layers"], heads=width // 64, patch=patch, grid=grid, embed=embed)
    return image, text_config(config)


def text_config(config: Mapping[str, Any]) -> ClipTextConfig:
    """The text tower's part of the arguments."""
    return ClipTextConfig(
        width=config["transformer_width"],
        layers=config["transformer_layers"],
        heads=config["transformer_heads"],
        embed=config["embed_dim"],
        context=config["context_length"],
        vocabulary=config["vocab_size"],
    )


def image_tower(config: Mapping[str, Any]) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The image tower of the arguments, and its modules by the cases' names of what they return."""
    if not isinstance(config["vision_layers"], list):
        tower = ImageTower(configs(config)[0])
        parts = {"patch_embedding": tower.patch_embedding, "ln_pre": tower.norm_pre, "ln_post": tower.norm_post}
        return tower, {**{f"visual_block{i}": block for i, block in enumerate(tower.blocks)}, **parts}
    width = config["vision_width"]
    pool = AttentionPoolConfig(embed=config["embed_dim"], grid=config["image_resolution"] // 32, heads=width // 2)
    net = ClipResNet(ClipResNetConfig(layers=tuple(config["vision_layers"]), width=width, pool=pool))
    return net, {"stem": net.avgpool, "layer1": net.layer1, "layer2": net.layer2, "layer3": net.layer3, "layer4": net.layer4}


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint with the batch counters of its norms, which cases leave out: zero."""
    counters = {name.replace("running_mean", "num_batches_tracked") for name in state if name.endswith("running_mean")}
    return {**state, **{name: torch.zeros((), dtype=torch.long) for name in counters}}


@contextmanager
def recorded(modules: Mapping[str, nn.Module], *, inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """What modules return (or take) while the context lasts; the parts of several calls are joined along the first dimension."""
    calls: dict[str, list[Tensor]] = {name: [] for name in modules}
    results: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        calls[name].append(value.detach().clone())

    handles = [
        module.register_forward_pre_hook(lambda _, taken, name=name: keep(name, taken[0]))
        if inputs
        else module.register_forward_hook(lambda _, taken, given, name=name: keep(name, given))
        for name, module in modules.items()
    ]
    try:
        yield results
    finally:
        for handle in handles:
            handle.remove()
        results.update({name: torch.cat(parts) for name, parts in calls.items() if parts})


def model(case: Case) -> Results:
    """Image pipeline, tokenizer, both towers, similarity."""
    context = case.args["config"]["context_length"]
    tower, parts = image_tower(case.args["config"])
    clip = Clip(tower, text_config(case.args["config"])).eval()
    rules = (*openai_image("visual."), *openai_resnet("visual."), *openai_text(""))
    load_official(clip, {"openai": rules}, with_counters(case.state_dict()))
    pixels = clip_pixels(case.args["image"], case.args["config"]["image_resolution"])[None]
    ids = clip_tokenizer()(case.args["texts"], context)
    padded = F.pad(ids, (0, context - ids.shape[1]))
    with recorded(parts) as seen:
        image = clip.image(pixels).embedding
    with recorded({f"text_block{i}": block for i, block in enumerate(clip.text.blocks)}) as read:
        tokens = clip.text.norm_final(clip.text.tokens(padded))
    text = clip.text(ids)
    logits = clip.similarity(image, text)
    return {
        **seen,
        **read,
        "image": case.args["image"],
        "pixel_values": pixels,
        "token_ids": padded,
        "image_features": image,
        "text_features": text,
        "text_ln_final": tokens,
        "logits_per_image": logits,
        "logits_per_text": logits.T,
    }


def preprocess(case: Case) -> Results:
    """CLIP's own image pipeline."""
    args = case.args
    results = {f"image_{i}": clip_pixels(image, size) for i, (image, size) in enumerate(zip(args["images"], args["sizes"], strict=True))}
    if args.get("grey") is not None:
        results["grey"] = clip_pixels(Image.fromarray(args["grey"].numpy()), args["grey_size"])
    return results


def tokenizer(case: Case) -> Results:
    """Cleaning, encoding, decoding; long texts with and without truncation."""
    words, texts, long_texts = clip_tokenizer(), case.args["texts"], case.args["long_texts"]
    context = case.args["context_length"]
    ids = [words.encode(text) for text in texts]
    return {
        "cleaned": [words.clean(text) for text in texts],
        "ids": ids,
        "decoded": [words.decode(row) for row in ids],
        "eot_position": [int(words([text], context).argmax()) for text in texts],
        "long_n_ids": [len(words.encode(text)) for text in long_texts],
        "long_error": [_error(text, context) for text in long_texts],
        "long_ids_truncated": [_padded(words([text], context)[0], context) for text in long_texts],
    }


def _error(text: str, context: int) -> str | None:
    """The published code's error where ours refuses as well."""
    try:
        clip_tokenizer()([text], context, truncate=False)
    except PromptError:
        return "RuntimeError"
    return None


def _padded(ids: Tensor, context: int) -> list[int]:
    row: list[int] = F.pad(ids, (0, context - len(ids))).tolist()
    return row


RUNNERS = {"clip/model": model, "clip/preprocess": preprocess, "clip/tokenizer": tokenizer}

"""CLIP itself (kinds of ``clip/``): towers, tokenizer, image pipeline. Residual networks come with the family that reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from cases import Case, NotYetError, Results
from PIL import Image
from torch import Tensor, nn

from promptseg.errors import PromptError
from promptseg.images import clip_pixels
from promptseg.nn.clip import Clip
from promptseg.nn.clip_config import ClipTextConfig, ClipVisionConfig
from promptseg.nn.clip_keys import openai_image, openai_text
from promptseg.nn.conversion import load_official
from promptseg.tokenizers import clip as clip_tokenizer


def configs(config: Mapping[str, Any]) -> tuple[ClipVisionConfig, ClipTextConfig]:
    """The constructor arguments of the published class as our configurations."""
    if isinstance(config["vision_layers"], list):
        raise NotYetError("CLIP's residual networks")
    width, patch, embed = config["vision_width"], config["vision_patch_size"], config["embed_dim"]
    grid = config["image_resolution"] // patch
    image = ClipVisionConfig(width=width, layers=config["vision_layers"], heads=width // 64, patch=patch, grid=grid, embed=embed)
    text = ClipTextConfig(
        width=config["transformer_width"],
        layers=config["transformer_layers"],
        heads=config["transformer_heads"],
        embed=embed,
        context=config["context_length"],
        vocabulary=config["vocab_size"],
    )
    return image, text


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
    image_config, text_config = configs(case.args["config"])
    clip = Clip(image_config, text_config).eval()
    load_official(clip, {"openai": (*openai_image("visual."), *openai_text(""))}, case.state_dict())
    pixels = clip_pixels(case.args["image"], image_config.grid * image_config.patch)[None]
    ids = clip_tokenizer()(case.args["texts"], text_config.context)
    padded = F.pad(ids, (0, text_config.context - ids.shape[1]))
    visual = {f"visual_block{i}": block for i, block in enumerate(clip.image.blocks)}
    parts = {"patch_embedding": clip.image.patch_embedding, "ln_pre": clip.image.norm_pre, "ln_post": clip.image.norm_post}
    with recorded({**visual, **parts}) as seen:
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
